"""Alerts over gRPC: HTTP/2 (connection.py), calls (call.py), and one file a service. door.py lists them."""
