"""`llm-im incidents`: see incidents, and do something about them. One group of verbs a file; group.py puts them together."""
