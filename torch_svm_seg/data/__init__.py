"""Data sets, image-level labels, and reading and writing files."""
