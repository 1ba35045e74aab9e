"""State in PostgreSQL and what speaks its protocol."""
