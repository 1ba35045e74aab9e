"""State in Redis, and the feed."""
