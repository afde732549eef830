"""The doctor on a real libvirtd: a good host, and one thing wrong at a time."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ramshelf.core.domain.numa import parse_tuning
from ramshelf.core.store.boot import escape_path
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note
from ramshelf.system import ledger
from ramshelf.system.filesystem import read_text
from ramshelf.system.numanodes import host_numa
from ramshelf.system.procfs import swaps
from support.cli import RAMSHELF, ramshelf
from support.devices import loop_device, own_swaps
from support.domains import FILE_BACKED, domain_xml, qemu_pid
from support.libvirtd import Libvirtd
from support.placement_service import placement_service
from support.process import run, wait_until

MEMORY = Path("/var/lib/libvirt/qemu/ram")
FSTAB = Path("/etc/fstab")
SYSTEMD = Path("/etc/systemd/system")
SYSCTLS = {"page-cluster": "0", "swappiness": "100", "dirty_ratio": "60"}
SERVICES = ("libvirtd", "virtqemud", "libvirt-guests", "nova-compute")


def doctor(*args: str) -> dict[str, dict[str, Any]]:
    """The findings by code, except those about the machine's own swap.

    Of several with one code it is the last.
    """
    strangers = other_swaps()
    ended = ramshelf("doctor", "--json", *args, ok=(0, 1, 2))
    strangers |= other_swaps()
    document = json.loads(ended.stdout)
    assert document["summary"]["exit_status"] == ended.status
    assert ended.stderr == ""
    return {
        finding["code"]: finding
        for finding in document["findings"]
        if not any(name in finding["message"] for name in strangers)
    }


def other_swaps() -> set[str]:
    """Swap is the kernel's: names of active areas that no test here made."""
    return {os.path.basename(area.path) for area in swaps()} - set(
        map(os.path.basename, own_swaps())
    )


def bad(found: dict[str, dict[str, Any]]) -> set[str]:
    """The codes of warnings and failures that do not come from this machine itself.

    Those come from its KVM, cgroups, disks and labels.
    """
    machine = {
        "host.kvm",
        "store.services-unlimited",
        "store.services-may-swap",
        "store.rotational",
    }
    machine |= {"ram.oom-kills", "store.swap-shared", "host.unconfined"}
    return {
        code
        for code, finding in found.items()
        if finding["severity"] in {"warning", "failure"} and code not in machine
    }


def mount_store(kind: Kind, device: str = "") -> None:
    """A store made by hand, as the tutorial for other tools would have it."""
    qemu = pwd.getpwnam("libvirt-qemu")
    options = [f"x-ramshelf.kind={kind.value}"]
    if kind.tmpfs:
        if device:
            run("mkswap", device)
            run("swapon", device)
            unit = device.strip("/").replace("/", "-") + ".swap"
            options.append(f"x-systemd.requires={unit}")
        run("mount", "-t", "tmpfs", "-o", "size=256M", "store", str(MEMORY))
        entry = f"store {MEMORY} tmpfs size=256M,{','.join(options)} 0 0\n"
    else:
        run("mkfs.ext4", "-q", device)
        run("mount", device, str(MEMORY))
        options.append("x-systemd.requires=attach.service")
        entry = f"{device} {MEMORY} ext4 {','.join(options)} 0 0\n"
    swap = f"{device} none swap defaults 0 0\n" if kind is Kind.SWAP else ""
    FSTAB.write_text(FSTAB.read_text() + swap + entry)
    os.chown(MEMORY, qemu.pw_uid, qemu.pw_gid)
    MEMORY.chmod(0o700)
    unit = escape_path(str(MEMORY), "mount")
    for service in SERVICES:
        drop_in = SYSTEMD / f"{service}.service.d" / "store.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(f"[Unit]\nWants={unit}\nAfter={unit}\n")
    for name, value in SYSCTLS.items():
        Path("/proc/sys/vm", name).write_text(value)


