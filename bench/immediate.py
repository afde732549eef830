"""Nova's element in pairs: ``virsh start --paused`` without ramshelf's hook, and with it."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.guests import hook_for, started
from support.counters import sync
from support.devices import zram_device
from support.libvirtd import Libvirtd
from support.stores import store


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One pair of starts; which is first changes from pair to pair.

    QEMU allocates all memory before the guest runs (allocation immediate). ``ratio`` is the time
    with the hook divided by the time without it.
    """

    store: str
    guest_mib: int
    without_seconds: float
    with_seconds: float
    ratio: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:
    """Measure one guest on each disk store; the first pair on each is not counted.

    The stores lie on zram: a disk's moods are larger than what there is to see.
    """
    size = 256 if quick else 4096
    for name in ("ext4",) if quick else ("ext4", "xfs"):
        room = size * 3 // 2
        with zram_device(room) as device, store(name, room, device=device):
            for number in range(1 if quick else 9):
                pair = _pair(daemon, name, size, hook_first=number % 2 == 0)
                if number or quick:
                    yield pair


def _pair(daemon: Libvirtd, name: str, size: int, *, hook_first: bool) -> Sample:
    seconds = {}
    for hook in (hook_first, not hook_first):
        with hook_for("ramshelf" if hook else "nova"):
            sync()  # writes what the guest before has left
            with started(daemon, "nova", size, paused=True) as guest:
                seconds[hook] = guest.start_seconds
    return Sample(
        store=name,
        guest_mib=size,
        without_seconds=seconds[False],
        with_seconds=seconds[True],
        ratio=seconds[True] / seconds[False],
    )
