"""The files that ramshelf makes have the modes of docs/reference/files.md, whatever the umask."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from ramshelf.core.hook.script import SCRIPT
from support.agent import agent
from support.cli import RAMSHELF
from support.devices import scratch
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run

PAGE = Path(__file__).parents[2] / "docs/reference/files.md"
LOOKED_AT = ("/etc", "/run", "/var/log")
OTHERS = (
    "/etc/libvirt/qemu/*",
    "/etc/ramshelf*",
    "/etc/*.ramshelf-backup",
    "/run/agent.log",
    "/run/guest*",
    "/run/libvirt*",
    "/var/log/libvirt/*",
)


UUID = "8e4b4c5e-5f5f-4c3c-9d0c-52c1b1c1a0aa"
EMBEDDED = "placement = embedded\nplacement_owner = true\n"
EXPECTED = {
    "/run/ramshelf",
    "/run/ramshelf/arriving/*",
    "/run/ramshelf/coming/*.*",
    "/run/ramshelf/hook.log",
    "/run/ramshelf/lock",
    "/etc/libvirt/hooks/qemu.d/ramshelf",
    "/etc/sysctl.d/90-ramshelf.conf",
}


def rows() -> dict[str, str]:
    """The mode of each file of the page's table, by a pattern for its path."""
    found = re.findall(
        r"^\| (?:`(/[^`]+)`|the file named) .*?\| (0\d{3}) \|", PAGE.read_text(), re.MULTILINE
    )
    return {re.sub(r"[A-Z]{4,}", "*", path): mode for path, mode in found if path}


def listed() -> set[Path]:
    return {path for top in LOOKED_AT for path in Path(top).rglob("*") if not path.is_symlink()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def live(libvirtd: Libvirtd, database: str) -> None:
    """Make use of everything that leaves files."""
    with agent(conf=database) as running:
        running.wait_metric("ramshelf_placement_capacity_bytes", lambda value: value > 0)
        libvirtd.define(domain_xml("guest", 64))
        run(RAMSHELF, "guest", "start", "guest")
        run(RAMSHELF, "guest", "stop", "guest", "--now")


@pytest.mark.parametrize(("mask", "all_of_it"), [(0o000, True), (0o077, False)])
def test_modes_are_what_the_page_says_whatever_the_umask(
    libvirtd: Libvirtd, mask: int, *, all_of_it: bool
) -> None:
    file, state = scratch() / "area", scratch() / "state"
    before = listed()
    assert Path("/etc/sysctl.d/90-ramshelf.conf") not in before
    # Whatever the machine has: with a higher ratio nothing is set.
    Path("/proc/sys/vm/dirty_ratio").write_text("20\n")
    try:
        with umask(mask):
            libvirtd.restart()
            run(
                RAMSHELF,
                "store",
                "create",
                "--kind",
                "disk",
                "--size",
                "320MiB",
                "--file",
                str(file),
            )
            run(RAMSHELF, "hook", "install")
            if all_of_it:
                live(libvirtd, f"{EMBEDDED}placement_database = {state}/placement.sqlite\n")
            libvirtd.create(domain_xml("large", 2048), ok=(1,))
            libvirtd.create(domain_xml(f"ramshelf-probe-coming-{UUID}"), ok=(1,))
            run(
                SCRIPT, "sent", "migrate", "begin", "-", stdin=domain_xml("sent", memory_backing="")
            )
        made = {str(path): path.lstat() for path in listed() - before}
        if all_of_it:
            as_shipped = str(state), "/var/lib/ramshelf"
            made |= {
                str(path).replace(*as_shipped): path.lstat() for path in (state, *state.iterdir())
            }
            assert list(Path("/run/ramshelf/claims").iterdir()) == []
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        run(RAMSHELF, "store", "remove", ok=(0, 1))
        libvirtd.restart()
    table = rows()
    found = {
        path: pattern_of(path, table)
        for path in made
        if not any(fnmatchcase(path, each) for each in OTHERS)
    }
    wrong = [
        f"{path} {stat.S_IMODE(made[path].st_mode):04o} {made[path].st_uid}"
        for path, pattern in found.items()
        if (f"{stat.S_IMODE(made[path].st_mode):04o}", made[path].st_uid) != (table.get(pattern), 0)
    ]
    assert wrong == []
    wanted = (
        EXPECTED | {"/run/ramshelf/agent.lock", "/var/lib/ramshelf/placement.sqlite"}
        if all_of_it
        else EXPECTED
    )
    assert wanted <= set(found.values())


def test_the_last_removal_leaves_no_state(libvirtd: Libvirtd) -> None:
    state = Path("/run/ramshelf")
    try:
        run(
            RAMSHELF,
            "store",
            "create",
            "--kind",
            "swap",
            "--size",
            "64MiB",
            "--file",
            str(scratch() / "area"),
        )
        libvirtd.restart()
        run(RAMSHELF, "hook", "install")
        libvirtd.create(domain_xml("large", 2048), ok=(1,))
        run(RAMSHELF, "hook", "bypass", "--for", "1min")
        with agent():
            run(RAMSHELF, "hook", "remove")
            assert (state / "hook.log").exists()
            run(RAMSHELF, "store", "remove")
            assert (state / "agent.lock").exists()
        run(RAMSHELF, "hook", "remove")
        assert not state.exists()
    finally:
        run(RAMSHELF, "store", "remove", ok=(0, 1))
        libvirtd.restart()


def pattern_of(path: str, table: dict[str, str]) -> str:
    """The row that is about a file, '' where none is; one that names it exactly before others."""
    if path in table:
        return path
    depth = path.count("/")
    return next(
        (each for each in table if fnmatchcase(path, each) and each.count("/") == depth), ""
    )
