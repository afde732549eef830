"""Looking at, starting, ending and trimming the guests on this host."""
