import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.doctor.facts import ServiceOrder
from ramshelf.core.files.fstab import parse_fstab
from ramshelf.core.files.mounts import Mount, covering, parse_mountinfo
from ramshelf.core.host import Process, Slice, Unknown
from ramshelf.core.units import GIB, KIB, MIB
from ramshelf.system import bootfacts
from ramshelf.system.bootfacts import boot_order, service_order, swap_uses, unit_values
from ramshelf.system.devicefacts import devices_below
from ramshelf.system.hostfacts import (
    directories_to,
    known,
    machine_slice,
    modified,
    qemu_account,
    service_slices,
)
from ramshelf.system.processes import parse_process, processes
from ramshelf.system.procfs import SwapArea, mounts, parse_maps

# In the format of proc_pid_stat(5) and proc_pid_status(5).
STAT = (
    "4711 (qemu-system-x86) S 1 4711 4711 0 -1 138412416 24921 0 2 0 152 61 0 0 20 0 5 0 123456 "
    "1207959552 45000 18446744073709551615 1 1 0 0 0 0 268444224 4096 16963 0 0 0 17 1 0 0 0 0 0 0 "
    "0 0 0"
)
STATUS = """\
Name:\tqemu-system-x86
Umask:\t0002
Uid:\t64055\t64055\t64055\t64055
VmLck:\t       0 kB
VmRSS:\t  180000 kB
RssAnon:\t   61440 kB
RssFile:\t   30720 kB
RssShmem:\t   87840 kB
VmPTE:\t     744 kB
VmSwap:\t    1024 kB
Threads:\t5
"""


def test_a_process_by_its_files() -> None:
    process = parse_process(
        4711,
        STAT,
        STATUS,
        "/usr/bin/qemu-system-x86_64\0-uuid\0u\0",
        "0\n",
        boot_time=1000.0,
        ticks=100,
    )
    assert process.name == "qemu-system-x86"
    assert process.qemu
    assert process.argv == ("/usr/bin/qemu-system-x86_64", "-uuid", "u")
    assert process.started == pytest.approx(1000 + 1234.57)  # rounded up to a tick
    assert (process.anonymous, process.swapped, process.page_tables) == (60 * MIB, MIB, 744 * KIB)


def named(name: str, arguments: str = "x\0") -> Process:
    """A process that is called so in both of its files."""
    status = STATUS.replace("qemu-system-x86", name)
    stat = STAT.replace("qemu-system-x86", name)
    return parse_process(4711, stat, status, arguments, "-900", boot_time=0, ticks=100)


@pytest.mark.parametrize("name", ["a) S 1 (b", "with space", ")", "x kB", "x\\n kB", ": 1 kB"])
def test_a_process_may_be_named_anything(name: str) -> None:
    process = named(name)
    assert (process.name, process.oom_score_adj) == (name, -900)


@given(st.text(max_size=15), st.text(max_size=60))
def test_neither_names_nor_arguments_change_what_is_read_of_a_process(
    name: str, arguments: str
) -> None:
    """Line ends too, which the kernel escapes in one of the two files only."""
    process = named(name, arguments)
    assert (process.uid, process.oom_score_adj) == (64055, -900)
    assert (process.anonymous, process.swapped, process.page_tables) == (60 * MIB, MIB, 744 * KIB)
    assert process.started == pytest.approx(1234.57)
    assert process.name.isprintable()


def test_a_name_that_a_terminal_would_obey_is_made_harmless() -> None:
    assert named("\x1b]0;x\x07\udcff\nab").name == "?]0;x???ab"


def test_what_is_no_qemu_has_its_arguments_forgotten() -> None:
    assert named("yes", "yes\0" * 1000).argv == ()


