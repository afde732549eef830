"""Guests on this host: looked at, started, ended, trimmed."""
