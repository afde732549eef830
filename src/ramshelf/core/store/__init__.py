"""The store: where it is, what it holds, and what was promised of it."""
