"""Adapters of the port Action: one file for each technology."""
