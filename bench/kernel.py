"""Settings of the running kernel, changed for a while: they are the whole machine's."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.devices import scratch
from support.process import run

_COPIES = Path("/run/sysctl-vm")
_PROC = Path("/run/bench-proc")
"""A proc without the copies that scripts/isolated has laid over some of its files."""


@contextmanager
def setting(path: str, value: str) -> Iterator[None]:
    """Set a file of /proc/sys or /sys, and put it back at the end.

    While there is a store see sysctls_of_the_store. Where this process is killed, scripts/isolated
    puts the file back: it finds the former value in ``.kernel``.
    """
    real = _proc() / path.removeprefix("/proc/") if path.startswith("/proc/") else Path(path)
    before = real.read_text().strip()
    with (scratch() / ".kernel").open("a") as file:
        file.write(f"{path} {before}\n")
    real.write_text(value)
    try:
        yield
    finally:
        real.write_text(before)


@contextmanager
def sysctls_of_the_store() -> Iterator[None]:
    """Give the kernel the vm.* values that ``ramshelf store create`` has set in the copies.

    Others on this machine wait meanwhile: one that took our value for the machine's own would put
    that back.
    """
    with ExitStack() as stack:
        directory = os.open(scratch().parent, os.O_RDONLY)
        stack.callback(os.close, directory)
        fcntl.flock(directory, fcntl.LOCK_EX)
        for copy in _COPIES.iterdir():
            value, is_now = (
                path.read_text().strip() for path in (copy, _proc() / "sys/vm" / copy.name)
            )
            if value != is_now:
                stack.enter_context(setting(f"/proc/sys/vm/{copy.name}", value))
        yield


def _proc() -> Path:
    if not _PROC.is_mount():
        _PROC.mkdir(exist_ok=True)
        run("mount", "-t", "proc", "proc", str(_PROC))
    return _PROC
