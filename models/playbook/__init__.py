"""Playbooks: what they say, how they are read and chosen. A run's state is the shard's (models/shard/runs.py)."""
