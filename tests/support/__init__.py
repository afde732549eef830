"""What tests share: real programs, an own libvirtd, real guests, loop devices."""
