"""Live: volumes that containers write to. It decides which containers are quiesced and which hooks run, and ensures
that both end."""
