"""Moving a guest to another host: whether, how, and what it becomes there."""