LINE_ENDS = st.sampled_from("\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
FORGED = "7f0-7f1 rw-s 0 00:2d 9999 x"


@given(st.text(max_size=200) | LINE_ENDS.map(lambda end: f"{end}{FORGED}{end}a b c d e f"))
def test_what_a_process_maps_is_read_whatever_the_files_are_called(name: str) -> None:
    escaped = name.replace("\n", "\\012")
    line = f"7f0000000000-7f0000001000 rw-s 00000000 00:2d 1234     /dev/shm/{escaped}"
    assert parse_maps(f"{line}\n{line.replace('1234', '0')}\n") == {(0, 0x2D, 1234)}


def test_a_script_bears_its_own_name() -> None:
    stat = STAT.replace("qemu-system-x86", "python3.11")
    process = parse_process(
        1,
        stat,
        STATUS,
        "/usr/bin/python3.11\0-s\0/usr/bin/nova-compute\0--x\0",
        "0",
        boot_time=0,
        ticks=100,
    )
    assert process.name == "nova-compute"
    assert process.service == ""  # a name proves nothing


def test_this_process_is_among_all() -> None:
    found = processes()
    assert not isinstance(found, Unknown)
    [own] = [process for process in found if process.pid == os.getpid()]
    assert "pytest" in own.name
    assert (own.uid, own.service) == (os.getuid(), "")
    assert own.anonymous > 0


def test_unit_files() -> None:
    text = (
        "[Unit]\nRequiresMountsFor=/a /b\n# RequiresMountsFor=/no\nRequiresMountsFor = /c \\\n "
        " /d\n"
    )
    assert unit_values(text, "RequiresMountsFor") == ("/a", "/b", "/c", "/d")
    assert unit_values(
        f"{text}RequiresMountsFor=\nRequiresMountsFor=/e\n", "RequiresMountsFor"
    ) == ("/e",)


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bootfacts, "_UNIT_PATH", (str(tmp_path / "etc"), str(tmp_path / "lib")))
    for name in ("etc", "lib"):
        (tmp_path / name).mkdir()
    return tmp_path


STORE = "/var/lib/libvirt/qemu/ram"
MOUNT = "var-lib-libvirt-qemu-ram.mount"


def test_fstab_tells_what_mounts_the_store_and_after_what(units: Path) -> None:
    (units / "lib/libvirtd.service").write_text("[Unit]\nRequiresMountsFor=/var/tmp\n")
    drop_in = units / "etc/libvirtd.service.d/ramshelf.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Unit]\nRequiresMountsFor={STORE}\n")
    entries = parse_fstab(f"ramshelf {STORE} tmpfs size=1g,x-systemd.requires=a.swap,nofail 0 0\n")
    order = boot_order(entries, STORE)
    assert order.mounted_by == "/etc/fstab"
    assert order.requires == {"a.swap"}
    assert order.services == {"libvirtd.service": ServiceOrder(waits=True, requires=True)}


@pytest.mark.parametrize(
    ("lines", "waits", "requires"),
    [
        ("RequiresMountsFor=/var/lib", False, False),
        (f"RequiresMountsFor={STORE}/libvirt/qemu", True, True),
        (f"WantsMountsFor={STORE}", True, False),
        (f"Wants=a.service {MOUNT}\nAfter={MOUNT} a.service", True, False),
        (f"Requires={MOUNT}\nAfter={MOUNT}", True, True),
        (f"After={MOUNT}", False, False),
        (f"Wants={MOUNT}", False, False),
    ],
)
def test_whether_a_service_waits_for_the_store_and_needs_it(
    lines: str,
    waits: bool,  # noqa: FBT001 - pytest's
    requires: bool,  # noqa: FBT001 - pytest's
) -> None:
    order = service_order(f"[Unit]\n{lines}\n", STORE)
    assert order == ServiceOrder(waits=waits, requires=requires)


def test_a_mount_unit_mounts_the_store_too(units: Path) -> None:
    unit = units / "etc/var-lib-libvirt-qemu-ram.mount"
    assert boot_order((), STORE).mounted_by == ""
    unit.write_text("[Unit]\nRequires=b.swap\nBindsTo=c.swap\n")
    order = boot_order((), STORE)
    assert (order.mounted_by, order.requires) == (unit.name, frozenset({"b.swap", "c.swap"}))


def test_a_bind_mount_needs_what_the_mount_that_it_shows_needs(
    units: Path,  # noqa: ARG001 - fstab alone
) -> None:
    entries = parse_fstab(
        "/dev/vda / ext4 defaults 0 0\n"
        "ramshelf /data/fast tmpfs size=1g,x-systemd.requires=a.swap 0 0\n"
        f"/data/fast/ram {STORE} none bind,x-systemd.requires=b.service 0 0\n"
    )
    order = boot_order(entries, STORE)
    assert (order.mounted_by, order.requires) == ("/etc/fstab", frozenset({"a.swap", "b.service"}))
    itself = parse_fstab(f"{STORE} {STORE} none bind 0 0\n")
    assert boot_order(itself, STORE).requires == frozenset()


