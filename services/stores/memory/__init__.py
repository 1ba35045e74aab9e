"""Every store in memory, for tests, the simulation and diskless runs."""
