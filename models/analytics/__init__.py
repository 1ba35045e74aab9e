"""What incidents say together: one row each, and figures of many rows."""
