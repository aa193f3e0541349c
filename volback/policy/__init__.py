"""Policy: pure rules - what is kept, what labels ask for, what is excluded. Touches no file, engine or store."""
