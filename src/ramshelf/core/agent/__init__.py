"""The agent: its unit, what it tells, and when it does what."""
