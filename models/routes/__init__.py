"""Routes: which receivers are told of an incident, and when; pure."""
