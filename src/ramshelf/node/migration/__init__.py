"""Guests that move between this host and another."""