@pytest.fixture
def swap_store(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A swap store of 256 MiB and the hook."""
    with loop_device(260) as device:
        mount_store(Kind.SWAP, device)
        ramshelf("hook", "install")
        yield libvirtd
        libvirtd.reset()
        run("umount", "--lazy", str(MEMORY), ok=(0, 32))


def test_nothing_is_wrong_with_a_good_host_and_its_guest(swap_store: Libvirtd) -> None:
    swap_store.create(domain_xml("good"))
    found = doctor()
    assert bad(found) == {"store.swap-on-loop"}
    assert {"versions.ok", "config.ok", "store.ok", "hook.ok", "guest.ok", "ram.ok"} <= set(found)
    assert found["store.ok"]["facts"]["promised_mib"] == 128
    parts = found["ram.ok"]["facts"]["parts"]
    assert 5 < parts["overhead_mib"] < 500
    assert parts["anonymous_mib"] == 0


@pytest.mark.parametrize(
    "options",
    [
        "--kind swap --size 192MiB --file {file}",
        "--kind swap --size 192MiB --file {file} --directory /srv/guest-memory",
        "--kind disk --size 192MiB --file {file}",
        "--kind disk --fs xfs --size 320MiB --file {file}",
        "--kind ram --size 192MiB",
    ],
)
def test_nothing_is_wrong_with_what_store_create_makes(libvirtd: Libvirtd, options: str) -> None:
    ramshelf("store", "create", *options.format(file=Path(os.environ["TMPDIR"], "area")).split())
    ramshelf("hook", "install")
    libvirtd.restart()
    libvirtd.create(domain_xml("good"))
    found = doctor()
    assert bad(found) == set()
    assert found["store.ok"]["facts"]["promised_mib"] == 128
    libvirtd.reset()
    ramshelf("store", "remove")


def test_units_of_0_1_0_because_of_which_libvirt_needs_the_store(libvirtd: Libvirtd) -> None:
    """The store's options, given again, bring them up to date; guests stay as they are."""
    again = ["store", "create", "--kind", "ram", "--size", "192MiB"]
    ramshelf(*again)
    ramshelf("hook", "install")
    libvirtd.create(domain_xml("stays"))
    units = [SYSTEMD / f"{service}.service.d" / "ramshelf.conf" for service in SERVICES]
    now = [unit.read_text() for unit in units]
    for unit in units:
        unit.write_text(f"[Unit]\nRequiresMountsFor={MEMORY}\n")
    assert "store.libvirt-requires" in bad(doctor())
    ramshelf(*again)
    assert [unit.read_text() for unit in units] == now
    assert bad(doctor()) == set()
    assert qemu_pid("stays") is not None
    libvirtd.reset()
    ramshelf("store", "remove")


def test_a_swap_that_fstab_names_by_its_uuid(
    libvirtd: Libvirtd,  # noqa: ARG001 - an ordinary host
) -> None:
    with loop_device(128) as device:
        ramshelf("store", "create", "--kind", "swap", "--device", device)
        assert bad(doctor()) == {"hook.missing", "store.swap-on-loop"}
        ramshelf("store", "remove")


def test_text_is_grouped_and_plain_in_a_pipe(
    swap_store: Libvirtd,  # noqa: ARG001 - a good host
) -> None:
    ended = ramshelf("doctor", ok=(0, 1))
    assert "\x1b" not in ended.stdout
    assert ended.stdout.index("libvirt's hook\n  ok ") < ended.stdout.index("The RAM budget\n  ok ")


def test_a_store_that_is_not_mounted(swap_store: Libvirtd) -> None:  # noqa: ARG001 - a good host
    run("umount", str(MEMORY))
    assert "store.not-mounted" in bad(doctor())


def test_a_plain_directory_and_no_hook(
    libvirtd: Libvirtd,  # noqa: ARG001 - an ordinary host
) -> None:
    found = doctor()
    assert {"store.root-file-system", "hook.missing"} <= bad(found)
    assert ramshelf("doctor", ok=(2,)).stderr == ""


def test_a_read_only_store_with_a_wrong_owner(
    swap_store: Libvirtd,  # noqa: ARG001 - a good host
) -> None:
    os.chown(MEMORY, 0, 0)
    run("mount", "-o", "remount,ro", str(MEMORY))
    found = bad(doctor())
    assert {"store.read-only", "store.owner"} <= found
    run("mount", "-o", "remount,rw", str(MEMORY))
    MEMORY.chmod(0o755)
    assert "store.readable" in bad(doctor())


def test_qemu_conf_changed_after_libvirtd_started(swap_store: Libvirtd) -> None:
    conf = Path("/etc/libvirt/qemu.conf")
    assert "store.qemu-conf-changed" not in doctor()
    time.sleep(0.05)  # mtime has the clock tick's resolution
    conf.write_text(conf.read_text() + "# changed\n")
    assert "store.qemu-conf-changed" in bad(doctor())
    swap_store.reload()
    assert "store.qemu-conf-changed" in bad(doctor())
    swap_store.restart()
    assert "store.qemu-conf-changed" not in doctor()


def test_a_qemu_conf_that_libvirt_would_refuse(
    swap_store: Libvirtd,  # noqa: ARG001 - a good host
) -> None:
    conf = Path("/etc/libvirt/qemu.conf")
    before = conf.read_text()
    conf.write_text("this is not it\n")
    try:
        assert "store.qemu-conf-unknown" in bad(doctor())
    finally:
        conf.write_text(before)


def test_an_explicit_memory_directory_is_noted(libvirtd: Libvirtd) -> None:
    libvirtd.set_qemu_conf(f'\nmemory_backing_dir = "{MEMORY}"\n')
    found = doctor()
    assert found["store.layout"]["facts"]["path"] == f"{MEMORY}/libvirt/qemu"


def test_a_hook_outdated_or_not_executable(
    swap_store: Libvirtd,  # noqa: ARG001 - a good host
) -> None:
    [script] = Path("/etc/libvirt/hooks/qemu.d").iterdir()
    script.write_text(read_text(script) + "# changed\n")
    assert "hook.outdated" in bad(doctor())
    script.chmod(0o644)
    assert "hook.not-executable" in bad(doctor())


def test_a_hook_that_the_running_libvirtd_does_not_know_of(swap_store: Libvirtd) -> None:
    [script] = Path("/etc/libvirt/hooks/qemu.d").iterdir()
    text = read_text(script)
    script.unlink()
    Path("/run/ramshelf/hook-seen").unlink()  # as 'hook remove' does
    swap_store.reload()
    script.write_text(text)
    script.chmod(0o755)
    assert "hook.unseen" in bad(doctor())
    swap_store.reload()
    assert "hook.ok" in doctor()


def test_errors_that_the_kernel_has_counted(
    libvirtd: Libvirtd,  # noqa: ARG001 - an ordinary host
) -> None:
    with loop_device(64) as device:
        mount_store(Kind.DISK, device)
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("test")
        assert doctor()["store.file-system-errors"]["facts"]["errors"] == 1
        run("umount", str(MEMORY))


def test_a_file_system_that_has_shut_down(
    libvirtd: Libvirtd,  # noqa: ARG001 - an ordinary host
) -> None:
    with loop_device(320) as device:
        run("mkfs.xfs", "-q", device)
        run("mount", device, str(MEMORY))
        FSTAB.write_text(f"{device} {MEMORY} xfs x-ramshelf.kind=disk 0 0\n")
        run("xfs_io", "-x", "-c", "shutdown", str(MEMORY))
        found = doctor()
        assert found["store.error"]["severity"] == "failure"
        assert "store.ok" not in found
        run("umount", str(MEMORY))


def test_libvirtd_that_is_down(swap_store: Libvirtd) -> None:
    swap_store.stop()
    try:
        found = doctor()
    finally:
        swap_store.start()
    assert found["versions.libvirt-unreachable"]["severity"] == "failure"
    assert {"guest.list-unknown", "ram.guests-unknown", "store.stale-unknown"} <= bad(found)
    assert "store.ok" in found


def test_libvirtd_that_hangs(swap_store: Libvirtd) -> None:
    os.kill(swap_store.pid, signal.SIGSTOP)
    try:
        found = doctor()
    finally:
        os.kill(swap_store.pid, signal.SIGCONT)
    assert "did not answer within" in found["versions.libvirt-unreachable"]["message"]
    assert "store.ok" in found


def test_a_placement_that_hangs(
    swap_store: Libvirtd,  # noqa: ARG001 - a good host
    tmp_path: Path,
) -> None:
    """However long [placement] has ramshelf wait: it is not waited for to its end."""
    conf = Path("/etc/ramshelf/ramshelf.conf")
    conf.parent.mkdir(exist_ok=True)
    with placement_service(tmp_path) as service:
        conf.write_text(f"[ramshelf]\nplacement_owner = true\n{service.configuration(timeout=600)}")
        with service.frozen():
            found = doctor()
    conf.unlink()
    assert found["placement.timeout"]["severity"] == "warning"
    assert "store.ok" in found


def test_stale_directories(swap_store: Libvirtd) -> None:
    swap_store.create(domain_xml("alive"))
    stale = MEMORY / "77-dead"
    stale.mkdir()
    (stale / "pc.ram").write_bytes(b"x" * 4096)
    (MEMORY / "lost+found").mkdir()
    assert doctor()["store.stale"]["facts"]["directories"] == [str(stale)]


def test_guests_that_are_not_on_the_store(swap_store: Libvirtd) -> None:
    swap_store.create(domain_xml("private", 64, memory_backing=""))
    swap_store.create(domain_xml("memfd", 64, memory_backing="<source type='memfd'/>"))
    found = doctor()
    assert found["guest.anonymous"]["facts"]["anonymous_mib"] == 64
    parts = found["ram.ok"]["facts"]["parts"]
    assert parts["anonymous_mib"] == 0  # there is swap for it
    assert parts["records_mib"] == 1  # of the pages that may go there


def test_a_guest_with_huge_pages(swap_store: Libvirtd) -> None:
    pages = Path("/proc/sys/vm/nr_hugepages")
    before = pages.read_text()
    pages.write_text("40")
    try:
        Path("/run/hugepages").mkdir()
        run("mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", "/run/hugepages")
        swap_store.set_qemu_conf('\nhugetlbfs_mount = "/run/hugepages"\n')
        swap_store.create(domain_xml("huge", 64, memory_backing="<hugepages/>"))
        found = doctor()
        assert "guest.huge-pages" in bad(found)
        assert found["ram.ok"]["facts"]["parts"]["huge_pages_mib"] >= 64
        assert found["ram.ok"]["facts"]["parts"]["anonymous_mib"] == 0
        swap_store.virsh("destroy", "huge")
    finally:
        pages.write_text(before)


def test_a_guest_that_was_started_without_the_hook(libvirtd: Libvirtd) -> None:
    libvirtd.create(domain_xml("early", memory_backing=FILE_BACKED))
    with loop_device(256) as device:
        mount_store(Kind.DISK, device)
        libvirtd.create(domain_xml("unreserved"))
        found = doctor()
        assert found["guest.elsewhere"]["facts"]["guest"] == "early"
        assert found["guest.not-reserved"]["severity"] == "warning"
        assert found["guest.not-reserved"]["facts"]["guest"] == "unreserved"
        assert (
            "store.punch-flushes" not in found or "ext4" in found["store.punch-flushes"]["message"]
        )
        libvirtd.reset()
        run("umount", str(MEMORY))


def test_a_hot_plugged_dimm_without_the_hook_is_promised(libvirtd: Libvirtd) -> None:
    mount_store(Kind.RAM)
    cpu = "<cpu><numa><cell id='0' cpus='0' memory='131072' unit='KiB'/></numa></cpu>"
    top = "<maxMemory slots='4' unit='MiB'>1024</maxMemory>"
    libvirtd.create(domain_xml("plug", cpu=cpu, top=top))
    dimm = (
        "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
    )
    libvirtd.virsh("attach-device", "plug", "/dev/stdin", "--live", stdin=dimm)
    assert json.loads(ramshelf("capacity", "--json").stdout)["promised_mib"] == 1024
    assert not {"guest.hot-plugged", "guest.not-reserved"} & doctor().keys()


def test_nodes_that_qemu_is_told_are_those_that_are_read_from_the_guest(libvirtd: Libvirtd) -> None:
    mount_store(Kind.RAM)
    cells = (
        "<cell id='0' cpus='0' memory='64' unit='MiB'/>",
        "<cell id='1' memory='64' unit='MiB'/>",
    )
    cell = "<memnode cellid='0' mode='strict' nodeset='0'/>"
    libvirtd.create(
        domain_xml("cells", cpu=f"<cpu><numa>{''.join(cells)}</numa></cpu>", top=_tuned(cell))
    )
    libvirtd.create(domain_xml("whole", top=_tuned("<memory mode='strict' nodeset='0'/>")))
    for name, asked in (("cells", {"ram-node0": [0], "ram-node1": None}), ("whole", {"": [0]})):
        parts = parse_tuning(libvirtd.virsh("dumpxml", name).stdout).parts
        read = {part.name: part.asked and sorted(part.asked) for part in parts}
        assert read == asked
        assert _bound_by_qemu(name) == {key or "pc.ram": nodes for key, nodes in asked.items()}
    one_node = len(host_numa().nodes) < 2
    assert one_node == (not [code for code in doctor() if code.startswith("numa.")])


def _tuned(elements: str) -> str:
    return f"<numatune>{elements}</numatune>"


def _bound_by_qemu(name: str) -> dict[str, list[int] | None]:
    """The host nodes that QEMU was told to bind each of its memory backends to."""
    argv = Path(f"/proc/{qemu_pid(name)}/cmdline").read_text().split("\0")
    backends = [
        json.loads(word) for word in argv if word.startswith('{"qom-type":"memory-backend-file"')
    ]
    return {each["id"]: each.get("host-nodes") for each in backends}


def test_a_sparse_file_below_the_store(
    libvirtd: Libvirtd,  # noqa: ARG001 - an ordinary host
) -> None:
    file = Path(os.environ["TMPDIR"], "sparse")
    with file.open("wb") as opened:
        opened.truncate(256 << 20)
    device = run("losetup", "--find", "--show", str(file)).stdout.strip()
    mount_store(Kind.DISK, device)
    found = bad(doctor())
    assert {"store.thin", "store.buffered-loop"} <= found


def test_more_promised_and_configured_than_the_store_holds(
    swap_store: Libvirtd, tmp_path: Path
) -> None:
    ledger.write_note(
        Note(
            name="large",
            uuid="",
            domain_id=9,
            directory=f"{MEMORY}/9-large",
            promised=300 << 20,
            starter=ledger.starter_of(swap_store.pid),
            since=ledger.clock(),
        )
    )
    conf = tmp_path / "nova.conf"
    conf.write_text("[libvirt]\nfile_backed_memory = 4096\nvirt_type = qemu\n")
    ended = ramshelf("--config-file", str(conf), "doctor", "--json", ok=(2,))
    found = {finding["code"] for finding in json.loads(ended.stdout)["findings"]}
    assert {
        "store.overpromised",
        "config.exceeds-store",
        "config.allocation-ratio",
        "config.reserved",
    } <= found


def test_a_broken_configuration_is_a_finding_among_others(
    swap_store: Libvirtd,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    conf = tmp_path / "ramshelf.conf"
    conf.write_text("[ramshelf]\nstrict = perhaps\n")
    ended = ramshelf("--config-file", str(conf), "doctor", "--json", ok=(2,))
    found = {finding["code"]: finding for finding in json.loads(ended.stdout)["findings"]}
    refused = ramshelf("--config-file", str(conf), "capacity", "--json", ok=(255,))
    error = json.loads(refused.stderr)["error"]
    assert error["code"] == "config.value"
    assert found["config.value"]["message"] == error["message"]
    assert all(word in error["message"] for word in ("ramshelf.conf", "strict"))
    assert "store.ok" in found


def test_an_ordinary_user_is_told_what_could_not_be_found_out(swap_store: Libvirtd) -> None:
    swap_store.create(domain_xml("seen"))
    conf = Path("/etc/libvirt/libvirtd.conf")
    before = conf.read_text()
    conf.write_text(f'{before}\nauth_unix_ro = "none"\n')  # polkit, which else decides, needs D-Bus
    swap_store.restart()
    conf.write_text(before)
    ended = subprocess.run(
        [
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            RAMSHELF,
            "doctor",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""
    found = {finding["code"]: finding for finding in json.loads(ended.stdout)["findings"]}
    assert {
        "versions.ok",
        "store.qemu-conf-unknown",
        "store.usage-unknown",
        "guest.files-unknown",
    } <= set(found)
    assert "store.ok" not in found
    assert "guest.ok" not in found


def test_nova_conf_changed_after_nova_compute_started(swap_store: Libvirtd) -> None:  # noqa: ARG001
    nova = Path("/etc/nova")
    nova.mkdir()
    conf = nova / "nova.conf"
    conf.write_text("[DEFAULT]\nram_allocation_ratio = 1.0\n[libvirt]\nfile_backed_memory = 256\n")
    script = Path(os.environ["TMPDIR"], "nova-compute")
    script.write_text("import time\ntime.sleep(600)\n")
    process = subprocess.Popen([sys.executable, str(script)])
    try:
        wait_until(
            lambda: "nova-compute" in read_text(f"/proc/{process.pid}/cmdline"), "nova-compute runs"
        )
        assert "config.nova-changed" not in doctor()
        time.sleep(0.05)  # mtime has the clock tick's resolution
        conf.write_text(conf.read_text() + "# changed\n")
        assert doctor()["config.nova-changed"]["facts"]["path"] == str(conf)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(nova)


def test_output_to_a_closed_pipe(libvirtd: Libvirtd) -> None:  # noqa: ARG001 - an ordinary host
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [RAMSHELF, "doctor"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
