"""Settings from files, environment and command line, checked."""
