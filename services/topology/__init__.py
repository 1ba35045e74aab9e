"""Files of services and their dependencies."""
