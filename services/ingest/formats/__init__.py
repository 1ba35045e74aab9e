"""One file a source: payload in, Reading out (common.py). Siblings share a shape: a Posted struct and read()."""
