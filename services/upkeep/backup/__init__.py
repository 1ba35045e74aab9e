"""Backups of the whole state: made beside a running system, kept where fsspec reaches, restored into any store."""
