"""How a store may be built.

This module imports nothing of ramshelf's: ramshelf-nova's wheel has a copy of it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # Type checkers know the name, and are shown the standard Enum.
if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum
else:

    class _Members(type):
        """A metaclass that makes a class's names in capitals its members.

        It does what is used of ``enum.EnumMeta``: importing enum costs milliseconds, and the hook
        has none to spare.
        """

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> _Members:
            made = super().__new__(cls, name, bases, body)
            made.members = {}
            for key, value in body.items():
                if key.isupper():
                    member = object.__new__(made)
                    member.name, member.value = key, value
                    made.members[value] = member
                    setattr(made, key, member)
            return made

        def __call__(cls, value: object) -> object:
            try:
                return cls.members[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __iter__(cls) -> Iterator[object]:
            return iter(cls.members.values())

    class Enum(metaclass=_Members):
        """A stand-in for ``enum.Enum`` with the same look."""

        def __reduce__(self) -> tuple[type, tuple[object]]:
            return type(self), (self.value,)

        def __repr__(self) -> str:
            return f"<{self}: {self.value!r}>"

        def __str__(self) -> str:
            return f"{type(self).__name__}.{self.name}"


class Kind(Enum):
    """The way in which a store is built; ``_BUILT`` says what follows from it."""

    SWAP = "swap"
    DISK = "disk"
    DAX = "dax"
    RAM = "ram"

    @property
    def tmpfs(self) -> bool:
        """Whether the store is a tmpfs, where reservation is accounting and not extents."""
        return _BUILT[self.value][0]

    @property
    def swaps(self) -> bool:
        """Whether guests' memory goes from RAM to a swap area that is made for the store."""
        return _BUILT[self.value][1]

    @property
    def dax(self) -> bool:
        """Whether guests map the device itself, so that their memory is never in RAM."""
        return _BUILT[self.value][2]

    @property
    def bare(self) -> bool:
        """Whether nothing lies below the store, no device and no file: its memory stays in RAM."""
        return self.tmpfs and not self.swaps

    @property
    def trait(self) -> str:
        """The custom trait that says in Placement that a host's store is of this kind."""
        return f"{TRAIT_PREFIX}{self.value.upper()}"


_BUILT = {
    # The columns tell whether a store of this kind is a tmpfs, whether it swaps, whether it is DAX.
    "swap": (True, True, False),
    "disk": (False, False, False),
    "dax": (False, False, True),
    "ram": (True, False, False),
}

TRAIT_PREFIX = "CUSTOM_RAMSHELF_STORE_"
"""The beginning of the traits of all kinds."""
