"""Readers of the log: the live stream, and the feed in Redis."""
