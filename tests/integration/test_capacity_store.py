"""What a store is said to hold can really be reserved on it, to the last MiB."""

import pytest

from ramshelf.core.capacity import capacity
from ramshelf.core.reservation import Reservation
from ramshelf.core.units import MIB
from ramshelf.system.backingstore import observe_at
from ramshelf.system.memoryfiles import create, observe_directory
from support.libvirtd import Libvirtd
from support.stores import MEMORY, store


@pytest.mark.parametrize(
    ("file_system", "size_mib", "options"),
    [
        ("ext4", 128, ""),
        ("ext4", 512, ""),
        ("ext4", 4096, ""),
        ("ext4", 4096, "-m 5"),
        ("ext4", 4096, "-O ^has_journal"),
        ("xfs", 320, ""),
        ("xfs", 4096, ""),
    ],
)
@pytest.mark.parametrize("guests", [1, 13])
def test_all_of_the_capacity_can_be_reserved(
    libvirtd: Libvirtd, file_system: str, size_mib: int, options: str, guests: int
) -> None:
    del libvirtd  # for the host that it resets
    with store(file_system, size_mib, options=options):
        _, usage = observe_at(str(MEMORY))
        assert usage is not None
        total = capacity(usage, configured_mib=None).total // MIB
        assert total > 0.9 * usage.size // MIB - usage.used // MIB
        for guest in range(guests):
            (MEMORY / f"{guest}-guest").mkdir()
            size = total // guests + (total % guests if guest == 0 else 0)
            create(
                observe_directory(str(MEMORY / f"{guest}-guest")),
                Reservation(name="pc.ram", size=size * MIB, allocate=True),
            )
        _, usage = observe_at(str(MEMORY))
        assert usage is not None
        assert capacity(usage, configured_mib=None).promised == total * MIB
