"""The hook under real libvirt: guests that virsh starts are reserved or refused."""

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.store.directory import PROMISE_FILE
from ramshelf.core.units import MIB
from ramshelf.system import ledger
from support.domains import FILE_BACKED, domain_xml, wait_console
from support.libvirtd import Libvirtd
from support.onstore import assert_reserved, wait_recorded
from support.process import run
from support.stores import MEMORY, store

LOG = Path("/run/ramshelf/hook.log")
FILE_SYSTEMS = ("tmpfs", "ext4", "xfs")


def events() -> list[dict[str, object]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def assert_right(*names: str) -> None:
    """The hook has found what QEMU opened of each guest, and all of it was right.

    libvirt did not wait for that.
    """
    for name in names:
        wait_recorded(name, "started")
    assert "wrong" not in {event["event"] for event in events()}


def directory(libvirtd: Libvirtd, name: str, *, below: Path = MEMORY) -> Path:
    return below / f"{libvirtd.virsh('domid', name).stdout.strip()}-{name[:20]}"


def contents() -> set[str]:
    """What lies on the store, but for what ext4 puts there itself."""
    return {path.name for path in MEMORY.iterdir()} - {"lost+found"}


def figures(path: Path) -> dict[str, tuple[int, bool]]:
    """Of each file its MiB, and whether it is fully allocated."""
    stats = {file.name: file.stat() for file in path.iterdir()}
    return {name: (s.st_size // MIB, s.st_blocks * 512 >= s.st_size) for name, s in stats.items()}


def mapping(file: Path) -> set[str]:
    """The names of the processes that have a file mapped."""
    return {
        (maps.parent / "comm").read_text().strip()
        for maps in Path("/proc").glob("[0-9]*/maps")
        if str(file) in maps.read_text()
    }


def refused(libvirtd: Libvirtd, xml: str) -> str:
    """What virsh says when it cannot start the guest; nothing of it is left."""
    said = libvirtd.create(xml, ok=(1,)).stderr
    assert contents() == set()
    return said


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_guest_is_reserved_before_it_runs(hooked: Libvirtd, file_system: str) -> None:
    with store(file_system):
        hooked.create(domain_xml("guest"))
        path = directory(hooked, "guest")
        assert figures(path) == {"pc.ram": (128, file_system != "tmpfs")}
        reserved, parent = (path / "pc.ram").stat(), path.stat()
        assert (reserved.st_uid, reserved.st_gid) == (parent.st_uid, parent.st_gid) != (0, 0)
        wait_console("guest", "GUEST-UP")
        assert_right("guest")
        hooked.virsh("destroy", "guest")
        assert contents() == set()


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_guest_that_does_not_fit_is_refused(hooked: Libvirtd, file_system: str) -> None:
    with store(file_system):
        said = refused(hooked, domain_xml("large", 600))
        assert "Guest large needs 600 MiB" in said
        assert "[capacity.exceeded]" in said
        hooked.create(domain_xml("first", 256))
        said = hooked.create(
            domain_xml("second", 256, memory_backing=FILE_BACKED), ok=(0, 1)
        ).stderr
        fits = file_system == "tmpfs"
        assert ("[capacity.exceeded]" in said) is not fits
        hooked.virsh("destroy", "first")


def test_what_does_not_lie_on_the_store_passes(hooked: Libvirtd) -> None:
    backings = ("", "<source type='memfd'/><access mode='shared'/>", "<source type='anonymous'/>")
    with store(size_mib=64):
        for number, backing in enumerate(backings):
            hooked.create(domain_xml(f"guest{number}", memory_backing=backing))
        assert not any(path.is_file() for path in MEMORY.rglob("*"))


def test_an_access_mode_alone_makes_a_file(hooked: Libvirtd) -> None:
    """Whatever has an access mode is backed by a file in libvirt, an anonymous source included."""
    sources = {"none": "", "anonymous": "<source type='anonymous'/>"}
    with store():
        for name, source in sources.items():
            hooked.create(domain_xml(name, memory_backing=f"{source}<access mode='shared'/>"))
            assert figures(directory(hooked, name)) == {"pc.ram": (128, False)}
        assert_right(*sources)


def test_a_store_that_is_not_mounted(hooked: Libvirtd) -> None:
    with store():
        run("umount", str(MEMORY))
        assert "[store.not-mounted]" in refused(hooked, domain_xml("guest"))
    assert "[store.root-file-system]" in refused(hooked, domain_xml("guest"))


def test_something_else_in_the_place_of_the_store(hooked: Libvirtd) -> None:
    with store("ext4"):
        run("mount", "-t", "tmpfs", "-o", "mode=777", "other", str(MEMORY))
        assert "[store.not-mounted]" in refused(hooked, domain_xml("guest"))
        run("umount", str(MEMORY))


def test_a_read_only_store(hooked: Libvirtd) -> None:
    """Here libvirt itself cannot make the guest's directory; the hook checks one that exists."""
    with store("ext4"):
        run("mount", "-o", "remount,ro", str(MEMORY))
        hooked.create(domain_xml("guest"), ok=(1,))


def test_huge_pages_are_refused(hooked: Libvirtd) -> None:
    """If there is a hugetlbfs, libvirt itself starts such a guest.

    Its memory is then not on the store.
    """
    Path("/run/hugepages").mkdir()
    run("mount", "-t", "hugetlbfs", "hugetlbfs", "/run/hugepages")
    hooked.restart()
    pages = "<hugepages><page size='2048' unit='KiB'/></hugepages>"
    with store():
        assert "[guest.huge-pages]" in refused(
            hooked, domain_xml("huge", memory_backing=f"{pages}<source type='file'/>")
        )
        said = hooked.create(domain_xml("only", 8, memory_backing=pages), ok=(0, 1)).stderr
        assert "ramshelf" not in said  # whether it starts is up to the host's huge pages


def test_numa_cells_and_memory_devices(hooked: Libvirtd) -> None:
    """Every file is made at full size, and what may be plugged in until maxMemory is promised."""
    cells = "".join(
        f"<cell id='{n}' {cpu} memory='65536' unit='KiB'/>"
        for n, cpu in enumerate(("cpus='0'", ""))
    )
    dimm = (
        "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
    )
    xml = domain_xml(
        "numa",
        256,
        cpu=f"<cpu><numa>{cells}</numa></cpu>",
        top="<maxMemory slots='4' unit='MiB'>512</maxMemory>",
        devices=dimm,
    )
    with store("ext4", 700):
        hooked.create(xml)
        path = directory(hooked, "numa")
        assert figures(path) == {
            "ram-node0": (64, True),
            "ram-node1": (64, True),
            "dimm0": (128, True),
            PROMISE_FILE: (512, False),
        }
        assert "[capacity.exceeded]" in hooked.create(domain_xml("other", 256), ok=(1,)).stderr
        hooked.virsh("attach-device", "numa", "/dev/stdin", stdin=dimm)
        assert figures(path)["dimm1"][0] == 128
        assert "promised 512 MiB" in hooked.create(domain_xml("other", 256), ok=(1,)).stderr
        assert_right("numa")
        hooked.virsh("destroy", "numa")
        assert contents() == set()


def test_virtio_mem(hooked: Libvirtd) -> None:
    device = (
        "<memory model='virtio-mem'><target><size unit='MiB'>128</size><node>0</node>"
        "<block unit='MiB'>2</block><requested unit='MiB'>64</requested></target></memory>"
    )
    xml = domain_xml(
        "vmem",
        256,
        cpu="<cpu><numa><cell id='0' cpus='0' memory='131072' unit='KiB'/></numa></cpu>",
        top="<maxMemory slots='1' unit='MiB'>256</maxMemory>",
        devices=device,
    )
    with store("xfs", 400):
        hooked.create(xml)
        # What is not plugged in yet QEMU gives back as it starts; it stays promised.
        assert figures(directory(hooked, "vmem")) == {
            "ram-node0": (128, True),
            "virtiomem0": (128, False),
        }
        note = ledger.read_note("vmem")
        assert note is not None
        assert note.promised == 256 * MIB


def test_a_share_by_virtiofs(hooked: Libvirtd, tmp_path: Path) -> None:
    """Another process, virtiofsd, has the guest's memory file mapped for as long as it runs."""
    if not (programs := [*Path("/usr").glob("lib*/**/virtiofsd")]):
        pytest.skip("no virtiofsd is installed")
    share = (
        "<filesystem type='mount' accessmode='passthrough'><driver type='virtiofs'/>"
        f"<binary path='{programs[0]}'/><source dir='{tmp_path}'/><target dir='share'/>"
        "</filesystem>"
    )
    with store("ext4"):
        hooked.create(domain_xml("shares", devices=share))
        assert_reserved("shares", 128)
        assert_right("shares")
        wait_console("shares", "GUEST-UP")
        [file] = MEMORY.glob("*-shares/pc.ram")
        assert {"qemu-system-x86", "virtiofsd"} <= mapping(file)
        hooked.virsh("destroy", "shares")
        assert contents() == set()


@pytest.mark.parametrize("machine", ["q35", "isapc"])
def test_machine_types(hooked: Libvirtd, machine: str) -> None:
    with store():
        hooked.create(domain_xml("guest", machine=machine))
        assert figures(directory(hooked, "guest")) == {"pc.ram": (128, False)}
        assert_right("guest")


def test_memory_backing_dir_set(hooked: Libvirtd) -> None:
    """Set to libvirt's own default, guests' directories lie two levels deeper."""
    with store():
        hooked.set_qemu_conf(f'\nmemory_backing_dir = "{MEMORY}"\n')
        hooked.create(domain_xml("guest"))
        path = directory(hooked, "guest", below=MEMORY / "libvirt/qemu")
        assert figures(path) == {"pc.ram": (128, False)}
        hooked.virsh("destroy", "guest")


def test_qemu_conf_edited_while_libvirtd_runs(hooked: Libvirtd) -> None:
    """The directory is where the daemon's configuration says, not the file's; both are counted."""
    with store(size_mib=300):
        conf = Path("/etc/libvirt/qemu.conf")
        shipped = conf.read_text()
        hooked.create(domain_xml("early"))
        conf.write_text(f'{shipped}\nmemory_backing_dir = "{MEMORY}"\n')
        hooked.create(domain_xml("late"))
        assert figures(directory(hooked, "late")) == {"pc.ram": (128, False)}
        assert "[capacity.exceeded]" in hooked.create(domain_xml("third"), ok=(1,)).stderr
        conf.write_text("this = is not\n")
        assert "[capacity.exceeded]" in hooked.create(domain_xml("third"), ok=(1,)).stderr
        conf.write_text(shipped)


def test_names_of_more_than_twenty_characters(hooked: Libvirtd) -> None:
    name = "Gäste-im-großen-Schrank-öffnen"
    with store():
        hooked.create(domain_xml(name))
        [path] = MEMORY.iterdir()
        assert figures(path) == {"pc.ram": (128, False)}
        assert_right(name)


def test_configured_capacity_counts_at_once(hooked: Libvirtd) -> None:
    conf = Path("/etc/nova/nova.conf")
    conf.parent.mkdir(exist_ok=True)
    with store():
        conf.write_text("[libvirt]\nfile_backed_memory = 100\n")
        assert "capacity 100 MiB" in refused(hooked, domain_xml("guest"))
        conf.write_text("[libvirt]\nfile_backed_memory = 128\n")
        hooked.create(domain_xml("guest"))
        hooked.virsh("destroy", "guest")
        conf.write_text("[libvirt]\nfile_backed_memory = much\n")
        hooked.create(domain_xml("guest"))
        assert "configuration" in {event["event"] for event in events()}


def test_switched_off_guards_a_store_that_is_there(hooked: Libvirtd) -> None:
    conf = Path("/etc/nova/nova.conf")
    conf.parent.mkdir(exist_ok=True)
    conf.write_text("[libvirt]\nfile_backed_memory = 0\n")
    hooked.create(domain_xml("guest"))
    assert figures(directory(hooked, "guest")) == {"pc.ram": (128, False)}
    hooked.virsh("destroy", "guest")
    assert {event["event"] for event in events()} <= {"ended"}
    with store():
        assert "[capacity.exceeded]" in refused(hooked, domain_xml("guest", 600))
        hooked.create(domain_xml("guest"))
        wait_recorded("guest", "started")
        assert [event["event"] for event in events()][-3:] == ["refused", "reserved", "started"]


@pytest.mark.parametrize("file_system", ["tmpfs", "xfs"])
def test_save_and_restore(hooked: Libvirtd, tmp_path: Path, file_system: str) -> None:
    """A restored guest is reserved like one that starts, and refused like one."""
    tmp_path.chmod(0o755)
    saved = str(tmp_path / "saved")
    with store(file_system, 420):
        hooked.define(domain_xml("guest"))
        hooked.virsh("start", "guest")
        wait_console("guest", "GUEST-UP")
        hooked.virsh("managedsave", "guest")
        hooked.create(domain_xml("other", 300))
        assert "[capacity.exceeded]" in hooked.virsh("start", "guest", ok=(1,)).stderr
        hooked.virsh("destroy", "other")
        hooked.virsh("start", "guest")
        assert (
            figures(directory(hooked, "guest"))["pc.ram"] == (128, True) or file_system == "tmpfs"
        )
        hooked.virsh("save", "guest", saved)
        hooked.virsh("restore", saved)
        assert figures(directory(hooked, "guest"))["pc.ram"][0] == 128
        assert [event["event"] for event in events()].count("reserved") == 4
        hooked.virsh("destroy", "guest")


@pytest.mark.parametrize("leftover", ["pc.ram", "deep/er", "ram-node0"])
def test_what_a_crash_left_is_removed(hooked: Libvirtd, leftover: str) -> None:
    """Else libvirt would use the directory as it is, and QEMU the bytes of another guest."""
    with store("ext4"):
        hooked.create(domain_xml("guest", 64))
        number = int(hooked.virsh("domid", "guest").stdout)
        hooked.virsh("destroy", "guest")
        path = MEMORY / f"{number + 1}-guest"
        (path / leftover).parent.mkdir(parents=True)
        (path / leftover).write_bytes(b"of an earlier guest" * 1000)
        owner = MEMORY.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
        hooked.create(domain_xml("guest", 64))
        assert directory(hooked, "guest") == path
        assert figures(path) == {"pc.ram": (64, True)}
        assert b"of an earlier guest" not in (path / "pc.ram").read_bytes()
        assert "emptied" in {event["event"] for event in events()}


def test_whoever_holds_a_leftover_open_holds_up_nobody(hooked: Libvirtd) -> None:
    """By the notes of the guests that run the leftover is nobody's, so its name goes.

    Whoever has it open keeps what it has.
    """
    with store("ext4"):
        hooked.create(domain_xml("guest", 64))
        number = int(hooked.virsh("domid", "guest").stdout)
        hooked.virsh("destroy", "guest")
        path = MEMORY / f"{number + 1}-guest"
        path.mkdir()
        owner = MEMORY.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
        with (path / "pc.ram").open("wb") as held:
            hooked.create(domain_xml("guest", 64))
            assert figures(path) == {"pc.ram": (64, True)}
            assert (path / "pc.ram").stat().st_ino != os.fstat(held.fileno()).st_ino


def test_a_store_that_is_fuller_than_its_figures(hooked: Libvirtd) -> None:
    """A file system that cannot allocate what it has free refuses.

    What was made of the guest is removed.
    """
    with store("ext4", 300):
        Path(MEMORY, "foreign").write_bytes(b"x" * 50 * MIB)
        said = hooked.create(domain_xml("guest", 256), ok=(1,)).stderr
        assert "[capacity.exceeded]" in said
        assert contents() == {"foreign"}


def test_a_file_system_that_cannot_reserve(hooked: Libvirtd) -> None:
    with store("ext4", 300, options="-O ^extent,^64bit"):
        said = hooked.create(domain_xml("guest"), ok=(1,)).stderr
        assert "[store.no-fallocate]" in said
        assert contents() == set()


def test_memory_ids_are_those_that_libvirt_asked_qemu_for(libvirtd: Libvirtd) -> None:
    del libvirtd
    asked = 0
    for path in Path("/var/cache/libvirt/qemu/capabilities").glob("*.xml"):
        capabilities = ET.parse(path).getroot()  # noqa: S314 - libvirt's own file
        arch = capabilities.findtext("arch", "")
        for machine in capabilities.iter("machine"):
            xml = domain_xml("guest", machine=machine.get("name", "")).replace("x86_64", arch)
            [file] = parse_guest(xml).files
            assert file.name in {machine.get("defaultRAMid"), None}, machine.attrib
            asked += file.name is not None
    assert asked > 20


def test_the_log_is_bounded(hooked: Libvirtd) -> None:
    LOG.write_text(f"{json.dumps({'event': 'old'})}\n" * 80_000)
    with store():
        refused(hooked, domain_xml("guest", 600))
        hooked.create(domain_xml("guest"))
        wait_recorded("guest", "started")
    assert [event["event"] for event in events()][:2] == ["reserved", "started"]
    assert Path(f"{LOG}.1").read_text().endswith("}\n")


MIB_128 = "<memory unit='KiB'>131072</memory>"


@pytest.mark.parametrize(
    ("xml", "refused"),
    [
        ("", True),
        ("no XML", True),
        ("<domain/>", False),
        ("<domain id='1'><memory unit='furlong'>1</memory></domain>", False),
        (
            (
                f"<domain id='1'>{MIB_128}<memoryBacking><source "
                "type='file'/></memoryBacking><oops></domain>"
            ),
            True,
        ),
        (f"<domain id='1'>{MIB_128}<devices><hostdev></devices></domain>", True),
    ],
)
def test_what_cannot_be_decided_is_refused_where_it_concerns_the_store(
    hooked: Libvirtd, xml: str, *, refused: bool
) -> None:
    del hooked
    script = "/etc/libvirt/hooks/qemu.d/ramshelf"
    ended = run(script, "guest", "start", "begin", "-", stdin=xml, ok=(int(refused),))
    assert ("[xml.malformed]" in ended.stderr) is refused
    [event] = events()
    assert (event["event"], event["vetoed"]) == ("undecided", refused)
