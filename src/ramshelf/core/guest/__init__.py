"""A guest on its way: admitted, started, reserved late, trimmed, and held for a moment."""
