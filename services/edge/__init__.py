"""Edge agents: what their streams say and get, and how a shard is asked about them."""
