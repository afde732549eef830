"""The doctor: what it knows of a host, what it can say, and how it judges."""