@pytest.mark.parametrize("link", [True, False])
def test_what_is_masked_is_not_there(units: Path, link: bool) -> None:  # noqa: FBT001 - pytest's
    """Whether its file lies further down, or fstab would make it."""
    mount, swap = units / "etc/var-lib-libvirt-qemu-ram.mount", units / "etc/srv-a.swap"
    for path in (mount, swap, units / "etc/libvirtd.service"):
        (units / "lib" / path.name).write_text("[Unit]\nRequiresMountsFor=/var/tmp\n")
        if link:
            path.symlink_to("/dev/null")
        else:
            path.touch()
    for entries in ((), parse_fstab(f"ramshelf {STORE} tmpfs size=1g,nofail 0 0\n")):
        order = boot_order(entries, STORE)
        assert (order.mounted_by, order.services) == ("", {})
    area = SwapArea(path="/srv/a", kind="file", size=GIB, used=0, priority=-2)
    assert not swap_uses((), (area,))[0].at_boot


def test_noauto_mounts_nothing(units: Path) -> None:  # noqa: ARG001 - no unit does either
    assert boot_order(parse_fstab(f"ramshelf {STORE} tmpfs noauto 0 0\n"), STORE).mounted_by == ""


def test_swap_comes_back_by_fstab_or_by_a_unit(units: Path) -> None:
    area = SwapArea(path="/srv/store.swap", kind="file", size=GIB, used=0, priority=-2)
    assert not swap_uses((), (area,))[0].at_boot
    [use] = swap_uses(parse_fstab("/srv/store.swap none swap nofail 0 0\n"), (area,))
    assert (use.at_boot, use.units) == (True, frozenset({"srv-store.swap.swap"}))
    assert not swap_uses(parse_fstab("/srv/store.swap none swap noauto 0 0\n"), (area,))[0].at_boot
    (units / "lib/srv-store.swap.swap").write_text("[Swap]\nWhat=/srv/store.swap\n")
    assert swap_uses((), (area,))[0].at_boot


def cgroup(root: Path, version: int) -> tuple[Mount, ...]:
    fstype, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
    return parse_mountinfo(f"31 23 0:28 / {root} rw,relatime - {fstype} {fstype} {options}\n")


def test_slices_of_cgroup_v2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    for name, swap in (("system.slice", "0"), ("user.slice", "max"), ("machine.slice", str(GIB))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.max").write_text("max\n")
        (tmp_path / name / "memory.swap.max").write_text(f"{swap}\n")
    table = cgroup(tmp_path, 2)
    assert service_slices(table) == (
        Slice(name="system.slice", memory_max=None, swap_max=0),
        Slice(name="user.slice", memory_max=None, swap_max=None),
    )
    assert machine_slice(table) == Slice(name="machine.slice", memory_max=None, swap_max=GIB)


def test_slices_without_cgroup_v2(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine/memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    (tmp_path / "machine/memory.memsw.limit_in_bytes").write_text(f"{3 * GIB}\n")
    table = cgroup(tmp_path, 1)
    assert isinstance(service_slices(table), Unknown)
    assert machine_slice(table) == Slice(name="machine", memory_max=2 * GIB, swap_max=GIB)
    assert machine_slice(()) is None


def test_cgroup_v2_without_the_memory_controller_is_none(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset\n")
    assert isinstance(service_slices(cgroup(tmp_path, 2)), Unknown)


def test_what_cannot_be_had_says_why(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert known(directories_to, missing) == Unknown(f"{missing}: no such file or directory")
    assert known(int, "x") == Unknown("invalid literal for int() with base 10: 'x'")
    assert modified(missing) is None


def test_there_is_no_device_below_a_tmpfs() -> None:
    assert devices_below(0) == ()


def test_the_device_below_the_root() -> None:
    mount = covering(mounts(), "/")
    assert mount is not None
    if mount.device[0]:
        assert devices_below(os.makedev(*mount.device))


def test_a_number_that_is_no_user_here_is_a_container_s() -> None:
    account = qemu_account({"user": "+4000042436", "group": "+42437"})
    assert (account.uid, account.gids) == (4000042436, frozenset({42437}))
    assert qemu_account({"user": "+4000042436"}).gids == {4000042436}
    with pytest.raises(LookupError):
        qemu_account({"user": "nobody-of-this-name"})
    assert qemu_account({"user": "+0"}).user == "root"
