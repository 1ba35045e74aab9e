"""What runs actors: on Ray (cluster.py, which imports it) or in one process (local.py), and how they call each other."""
