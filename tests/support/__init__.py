"""What tests share: real programs, a libvirtd of their own, real guests, loop devices."""
