"""Policy: pure rules - what is kept, what labels request, what is excluded. Touches no file, engine or store."""
