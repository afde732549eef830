"""Readers and editors of the host's files that others write too."""
