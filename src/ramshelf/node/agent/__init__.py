"""What the agent needs of its host."""
