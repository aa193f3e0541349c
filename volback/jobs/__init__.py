"""Jobs: runs of the jobs in `volback.toml`: select, back up, copy, prune, record and report."""
