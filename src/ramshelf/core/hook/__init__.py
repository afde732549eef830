"""libvirt's hook: the script, the copy of modules that it runs, and what both agree on."""
