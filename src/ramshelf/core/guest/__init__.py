"""A guest: its memory, and what becomes of that from its start to its end."""
