"""The place where Nova finds ``compute_driver = ramshelf.FileBackedLibvirtDriver``."""

from ramshelf_nova.driver import FileBackedLibvirtDriver

__all__ = ["FileBackedLibvirtDriver"]
