"""Store: objects by key. It does not know backups, archives or engines."""
