"""Files of the host's that others write too: what they say."""
