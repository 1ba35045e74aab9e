"""Edge agents: what is known of each, and what is to be done by them."""
