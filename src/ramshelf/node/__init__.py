"""The part that acts on one host: it observes, plans and applies."""
