"""What the adapters of several stores share."""
