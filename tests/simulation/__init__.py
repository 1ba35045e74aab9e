"""The whole system in one process under seeded chance: `python -m tests.simulation --seed N` repeats a run."""
