"""Notify: reports to people and monitoring how a job's run ended. The only import of apprise."""
