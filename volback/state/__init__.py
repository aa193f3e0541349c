"""State: what this client keeps on its own disk: journals of runs, locks, its id."""
