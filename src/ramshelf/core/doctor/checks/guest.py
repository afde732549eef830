"""Checks of running guests: their memory is on the store, reserved, and all seen by the hook."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import Facts, GuestFacts, StoreFacts
from ramshelf.core.domain.private import private_mapping
from ramshelf.core.files.mounts import is_below
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.host import Unknown
from ramshelf.core.requirements import punch_writes_back
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.store.find import Store
from ramshelf.core.units import MIB, align_up, to_mib

_MEM_PATH = re.compile(r'mem-path"?[:=]"?([^",]+)')


def check_guests(facts: Facts) -> Iterator[Finding]:
    """Check every running guest by itself."""
    if isinstance(facts.guests, Unknown):
        yield unknown("guest.list-unknown", "The running guests could not be listed", facts.guests)
        return
    found = [each for running in facts.guests for each in _guest(running, facts)]
    found += [
        finding("guest.not-understood", f"Guest {odd.name}: {odd.problem}.", guest=odd.name)
        for odd in facts.odd_guests
    ]
    yield from found
    if all(each.severity is Severity.INFO for each in found):
        count = len(facts.guests)
        yield finding(
            "guest.ok", f"{count} running guest{'' if count == 1 else 's'}.", guests=count
        )


def _guest(running: GuestFacts, facts: Facts) -> Iterator[Finding]:
    guest = running.guest
    if guest.hugepages:
        yield finding("guest.huge-pages", f"Guest {guest.name} uses huge pages.", guest=guest.name)
    if guest.locked:
        yield finding(
            "guest.locked", f"Guest {guest.name} locks its memory in RAM.", guest=guest.name
        )
    if running.pinned is not None and guest.pinned > running.pinned:
        size = to_mib(align_up(guest.pinned, MIB))
        yield finding(
            "guest.hot-pinned",
            f"Guest {guest.name} got a device while it ran that keeps its {size} MiB in RAM, which "
            "nothing admitted.",
            guest=guest.name,
            pinned_mib=size,
        )
    off = isinstance(facts.config, Config) and facts.config.off
    anonymous = guest.memory - guest.file_bytes
    if anonymous > 0 and not guest.hugepages and not off:
        yield finding(
            "guest.anonymous",
            f"Guest {guest.name} has {to_mib(align_up(anonymous, MIB))} MiB of anonymous memory.",
            hint=f"Stop it; 'ramshelf guest start {guest.name}' then makes it file-backed.",
            guest=guest.name,
            anonymous_mib=to_mib(align_up(anonymous, MIB)),
        )
    yield from private_mapping(guest)
    yield from _own_backends(running, facts)
    if not guest.file_backed or isinstance(facts.store, Unknown):
        return
    yield from _files(running, facts.store, facts)


def _own_backends(running: GuestFacts, facts: Facts) -> Iterator[Finding]:
    """Yield a finding for memory on the store that libvirt does not know of."""
    store = None if isinstance(facts.store, Unknown) else facts.store.store
    if not isinstance(store, Store):
        return
    own = [each for each in running.own if is_below(each.path, store.mount_point)]
    if own:
        paths = [each.path for each in own]
        size = to_mib(align_up(sum(each.size for each in own), MIB))
        yield finding(
            "guest.own-backend",
            f"Guest {running.guest.name} has {size} MiB of memory on the store by its "
            f"qemu:commandline ({', '.join(paths)}), which no promise counts.",
            guest=running.guest.name,
            own_mib=size,
            paths=paths,
        )


def _files(running: GuestFacts, seen: StoreFacts, facts: Facts) -> Iterator[Finding]:
    guest, files = running.guest, running.memory_files
    if isinstance(files, Unknown):
        yield unknown(
            "guest.files-unknown",
            f"The memory files of guest {guest.name} could not be looked at",
            files,
        )
        return
    if not files and running.process is None:
        yield finding(
            "guest.files-unknown",
            f"Guest {guest.name} has neither memory files nor a QEMU process that can be seen: it "
            "starts or ends just now, or runs in another container.",
            guest=guest.name,
        )
        return
    if (
        not files
        or not isinstance(seen.store, Store)
        or not is_below(running.directory, seen.store.mount_point)
    ):
        yield finding(
            "guest.elsewhere",
            f"The memory of guest {guest.name} is not on the store ({running.directory}).",
            guest=guest.name,
            directory=running.directory,
        )
        return
    yield from _reservation(running, files, tmpfs=seen.store.kind.tmpfs)
    kernel = (0, 0, 0) if isinstance(facts.kernel, Unknown) else facts.kernel
    flushes = punch_writes_back(seen.store.mount.fstype, kernel)
    if guest.discard and flushes and not running.discard_retracted:
        yield finding(
            "guest.discard-flushes",
            f"Guest {guest.name} has discard set, which writes its memory to "
            f"{seen.store.mount.source} when it ends.",
            guest=guest.name,
        )


def _reservation(
    running: GuestFacts, files: tuple[FileUsage, ...], *, tmpfs: bool
) -> Iterator[Finding]:
    """Check the promise, which is what keeps the guest alive, then the extents, the second line."""
    guest = running.guest
    memory = [file for file in files if not file.is_promise]
    promised = running.promised
    if isinstance(promised, Unknown):
        yield unknown(
            "guest.promise-unknown", f"What guest {guest.name} was promised is not known", promised
        )
        return
    missing = max(0, guest.promise - promised)
    never = () if tmpfs else (file for file in memory if file.inode not in running.given)
    unallocated = sum(max(0, file.apparent - file.allocated) for file in never)
    if missing or unallocated:
        size = to_mib(align_up(missing or unallocated, MIB))
        yield finding(
            "guest.not-reserved",
            f"Guest {guest.name} has {size} MiB of memory that are not "
            f"{'promised' if missing else 'allocated'} on the store.",
            milder=not missing,
            guest=guest.name,
            missing_mib=size,
        )
    later = _later(running, memory)
    if later and sum(file.apparent for file in memory) > promised:
        yield finding(
            "guest.hot-plugged",
            f"Guest {guest.name} got memory while it ran that nothing admitted: "
            f"{', '.join(later)}.",
            guest=guest.name,
            files=later,
        )


def _later(running: GuestFacts, memory: list[FileUsage]) -> list[str]:
    """Return the files that are not on QEMU's command line.

    Hot-plugged memory never stands there.
    """
    if running.process is None or not running.process.argv:
        return []
    started = {
        PurePosixPath(path).name for path in _MEM_PATH.findall(" ".join(running.process.argv))
    }
    names = (PurePosixPath(file.path).name for file in memory)
    return sorted(name for name in names if name not in started) if started else []
