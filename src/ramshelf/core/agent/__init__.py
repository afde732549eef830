"""The agent: its unit, what it reports, and when it does what."""
