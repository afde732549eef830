"""Does: observe, plan, apply on one host."""
