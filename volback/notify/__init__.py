"""Notify: telling people and monitoring how a job's run ended. The only import of apprise."""
