"""Touches: one module per thing touched on the host."""
