"""What the agent needs from its host."""
