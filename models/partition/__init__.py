"""What any partition is made of: frames of its log, checkpoints of its state, and which one holds a service."""
