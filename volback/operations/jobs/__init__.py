"""Jobs: what `volback.toml` has, carried out - chosen, backed up, copied, pruned, noted and told."""
