"""Ways in for alerts: one file a protocol."""
