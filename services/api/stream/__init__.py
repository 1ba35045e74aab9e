"""The live stream of incidents: server-sent events and WebSocket."""
