"""Store: objects by key. Knows nothing of backups, archives or engines."""
