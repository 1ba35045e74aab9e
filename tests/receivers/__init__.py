"""Receivers for tests: local servers that check each request against the documented API, and can be told to answer anything."""
