"""The record of what was tried on which host: docs/reference/tested-on.md is made of it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from support.real_host import CHECKOUT, RealHost

RESULTS = CHECKOUT / "tests/host/results"

_FACTS = {
    "distribution": ". /etc/os-release; echo $PRETTY_NAME",
    "kernel": "uname -r",
    "libvirt": "libvirtd --version | grep -o '[0-9.]*$'",
    "QEMU": "qemu-system-x86_64 --version | grep -om1 '[0-9][0-9.]*' | head -n 1",
    "accelerator": "virsh capabilities | grep -o \"domain type='kvm'\" | head -n 1 | cut -d\\' -f2",
    "cgroup": "stat --file-system --format %T /sys/fs/cgroup | sed 's/cgroup2fs/v2/'",
    "security module": "virsh capabilities | grep -A1 '<secmodel>' | grep -om1 '<model>[a-z]*' | "
    "cut -c8-",
}


def facts(machine: RealHost) -> dict[str, str]:
    """Return what a host is made of, by what it is called in the page."""
    return {name: machine.said(line) for name, line in _FACTS.items()}


def record(suite: str, host: dict[str, str], outcomes: dict[str, str]) -> None:
    """Put the outcomes, by the tests' names, on record for a release of Debian."""
    path = RESULTS / f"{suite}.json"
    path.parent.mkdir(exist_ok=True)
    today = datetime.now(UTC).date().isoformat()
    with _alone():
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"tests": {}}
        tests = known["tests"] | {name: [outcome, today] for name, outcome in outcomes.items()}
        text = json.dumps({"host": host, "tests": tests}, indent=1, sort_keys=True)
        path.write_text(f"{text}\n")


@contextmanager
def _alone() -> Iterator[None]:
    """Keep pytest-xdist's other workers waiting, which write to the same record."""
    directory = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
