"""What protects us and those that we call: which addresses may be called (guard.py), and how often each target is
(target.py, of breaker.py and rate.py)."""
