"""GraphQL over what /v1 reads and does: one schema, made from the bodies and verbs of /v1."""
