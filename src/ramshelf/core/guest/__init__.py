"""A guest on its way: admitted, started, reserved late, trimmed, held for a moment."""
