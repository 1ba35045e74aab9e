"""Work on what is kept: copying, resharding, verifying, backups."""
