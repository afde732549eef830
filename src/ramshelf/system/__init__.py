"""What touches the host: one module for each thing that is touched."""
