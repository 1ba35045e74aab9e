"""Opsgenie's alerts API: what its clients read."""
