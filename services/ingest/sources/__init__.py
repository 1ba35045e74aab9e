"""Where alerts are fetched from: one file a source (source.py). table.py lists them."""
