"""File-backed guest memory for KVM hosts."""

__version__ = "0.2.0"
