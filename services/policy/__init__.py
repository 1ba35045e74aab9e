"""Adapters of the port Policy: one file for each technology; `choice.py` picks one by the settings."""
