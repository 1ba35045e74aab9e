"""The doors: from bytes on a socket to a durable answer. submit.py is the single way in."""
