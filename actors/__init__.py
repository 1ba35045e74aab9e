"""Plain classes that own state; each a short loop around one model. Only runtime/cluster.py knows of Ray."""
