"""Giving back what a save, a dump or a migration has populated of a guest's memory on a tmpfs.

These read all of the memory, and on a tmpfs a page that is read through a mapping is a page that is
allocated. Pages that are zero are made holes again, which read the same. They are looked for while
the guest runs. A page that the guest wrote to between the last look and the punch would be lost, so
both happen while the guest is held still, for moments.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from ramshelf.core.errors import HostError, RefusedError
from ramshelf.core.guest.hold import PAUSABLE
from ramshelf.core.guest.trim import check_trim
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.units import MIB
from ramshelf.node.guest.hold import Pauser, require_idle
from ramshelf.node.guest.let_go import resume_left
from ramshelf.node.guest.look import described
from ramshelf.node.store.holdings import observe_holdings
from ramshelf.system.backingstore import observe_store
from ramshelf.system.hooklog import record
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.memoryfiles import punch
from ramshelf.system.procfs import mappers_of, opened_paths
from ramshelf.system.ptrace import Holder
from ramshelf.system.storetree import open_memory
from ramshelf.system.zeropages import Extent, blocks, zeros

_LOOK = 0.02
"""Seconds that the last look may take while the guest is held.

To punch what it finds takes about as long.
"""

_SHARE = 4
"""After being held, the guest runs so many times as long before it is held again."""

_BATCH = 256 * MIB
_BATCH_EXTENTS = 4096
"""The bytes and the extents that are found, at most, before they are punched.

What is found later has had less time to change.
"""

_WORTH = MIB
"""The bytes for less than which a guest is not held."""


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """What trimming a guest did.

    ``examined``: bytes of the guest's memory that were in RAM. ``given_back``: bytes of these that
    were made holes. ``longest``: seconds that the guest was held at a time, at most. ``pauses``:
    how many times it was held.
    """

    name: str
    seconds: float
    examined: int
    given_back: int
    longest: float
    pauses: int


class _Found(NamedTuple):
    """Memory that was zero when it was looked at; ``file`` is a descriptor."""

    file: int
    extent: Extent


def trim_guest(
    hypervisor: Hypervisor, name: str, *, after_step: Callable[[str], None] = lambda _step: None
) -> Trimmed:
    """Make holes of the pages of the running guest's memory files that are in RAM and zero.

    What is swapped out stays so. Raises RefusedError, and HostError ``store.*`` where there is no
    store. ``after_step`` is told what has been done while the guest is paused, for tests that stop
    there.
    """
    begin = time.monotonic()
    resume_left(hypervisor)
    domain = hypervisor.find(name)
    if domain.domain_id is None or domain.state not in PAUSABLE:
        raise RefusedError(
            "guest.state",
            f"Guest {name} is {domain.state}: only a guest that runs, or is paused, can be "
            "trimmed.",
            facts={"guest": name, "state": domain.state},
        )
    observed = observe_store()
    if isinstance(observed.store, NoStore):
        raise HostError(observed.store.code, observed.store.sentence, hint=observed.store.hint)
    _, held = observe_holdings(hypervisor, observed)
    files = [file for holding in held if holding.guest == name for file in holding.files]
    maps = mappers_of(_identities(observed.store, files))
    if not maps:
        raise RefusedError(
            "guest.not-file-backed",
            f"Guest {name} has no memory on the store.",
            facts={"guest": name},
        )
    guest = described(hypervisor.live_xml(name), name)
    check_trim(guest, observed.store, mappers=maps, opened=opened_paths(maps[0]))
    require_idle(hypervisor, name, domain.domain_id)
    try:
        pauser = Pauser(hypervisor, domain, maps[0], after_step)
        trimming = _trim(pauser, files, after_step)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise RefusedError(
            "guest.not-found", f"Guest {name} has ended.", facts={"guest": name}
        ) from error
    trimmed = Trimmed(
        name=name,
        seconds=time.monotonic() - begin,
        examined=trimming.examined,
        given_back=trimming.given_back,
        longest=max(trimming.held, default=0.0),
        pauses=len(trimming.held),
    )
    record(
        "trimmed",
        guest=name,
        uuid=domain.uuid,
        id=domain.domain_id,
        seconds=round(trimmed.seconds, 3),
        examined_mib=round(trimmed.examined / MIB, 1),
        given_back_mib=round(trimmed.given_back / MIB, 1),
        longest_pause_ms=round(trimmed.longest * 1000, 1),
        pauses=trimmed.pauses,
    )
    return trimmed


def _identities(store: Store, files: Iterable[FileUsage]) -> set[tuple[int, int, int]]:
    return {(*store.mount.device, file.inode) for file in files}


def _trim(
    pauser: Pauser, memory: Iterable[FileUsage], after_step: Callable[[str], None]
) -> "_Trimming":
    with ExitStack() as stack:
        files = []
        for file in memory:
            files.append(open_memory(file, writable=True))
            stack.callback(os.close, files[-1])
        trimming = _Trimming(stack.enter_context(pauser), files, after_step)
        trimming.run()
    return trimming


class _Trimming:
    """Looks through all files once.

    It counts bytes, and keeps the seconds that the guest was held each time.
    """

    def __init__(self, pauser: Pauser, files: list[int], after_step: Callable[[str], None]) -> None:
        self._pauser = pauser
        self._files = files
        self._after_step = after_step
        self.examined = 0
        self.given_back = 0
        self.held: list[float] = []

    def run(self) -> None:
        """Give back all that is zero."""
        for batch in self._batches():
            while batch:
                begin = time.monotonic()
                with self._pauser.held() as qemu:
                    self._after_step("held")
                    self._give_back(batch, qemu)
                    self._after_step("punched")
                self.held.append(time.monotonic() - begin)
                time.sleep(_SHARE * self.held[-1])

    def _batches(self) -> Iterator[list[_Found]]:
        """Yield what is zero now, in parts that are worth holding the guest for."""
        batch: list[_Found] = []
        size = 0
        for file in self._files:
            for block in blocks(file):
                examined, found = zeros(file, block)
                self.examined += examined
                batch += (_Found(file, extent) for extent in found)
                size += sum(extent.length for extent in found)
                if size >= _BATCH or len(batch) >= _BATCH_EXTENTS:
                    yield batch
                    batch, size = [], 0
        if size >= _WORTH:
            yield batch

    def _give_back(self, batch: list[_Found], qemu: Holder) -> None:
        """Take from the batch what there is time for, and punch what of it is still zero."""
        deadline = time.monotonic() + _LOOK
        found = []
        while batch and time.monotonic() < deadline:
            file, extent = batch.pop()
            found += [_Found(file, still) for still in zeros(file, extent)[1]]
        if not found or not self._pauser.still_paused():
            return
        # Were QEMU let go because it is to end, it would first run the guest, as it was asked to.
        with qemu.kept() as kept:
            for file, extent in found if kept else ():
                punch(file, *extent)
                self.given_back += extent.length
