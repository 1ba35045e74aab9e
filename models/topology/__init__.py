"""What the topology partition decides: the graph of services, and which incidents hang together."""
