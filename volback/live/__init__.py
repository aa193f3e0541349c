"""Live: volumes that containers write to. Which containers are quiesced, which hooks run, and that both end."""
