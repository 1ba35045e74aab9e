"""What several commands share: the client, the terminal, filters, output."""
