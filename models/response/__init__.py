"""What protects us and those that we call: which addresses may be called, and how often."""
