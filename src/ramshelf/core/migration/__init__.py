"""Moving a guest to another host: whether it can move, how, and what it becomes there."""
