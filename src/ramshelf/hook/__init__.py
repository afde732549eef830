"""What libvirt calls around every guest. Standard library only; no libvirt connection."""
