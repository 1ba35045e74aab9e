"""One file for each format: a request in, its alerts and its answer out (format.py). table.py lists them."""
