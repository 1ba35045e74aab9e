"""Servers of others that tests start, in processes of their own, to fetch alerts from."""
