"""How a store may be built. No imports of ramshelf's: ramshelf-nova's wheel has a copy of this module."""

import enum


class Kind(enum.Enum):
    """How a store is built."""

    SWAP = "swap"
    DISK = "disk"
    DAX = "dax"
    RAM = "ram"

    @property
    def tmpfs(self) -> bool:
        """Whether the store is a tmpfs, where reservation is accounting and not extents."""
        return self in {Kind.SWAP, Kind.RAM}

    @property
    def trait(self) -> str:
        """The custom trait that says in Placement that a host's store is of this kind."""
        return f"{TRAIT_PREFIX}{self.value.upper()}"


TRAIT_PREFIX = "CUSTOM_RAMSHELF_STORE_"
"""Begin of the traits of all kinds."""
