"""Alerts and the series they make: identity, labels, grouping, matchers, and how many a shard has room for."""
