"""libvirt's hook on this host."""
