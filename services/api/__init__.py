"""Reads and verbs over HTTP: Alertmanager's API, ours under /v1, the live stream, health and metrics. app.py puts it
together, guard.py stands in front."""
