"""A guest's domain XML: what it says of the guest's memory, and what edits it."""
