"""What surrounds the system on a machine: start and stop, the front door, logs, traces."""
