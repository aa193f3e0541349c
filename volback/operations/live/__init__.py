"""Live: volumes that containers write to - who is kept still, what is run in them, and that all of it ends."""
