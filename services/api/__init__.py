"""The read side over HTTP: Alertmanager's API, ours under /v1, health and metrics. app.py puts it
together."""
