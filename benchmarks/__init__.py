"""Benchmarks: a load generator, alert bodies, peers to compare with, and the claims README makes."""
