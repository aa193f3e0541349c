"""Archive: plan units, cut the tar stream, seal and unseal frames. The only package that imports zstandard."""
