"""What an incident is, what may be done to it, and how it is listed, filtered and shown."""
