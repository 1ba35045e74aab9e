"""Where state is kept: a folder a technology, a file a port. choice.py says which serves."""
