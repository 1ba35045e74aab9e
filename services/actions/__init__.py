"""Adapters of port Action: one file a technology."""
