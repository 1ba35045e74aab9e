"""Where state is kept: one file a technology and port, memory and SQLite. Built by services/wiring/bootstrap.py."""
