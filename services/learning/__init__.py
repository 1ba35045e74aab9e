"""Training of the learned classifier, in a process of its own: what it learns from, and the fitting of weights."""
