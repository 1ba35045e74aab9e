"""Settings become ports, actors and doors."""
