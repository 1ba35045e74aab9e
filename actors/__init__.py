"""Plain classes that own state; each a short loop round one model. Only runtime/cluster.py knows of Ray."""
