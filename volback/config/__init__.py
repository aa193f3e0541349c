"""Config: `volback.toml` - repositories by name, jobs, notifications - read, merged and checked. It runs nothing."""
