"""The store on this host."""
