"""How messages are written to each kind of broker."""
