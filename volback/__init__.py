"""volback backs up, restores and moves Docker volumes: plain tar.zst, random access, proven bit for bit."""

__version__ = "0.1.0"
