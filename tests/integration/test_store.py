"""``ramshelf store`` on real devices and files: made, made again, killed half-way, removed.

Nothing of a removed store is left.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from ramshelf.core.config import Config
from ramshelf.core.errors import RamshelfError
from ramshelf.core.record import replace
from ramshelf.core.store.boot import LOOP_UNIT_PATH, SYSCTL_PATH, drop_in_path, escape_path
from ramshelf.core.store.facts import Spec
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB
from ramshelf.node.store import manage
from ramshelf.system.procfs import mounts, swaps
from support.cli import RAMSHELF, ramshelf
from support.devices import forget_devices, loop_device, loops, own_swaps, scratch
from support.domains import domain_xml, wait_console
from support.interrupted import in_child, one_step_at_a_time
from support.libvirtd import Libvirtd
from support.process import HANG, run, wait_until
from support.stores import boot

MEMORY = "/var/lib/libvirt/qemu/ram"
FSTAB = Path("/etc/fstab")
DIRECTORY = scratch() / "guest-memory"
SYSCTLS = ("swappiness", "page-cluster", "dirty_ratio")
SIZE = 96 * MIB
XFS_SIZE = 320 * MIB

CASES = {
    "swap-device": Spec(kind=Kind.SWAP, device="DEVICE"),
    "swap-file": Spec(kind=Kind.SWAP, size=SIZE, file="FILE"),
    "swap-directory": Spec(kind=Kind.SWAP, size=SIZE, file="FILE", directory="DIRECTORY"),
    "ext4-device": Spec(kind=Kind.DISK, device="DEVICE"),
    "ext4-file": Spec(kind=Kind.DISK, size=SIZE, file="FILE"),
    "xfs-device": Spec(kind=Kind.DISK, device="DEVICE", file_system="xfs"),
    "xfs-file-directory": Spec(
        kind=Kind.DISK, size=XFS_SIZE, file="FILE", file_system="xfs", directory="DIRECTORY"
    ),
    "ram": Spec(kind=Kind.RAM, size=SIZE),
}
KILLED = ("swap-device", "swap-directory", "ext4-device", "xfs-file-directory")


@pytest.fixture
def spec(request: pytest.FixtureRequest, host: None) -> Iterator[Spec]:  # noqa: ARG001 - resets
    """A case's wish, on a device or a path of its own."""
    os.makedirs(MEMORY, exist_ok=True)
    with concrete(CASES[request.param]) as wish:
        yield wish


