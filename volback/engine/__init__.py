"""Engine: Docker volumes, containers and helpers. The only room that imports docker."""
