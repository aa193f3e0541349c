"""Engine: Docker volumes, containers and helpers. The only package that imports docker."""
