"""Schedule: jobs at their times - by cron, by systemd, or in the foreground."""
