"""The protocol over gRPC: llm/incident/v1/incident.proto, and what `make proto` makes of it."""
