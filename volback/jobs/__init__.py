"""Jobs: what `volback.toml` names is carried out: selected, backed up, copied, pruned, recorded and reported."""
