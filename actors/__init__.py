"""Plain classes that own state; each a short loop round one model. Only cluster.py knows of Ray."""
