"""Ways in for alerts: one file a protocol (door.py). table.py lists them."""
