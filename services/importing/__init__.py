"""Settings of other programs, made into ours."""
