"""The layer that decides: pure functions over frozen facts, without I/O, clock or environment."""
