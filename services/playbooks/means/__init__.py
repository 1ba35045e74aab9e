"""Ways in which a service is changed: one file each, chosen for a service by the settings."""