@contextmanager
def concrete(wish: Spec) -> Iterator[Spec]:
    """On a device or a file of its own; what a failed test left is removed."""
    size = XFS_SIZE if wish.file_system == "xfs" else SIZE
    with loop_device(size // MIB) if wish.device else nullcontext() as device:
        try:
            yield replace(
                wish,
                device=device,
                file=wish.file and str(scratch() / "area"),
                directory=wish.directory and str(DIRECTORY),
            )
        finally:
            ramshelf("store", "remove", ok=(0, 1))
            (scratch() / "area").unlink(missing_ok=True)


def arguments(wish: Spec) -> list[str]:
    """The command line of a wish."""
    options = {
        "--kind": wish.kind.value,
        "--size": wish.size and f"{wish.size // MIB}MiB",
        "--device": wish.device,
        "--file": wish.file,
        "--fs": wish.file_system,
        "--wipe": wish.wipe,
        "--directory": wish.directory,
    }
    return [
        "store",
        "create",
        *(word for name, value in options.items() if value for word in (name, str(value))),
    ]


def host_state() -> dict[str, object]:
    """All that a store may change on a host."""
    etc = {}
    for path in sorted(Path("/etc").rglob("*")):
        status = path.lstat()
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        etc[str(path)] = (status.st_mode, status.st_uid, status.st_gid, text)
    return {
        "etc": etc,
        "mounts": [(mount.mount_point, mount.fstype, mount.source) for mount in mounts()],
        "swaps": sorted(own_swaps()),
        "loops": loops(),
        "sysctls": {name: Path("/proc/sys/vm", name).read_text().strip() for name in SYSCTLS},
        "scratch": sorted(os.listdir(scratch())),
        "memory": sorted(os.listdir(MEMORY)),
    }


def make(wish: Spec) -> None:
    ramshelf(*arguments(wish))


def changes(output: str) -> list[list[str]]:
    return [action["change"] for action in json.loads(output)["actions"]]


def mount_point(wish: Spec) -> str:
    return wish.directory or MEMORY


def assert_made(wish: Spec) -> None:
    """The store is there as wished, by what the kernel and the tools say."""
    place = mount_point(wish)
    [mount] = [mount for mount in mounts() if mount.mount_point == place]
    assert mount.fstype == ("tmpfs" if wish.kind.tmpfs else wish.file_system or "ext4")
    assert "noatime" in mount.options
    owner = Path("/var/lib/libvirt/qemu").stat()
    inner = (f"{place}/libvirt", f"{place}/libvirt/qemu") if wish.directory else ()
    for path in (place, *inner):
        status = os.stat(path)
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (
            owner.st_uid,
            owner.st_gid,
            0o700,
        )
    figures = os.statvfs(place)
    size = figures.f_blocks * figures.f_frsize
    if wish.kind is Kind.SWAP:
        area = next(area for area in swaps() if area.path == (wish.device or wish.file))
        assert area.size == size
        assert area.priority == 100
    if wish.file:
        status = os.stat(wish.file)
        assert status.st_mode & 0o7777 == 0o600
        assert status.st_size == wish.size
        assert status.st_blocks * 512 >= status.st_size
        assert (wish.file in loops().values()) == (wish.kind is Kind.DISK)
    if wish.file and wish.kind is Kind.DISK:
        [device] = [device for device, back in loops().items() if back == wish.file]
        queue = Path("/sys/block", os.path.basename(device))
        assert (queue / "loop/dio").read_text().strip() == "1"
        assert (queue / "queue/discard_max_bytes").read_text().strip() == "0"
    if wish.directory:
        assert f'\nmemory_backing_dir = "{place}"' in Path("/etc/libvirt/qemu.conf").read_text()


@pytest.mark.parametrize("spec", CASES, indirect=True)
def test_made_shown_and_removed(spec: Spec) -> None:
    before = host_state()
    dry = ramshelf(*arguments(spec), "--dry-run", "--json").stdout
    assert host_state() == before
    done = ramshelf(*arguments(spec), "--json").stdout
    assert changes(done) == changes(dry)
    assert_made(spec)
    shown = json.loads(ramshelf("store", "show", "--json").stdout)
    assert (shown["kind"], shown["mounted"], shown["mount_point"]) == (
        spec.kind.value,
        True,
        mount_point(spec),
    )
    assert (shown["in_fstab"], shown["made_by_ramshelf"], shown["problem"]) == (True, True, None)
    assert shown["file"] == spec.file
    assert shown["device"] == (spec.device or (shown["device"] if spec.kind is Kind.DISK else None))
    assert 0.85 * SIZE / MIB < shown["capacity_mib"] <= shown["size_mib"]

    made = host_state()
    again = json.loads(ramshelf(*arguments(spec), "--json").stdout)
    assert (again["changed"], again["actions"]) == (False, [])
    assert again["capacity_mib"] == json.loads(done)["capacity_mib"] == shown["capacity_mib"]
    assert json.loads(dry)["capacity_mib"] is None
    assert host_state() == made
    assert "store.exists" in ramshelf(*arguments(replace(spec, size=90 * MIB)), ok=(1,)).stderr
    assert host_state() == made

    dry = ramshelf("store", "remove", "--dry-run", "--json").stdout
    assert host_state() == made
    assert changes(ramshelf("store", "remove", "--json").stdout) == changes(dry)
    assert host_state() == before
    assert json.loads(ramshelf("store", "remove", "--json").stdout)["changed"] is False
    make(spec)  # the signature is gone, so the device is free again
    ramshelf("store", "remove")
    assert host_state() == before


@pytest.mark.parametrize("spec", CASES, indirect=True)
def test_what_boots_the_store_is_valid(spec: Spec, tmp_path: Path) -> None:
    make(spec)
    forget_devices()
    verified = run("findmnt", "--verify")
    assert "Success" in verified.stdout or " 0 errors" in verified.stderr, verified
    units = [str(path) for path in (Path(LOOP_UNIT_PATH),) if path.exists()]
    verified = run(
        "systemd-analyze", "verify", *units, "libvirtd.service", "libvirt-guests.service"
    )
    assert "ramshelf" not in verified.stdout + verified.stderr
    directories = [tmp_path / name for name in ("normal", "early", "late")]
    for directory in directories:
        directory.mkdir()
    run("/usr/lib/systemd/system-generators/systemd-fstab-generator", *map(str, directories))
    unit = (directories[0] / escape_path(mount_point(spec), "mount")).read_text()
    if spec.kind is Kind.SWAP and spec.file:
        assert (
            f"Requires={run('systemd-escape', '-p', '--suffix=swap', spec.file).stdout.strip()}\n"
            in unit
        )
    elif spec.kind is Kind.SWAP:
        uuid = re.findall(r"^UUID=(\S+)", FSTAB.read_text(), re.MULTILINE)[0]
        name = run(
            "systemd-escape", "-p", "--suffix=swap", f"/dev/disk/by-uuid/{uuid}"
        ).stdout.strip()
        assert f"Requires={name}\n" in unit
    elif spec.file:
        assert "Requires=ramshelf-store.service\n" in unit
        assert "After=ramshelf-store.service\n" in unit
    wants = directories[0] / "local-fs.target.requires"
    assert not (wants / escape_path(mount_point(spec), "mount")).exists(), (
        "nofail: the boot goes on without it"
    )
    ramshelf("store", "remove")


@pytest.mark.parametrize(
    "spec", ["swap-device", "swap-file", "ext4-file", "xfs-device", "ram"], indirect=True
)
def test_it_comes_back_after_a_boot(spec: Spec) -> None:
    for setting in SYSCTLS:  # as on a host that nobody has tuned yet
        Path("/proc/sys/vm", setting).write_text("42\n")
    make(spec)
    run("umount", mount_point(spec))
    for area in swaps():
        if area.path in {spec.device, spec.file}:
            run("swapoff", area.path)
    for device, file in loops().items():
        if file == spec.file:
            run("losetup", "--detach", device)
    for setting in SYSCTLS:
        Path("/proc/sys/vm", setting).write_text("42\n")
    shown = json.loads(ramshelf("store", "show", "--json").stdout)
    assert (shown["mounted"], shown["problem"]["code"]) == (False, "store.not-mounted")

    boot()
    assert_made(spec)
    assert json.loads(ramshelf(*arguments(spec), "--json").stdout)["changed"] is False
    ramshelf("store", "remove")


def creating(spec: Spec) -> Callable[[Callable[[int], None]], object]:
    return lambda after_step: manage.create(spec, Config(), after_step=after_step)


def removing(after_step: Callable[[int], None]) -> object:
    return manage.remove(after_step=after_step)


@pytest.mark.parametrize("spec", KILLED, indirect=True)
def test_killed_after_each_step_the_next_run_goes_on(spec: Spec) -> None:
    before = host_state()
    make(spec)
    made = host_state()
    ramshelf("store", "remove")

    one_step_at_a_time(creating(spec))
    assert comparable(host_state()) == comparable(made)
    assert_made(spec)
    one_step_at_a_time(removing)
    assert host_state() == before


@pytest.mark.parametrize("spec", KILLED, indirect=True)
def test_an_interrupted_run_can_be_turned_round(spec: Spec) -> None:
    before = host_state()
    last = 0
    while not in_child(creating(spec), last):  # create, killed after each step, is undone by remove
        in_child(removing, -1)
        assert host_state() == before, f"after step {last} of create"
        last += 1
    last = 0
    while not in_child(removing, last):  # remove, killed after each step, is undone by create
        in_child(creating(spec), -1)
        assert_made(spec)
        last += 1
    assert host_state() == before


def comparable(state: dict[str, object]) -> dict[str, object]:
    """Without the names of loop devices, which the kernel chooses."""
    return {**state, "mounts": None, "loops": None}


@pytest.mark.parametrize("spec", ["ext4-file"], indirect=True)
def test_a_loop_device_that_somebody_holds_open(spec: Spec) -> None:
    """When udev or blkid has a device open, as they please, it is detached only after them."""
    before = host_state()
    make(spec)
    [device] = [device for device, file in loops().items() if file == spec.file]
    with open(device, "rb"):
        assert not in_child(removing, 2)  # unmounted, wiped and detached, and there is still
        assert (
            Path("/sys/block", os.path.basename(device), "loop/autoclear").read_text().strip()
            == "1"
        )
        make(spec)
    assert_made(spec)
    with open(device, "rb"):
        ramshelf("store", "remove")
        make(spec)
    assert_made(spec)
    ramshelf("store", "remove")
    assert host_state() == before


def test_interrupted_by_the_operator(host: None) -> None:  # noqa: ARG001
    os.makedirs(MEMORY, exist_ok=True)
    before = host_state()
    with concrete(CASES["swap-file"]) as wish:

        def interrupt(number: int) -> None:
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(RamshelfError) as raised:
            manage.create(wish, Config(), after_step=interrupt)
        assert raised.value.code == "store.interrupted"
        make(wish)
        assert_made(wish)
        ramshelf("store", "remove")
    assert host_state() == before


def test_others_edits_survive_and_the_back_up_stays(host: None) -> None:  # noqa: ARG001
    conf = Path("/etc/libvirt/qemu.conf")
    os.chmod(conf, 0o600)
    shipped = conf.read_text()
    conf.write_text('memory_backing_dir = "/var/lib/libvirt/qemu/ram"\n' + shipped)
    original = (FSTAB.read_text(), conf.read_text())
    with concrete(CASES["swap-directory"]) as wish:
        make(wish)
        assert f'memory_backing_dir = "{DIRECTORY}"' in conf.read_text()
        assert conf.stat().st_mode & 0o7777 == 0o600
        FSTAB.write_text("# first\n" + FSTAB.read_text() + "tmpfs /mnt tmpfs noauto 0 0\n")
        ramshelf("store", "remove")
    assert FSTAB.read_text() == "# first\n" + original[0] + "tmpfs /mnt tmpfs noauto 0 0\n"
    assert conf.read_text() == original[1]
    assert Path("/etc/fstab.ramshelf-backup").read_text() == original[0]
    assert not Path("/etc/libvirt/qemu.conf.ramshelf-backup").exists()
    assert json.loads(ramshelf("store", "remove", "--json").stdout)["changed"] is False
    Path("/etc/fstab.ramshelf-backup").unlink()
    conf.write_text(shipped)


LINE = "tmpfs /mnt tmpfs noauto 0 0\n"


@contextmanager
def held(tmp_path: Path, tool: str, wish: list[str]) -> Iterator[None]:
    """``ramshelf WISH`` has come as far as running ``tool``, which waits until the body is done."""
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    place = Path(shutil.which(tool) or "")
    real = tmp_path / tool
    shutil.copy2(place, real)
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(
        f'#!/bin/sh\ntouch {started}\nuntil [ -e {go_on} ]; do sleep 0.05; done\nexec {real} "$@"\n'
    )
    stand_in.chmod(0o755)
    run("mount", "--bind", str(stand_in), str(place))
    try:
        with subprocess.Popen(
            [RAMSHELF, *wish], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                wait_until(started.exists, f"{tool} is run")
                yield
            finally:
                go_on.touch()
            _, said = process.communicate(timeout=HANG)
        assert process.returncode == 0, said
    finally:
        run("umount", str(place))


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def save_anew(path: Path, text: str) -> None:
    """As editors do: another file takes its place."""
    new = path.with_name(f"{path.name}~")
    shutil.copy2(path, new)
    append(new, text)
    new.rename(path)


@pytest.mark.parametrize("save", [append, save_anew])
def test_a_line_that_is_added_while_remove_waits_in_swapoff_survives(
    host: None,  # noqa: ARG001
    tmp_path: Path,
    save: Callable[[Path, str], None],
) -> None:
    """So do those of create's other tools, and of all the files that others edit too."""
    conf = Path("/etc/libvirt/qemu.conf")
    shipped = {path: path.read_text() for path in (FSTAB, conf)}
    with concrete(CASES["swap-directory"]) as wish:
        with held(tmp_path, "mkswap", arguments(wish)):  # fstab has ramshelf's lines already
            save(FSTAB, LINE)
            save(conf, "# theirs\n")
        assert_made(wish)
        assert LINE in FSTAB.read_text()
        assert "# theirs\n" in conf.read_text()
        (tmp_path / "go-on").unlink()
        (tmp_path / "started").unlink()
        with held(tmp_path, "swapoff", ["store", "remove"]):
            save(FSTAB, "# more\n")
            save(conf, "# more\n")
    assert FSTAB.read_text() == f"{shipped[FSTAB]}{LINE}# more\n"
    assert conf.read_text() == f"{shipped[conf]}# theirs\n# more\n"
    assert json.loads(ramshelf("store", "remove", "--json").stdout)["changed"] is False
    for path, text in shipped.items():
        path.write_text(text)
        path.with_name(f"{path.name}.ramshelf-backup").unlink()


@pytest.mark.parametrize("verb", ["create", "remove"])
def test_what_others_have_written_in_the_place_of_ramshelfs_own_files_stays(
    host: None,  # noqa: ARG001
    verb: str,
) -> None:
    """A unit, a file of sysctl.d or a kernel setting changes between the plan and its step."""
    unit, sysctl = Path(drop_in_path("libvirtd.service")), Path(SYSCTL_PATH)
    swappiness = Path("/proc/sys/vm/swappiness")
    for path in (unit, sysctl, swappiness):
        with concrete(CASES["swap-file"]) as wish:
            if verb == "remove":
                make(wish)
            found = swappiness.read_text().strip()

            def meddle(_planned: object, path: Path = path) -> None:
                path.parent.mkdir(exist_ok=True)
                path.write_text("77\n")

            do = partial(manage.create, wish, Config()) if verb == "create" else manage.remove
            with pytest.raises(RamshelfError) as raised:
                do(announce=meddle)
            assert (raised.value.code, raised.value.facts["path"]) == ("file.changed", str(path))
            assert path.read_text() == "77\n"
            if path is swappiness:
                path.write_text(found)
            else:
                path.unlink()


def test_two_that_make_and_remove_it_at_once(host: None) -> None:  # noqa: ARG001
    """Each waits for the other, and none does half of it."""
    before = host_state()
    with concrete(CASES["swap-file"]) as wish:
        commands = [arguments(wish), arguments(wish), ["store", "remove"], ["store", "remove"]]
        processes = [
            subprocess.Popen([RAMSHELF, *words], stdout=subprocess.DEVNULL) for words in commands
        ]
        assert [process.wait(timeout=HANG) for process in processes] == [0, 0, 0, 0]
        ramshelf("store", "remove")
    assert host_state() == before


def test_swap_file_on_btrfs_is_not_copied_on_write(host: None) -> None:  # noqa: ARG001
    os.makedirs(MEMORY, exist_ok=True)
    with loop_device(512) as device:
        run("mkfs.btrfs", "--quiet", device)
        place = scratch() / "btrfs"
        place.mkdir()
        run("mount", device, str(place))
        try:
            wish = Spec(kind=Kind.SWAP, size=SIZE, file=str(place / "area"))
            make(wish)
            assert_made(wish)
            ramshelf("store", "remove")
            refused = ramshelf(*arguments(replace(wish, kind=Kind.DISK)), ok=(1,))
            assert "[store.file-system]" in refused.stderr
        finally:
            run("umount", str(place))
            place.rmdir()


def test_guests_hold_the_store(libvirtd: Libvirtd) -> None:
    with concrete(CASES["swap-file"]) as small:
        wish = replace(small, size=256 * MIB)
        make(wish)
        libvirtd.create(domain_xml("held", dirty_mib=32))
        wait_console("held", "DIRTIED")
        before = host_state()
        refused = ramshelf("store", "remove", ok=(1,))
        assert "[store.guests-running]" in refused.stderr
        assert "held" in refused.stderr
        assert host_state() == before
        libvirtd.virsh("destroy", "held")
        ramshelf("store", "remove")


def test_guests_in_the_way(libvirtd: Libvirtd) -> None:
    """A guest whose memory lies in a plain directory would lose it from sight below the store."""
    libvirtd.create(domain_xml("early"))
    with concrete(CASES["swap-file"]) as wish:
        refused = ramshelf(*arguments(wish), ok=(1,))
        assert "early" in refused.stderr
        elsewhere = ramshelf(*arguments(replace(wish, directory=str(DIRECTORY))), ok=(1,))
        assert "[store.guests-running]" in elsewhere.stderr
    libvirtd.virsh("destroy", "early")


@pytest.mark.parametrize("spec", ["swap-directory", "xfs-file-directory"], indirect=True)
def test_guest_runs_from_another_directory(spec: Spec, libvirtd: Libvirtd) -> None:
    wish = replace(spec, size=XFS_SIZE)
    make(wish)
    libvirtd.restart()
    libvirtd.create(domain_xml("moved", dirty_mib=32))
    wait_console("moved", "DIRTIED")
    [directory] = os.listdir(f"{wish.directory}/libvirt/qemu")
    assert directory.endswith("-moved")
    libvirtd.virsh("destroy", "moved")
    ramshelf("store", "remove")
    libvirtd.restart()
    libvirtd.create(domain_xml("back"))
    libvirtd.virsh("destroy", "back")
    assert not DIRECTORY.exists()
