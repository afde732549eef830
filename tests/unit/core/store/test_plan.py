"""The store's plans, for hosts that cannot be had here, and what must hold for all."""

import pytest

from ramshelf.core.errors import RamshelfError, UsageError
from ramshelf.core.files.fstab import parse_fstab
from ramshelf.core.files.mounts import Mount
from ramshelf.core.files.qemuconf import MemoryDirectory, memory_directory
from ramshelf.core.host import Device, Unknown
from ramshelf.core.plan import (
    Action,
    AllocateFile,
    EditFile,
    MakeDirectory,
    Run,
    SetValue,
    WriteFile,
    describe,
)
from ramshelf.core.record import replace
from ramshelf.core.store.boot import LOOP_UNIT_PATH, SYSCTL_PATH, drop_in_path
from ramshelf.core.store.facts import (
    AreaFile,
    BlockDevice,
    Directory,
    Seen,
    Signature,
    Spec,
    checked,
)
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.layout import FSTAB, QEMU_CONF, find_claim, lay_out
from ramshelf.core.store.plan import backup_path, plan_create, plan_remove
from ramshelf.core.store.refusals import warnings
from ramshelf.core.units import GIB, MIB

DEFAULT = memory_directory({})
PLACE = DEFAULT.path
QEMU = (64055, 64055)
NVME = BlockDevice(
    path="/dev/nvme1n1",
    number=(259, 1),
    size=64 * GIB + 12345,
    below=(Device(name="nvme1n1", rotational=False),),
)
ON_DEVICE = Spec(kind=Kind.SWAP, device="/dev/nvme1n1")
ON_FILE = Spec(kind=Kind.DISK, size=8 * GIB, file="/srv/area", file_system="ext4")


def host(area: BlockDevice | AreaFile | None = NVME, **others: object) -> Seen:
    """A host with libvirt and nothing else."""
    facts: dict[str, object] = {
        "machine_id": "0123456789abcdef0123456789abcdef",
        "memory": 16 * GIB,
        "host_reserved": GIB,
        "directory": DEFAULT,
        "owner": QEMU,
        "files": {FSTAB: "# fstab\nUUID=1 / ext4 defaults 0 1\n", QEMU_CONF: '#user = "root"\n'},
        "directories": {
            "/var/lib/libvirt/qemu": Directory(uid=0, gid=0, mode=0o751),
            PLACE: Directory(uid=0, gid=0, mode=0o755),
        },
        "sysctls": {"vm.page-cluster": 3, "vm.swappiness": 60, "vm.dirty_ratio": 20},
        "area": area,
    }
    return Seen(**{**facts, **others})  # type: ignore[arg-type]


def codes(spec: Spec, seen: Seen) -> list[str]:
    """The refusals."""
    with pytest.raises(RamshelfError) as raised:
        plan_create(checked(spec), seen)
    also = raised.value.facts.get("also", [])
    assert isinstance(also, list)
    return [raised.value.code, *(other["code"] for other in also)]


def commands(actions: tuple[Action, ...]) -> list[str]:
    """The programs of a plan, with their arguments."""
    return [line for action in actions if isinstance(action, Run) for line in action.lines()]


def written(actions: tuple[Action, ...], path: str) -> str:
    [text] = [
        action.text
        for action in actions
        if isinstance(action, WriteFile | EditFile) and action.path == path
    ]
    return text


def claimed(spec: Spec, seen: Seen) -> Seen:
    """The host after the first step: fstab has the entries."""
    fstab = written(plan_create(checked(spec), seen), FSTAB)
    return replace(seen, files={**seen.files, FSTAB: fstab, backup_path(FSTAB): seen.files[FSTAB]})


def test_swap_on_a_device() -> None:
    actions = plan_create(ON_DEVICE, host())
    area, store = [entry for entry in parse_fstab(written(actions, FSTAB)) if entry.own]
    uuid = area.spec.removeprefix("UUID=")
    assert area.option("x-ramshelf.area") == f"{64 * 1024}M"
    assert (store.fstype, store.mount_point) == ("tmpfs", PLACE)
    assert store.option("size") == f"{64 * GIB // 1024 - 4}k"
    assert (store.option("uid"), store.option("gid"), store.option("mode")) == (
        "64055",
        "64055",
        "0700",
    )
    escaped = uuid.replace("-", r"\x2d")
    assert store.option("x-systemd.requires") == rf"dev-disk-by\x2duuid-{escaped}.swap"
    assert commands(actions) == [
        "cp --archive /etc/fstab /etc/fstab.ramshelf-backup",
        f"mkswap --quiet --uuid {uuid} /dev/nvme1n1 {64 * GIB // 1024}",
        "swapon --priority 100 /dev/nvme1n1",
        f"mount {PLACE}",
    ]
    assert [action.lines()[0] for action in actions if isinstance(action, SetValue)] == [
        "echo 0 >/proc/sys/vm/page-cluster",
        "echo 100 >/proc/sys/vm/swappiness",
    ]


def test_the_same_wish_is_the_same_plan() -> None:
    assert plan_create(ON_DEVICE, host()) == plan_create(ON_DEVICE, host())
    elsewhere = plan_create(ON_DEVICE, host(machine_id="ffff"))
    assert written(elsewhere, FSTAB) != written(plan_create(ON_DEVICE, host()), FSTAB)


def test_systemd_is_told_once_and_before_the_mount() -> None:
    lines = commands(plan_create(ON_DEVICE, host(systemd=True)))
    assert lines.count("systemctl daemon-reload") == 1
    assert lines.index("systemctl daemon-reload") < lines.index(f"mount {PLACE}")
    assert max(
        index
        for index, action in enumerate(plan_create(ON_DEVICE, host(systemd=True)))
        if isinstance(action, WriteFile | EditFile)
    ) < [action.lines()[0] for action in plan_create(ON_DEVICE, host(systemd=True))].index(
        "systemctl daemon-reload"
    )


def test_selinux_labels_the_root() -> None:
    label = "system_u:object_r:svirt_runtime_t:s0"
    text = written(plan_create(ON_DEVICE, host(root_context=label)), FSTAB)
    assert f"rootcontext={label}" in text
    assert "rootcontext" not in written(plan_create(ON_DEVICE, host()), FSTAB)


def test_disk_on_a_device_discards_and_on_a_loop_device_does_not() -> None:
    wish = checked(Spec(kind=Kind.DISK, device=NVME.path))
    loop = replace(NVME, path="/dev/loop3")
    [make] = [line for line in commands(plan_create(wish, host())) if line.startswith("mkfs")]
    assert "nodiscard" not in make
    [make] = [line for line in commands(plan_create(wish, host(loop))) if line.startswith("mkfs")]
    assert "nodiscard" in make
    wish = replace(wish, file_system="xfs")
    [make] = [line for line in commands(plan_create(wish, host(loop))) if line.startswith("mkfs")]
    assert "-K" in make.split()


def test_disk_on_a_file() -> None:
    place = AreaFile(path="/srv/area", exists=False, file_system="xfs", free=20 * GIB)
    actions = plan_create(ON_FILE, host(place))
    kinds = [type(action) for action in actions]
    assert kinds.index(AllocateFile) < kinds.index(MakeDirectory)
    unit = written(actions, LOOP_UNIT_PATH)
    attach = next(line for line in commands(actions) if "losetup" in line)
    assert "fallocate --length 8589934592 /srv/area && device=$$(losetup" in unit
    assert attach.startswith("sh -c ")
    [store] = [entry for entry in parse_fstab(written(actions, FSTAB)) if entry.own]
    assert store.option("x-systemd.requires") == "ramshelf-store.service"
    assert store.option("x-ramshelf.file") == "/srv/area"
    root = [action for action in actions if isinstance(action, MakeDirectory)][-1]
    assert (root.path, root.uid, root.gid, root.mode) == (PLACE, *QEMU, 0o700)


def test_dax_on_persistent_memory() -> None:
    pmem = replace(NVME, path="/dev/pmem0", dax=True)
    wish = checked(Spec(kind=Kind.DAX, device="/dev/pmem0", file_system="xfs"))
    actions = plan_create(wish, host(pmem))
    [store] = [entry for entry in parse_fstab(written(actions, FSTAB)) if entry.own]
    assert "dax" in store.options
    assert any("reflink=0" in line for line in commands(actions))
    assert f"mount --types xfs --options noatime,dax /dev/pmem0 {PLACE}" in commands(actions)
    assert not [action for action in actions if isinstance(action, SetValue)]
    assert codes(wish, host()) == ["store.no-dax"]


def test_a_file_with_our_file_system_is_filled_up_and_never_made_again() -> None:
    place = AreaFile(path="/srv/area", exists=False, file_system="ext4", free=20 * GIB)
    seen = claimed(ON_FILE, host(place))
    claim = find_claim(seen.files[FSTAB])
    assert claim is not None
    holes = replace(
        place,
        exists=True,
        size=8 * GIB,
        allocated=7 * GIB,
        signatures=(Signature(type="ext4", uuid=claim.uuid),),
    )
    lines = [
        line
        for action in plan_create(ON_FILE, replace(seen, area=holes))
        for line in action.lines()
    ]
    assert "fallocate --length 8589934592 /srv/area" in lines
    assert not [line for line in lines if line.startswith(("mkfs", "wipefs"))]


def test_interrupted_mkfs_xfs_is_made_again() -> None:
    wish = checked(Spec(kind=Kind.DISK, device=NVME.path, file_system="xfs"))
    claim = find_claim(claimed(wish, host()).files[FSTAB])
    assert claim is not None
    half = replace(NVME, signatures=(Signature(type="xfs", uuid=claim.uuid, complete=False),))
    lines = commands(plan_create(wish, replace(claimed(wish, host()), area=half)))
    assert lines[0] == "wipefs --all /dev/nvme1n1"
    assert lines[1].startswith("mkfs.xfs ")


def test_another_directory_is_set_in_qemu_conf() -> None:
    wish = replace(ON_DEVICE, directory="/srv/ram")
    seen = host()
    seen = replace(
        seen, directories={**seen.directories, "/srv": Directory(uid=0, gid=0, mode=0o755)}
    )
    actions = plan_create(wish, seen)
    assert written(actions, QEMU_CONF).endswith('memory_backing_dir = "/srv/ram"  # ramshelf\n')
    made = [action.path for action in actions if isinstance(action, MakeDirectory)]
    assert made == ["/srv/ram", "/srv/ram/libvirt", "/srv/ram/libvirt/qemu"]
    assert "x-mount.mkdir" in written(actions, FSTAB)
    assert written(actions, drop_in_path("libvirtd.service")).endswith(
        "[Unit]\nWants=srv-ram.mount\nAfter=srv-ram.mount\n"
    )
    assert written(actions, drop_in_path("nova-compute.service")).endswith(
        "[Unit]\nRequiresMountsFor=/srv/ram\n"
    )


def test_a_qemu_conf_that_cannot_be_edited_is_refused() -> None:
    seen = host()
    seen = replace(
        seen,
        files={**seen.files, QEMU_CONF: 'user = "a"; memory_backing_dir = "/b"\n'},
        directories={**seen.directories, "/srv": Directory(uid=0, gid=0, mode=0o755)},
    )
    assert codes(replace(ON_DEVICE, directory="/srv/ram"), seen) == ["store.qemu-conf"]


def test_dirty_bytes_of_the_operator_stay() -> None:
    for current in (0, 60, 80):
        actions = plan_create(ON_FILE, host(_place(), sysctls={"vm.dirty_ratio": current}))
        assert SYSCTL_PATH not in [
            action.path for action in actions if isinstance(action, WriteFile | EditFile)
        ]
    assert "Before: 20" in written(plan_create(ON_FILE, host(_place())), SYSCTL_PATH)


def _place() -> AreaFile:
    return AreaFile(path="/srv/area", exists=False, file_system="xfs", free=20 * GIB)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"users": ("is part of dm-0",)}, "store.device-in-use"),
        ({"signatures": (Signature(type="LVM2_member", uuid="x"),)}, "store.device-not-empty"),
        ({"read_only": True}, "store.device-read-only"),
        ({"size": 10 * MIB}, "store.too-small"),
        ({"below": (Device(name="dm-3", rotational=False, thin="a thin volume"),)}, "store.thin"),
        (
            {"below": (Device(name="dm-3", rotational=False, thin=Unknown("no dmsetup")),)},
            "store.thin",
        ),
        ({"below": (Device(name="zram0", rotational=False, in_ram=True),)}, "store.thin"),
    ],
)
def test_devices_that_are_refused(change: dict[str, object], code: str) -> None:
    device = replace(NVME, **change)  # type: ignore[arg-type]
    assert codes(ON_DEVICE, host(device)) == [code]


def test_wipe_lets_data_go_but_not_use() -> None:
    device = replace(NVME, signatures=(Signature(type="ext4", uuid="x"),))
    wish = replace(ON_DEVICE, wipe=ON_DEVICE.device)
    assert "wipefs --all /dev/nvme1n1" in commands(plan_create(wish, host(device)))
    used = replace(device, users=("is mounted at /mnt",))
    assert codes(wish, host(used)) == ["store.device-in-use"]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"root": False}, "store.needs-root"),
        ({"owner": None}, "store.no-qemu-user"),
        ({"missing_tools": frozenset({"mkswap", "mkfs.xfs"})}, "store.tool-missing"),
        ({"directories": {}}, "store.parent-missing"),
        ({"guests": ("web1",)}, "store.guests-running"),
        ({"links": ("/srv/x",)}, "store.symbolic-link"),
        (
            {
                "directory": memory_directory({"memory_backing_dir": "/srv/a b"}),
                "directories": {"/srv": Directory(uid=0, gid=0, mode=0o755)},
            },
            "store.path",
        ),
        ({"area": None, "area_problem": "does not exist"}, "store.not-a-block-device"),
    ],
)
def test_hosts_that_are_refused(facts: dict[str, object], code: str) -> None:
    assert codes(ON_DEVICE, host(**facts)) == [code]  # type: ignore[arg-type]


def test_other_parameters_are_refused() -> None:
    seen = claimed(ON_DEVICE, host())
    assert codes(replace(ON_DEVICE, size=32 * GIB), seen) == ["store.exists"]
    assert codes(replace(ON_DEVICE, tmpfs_size=80 * GIB), seen) == ["store.exists"]
    assert codes(Spec(kind=Kind.DISK, device=NVME.path), seen) == ["store.exists"]
    assert codes(Spec(kind=Kind.RAM, size=GIB), replace(seen, area=None)) == ["store.exists"]


def test_a_device_renamed_at_boot_is_the_same_store() -> None:
    seen = claimed(ON_DEVICE, host())
    claim = find_claim(seen.files[FSTAB])
    assert claim is not None
    moved = replace(
        NVME, path="/dev/nvme0n1", signatures=(Signature(type="swap", uuid=claim.uuid),)
    )
    wish = replace(ON_DEVICE, device="/dev/nvme0n1")
    assert "swapon --priority 100 /dev/nvme0n1" in commands(
        plan_create(wish, replace(seen, area=moved))
    )


def test_warnings() -> None:
    disk = replace(NVME, below=(Device(name="sda", rotational=True),))
    remote = replace(NVME, below=(Device(name="nbd0", rotational=True, network="nbd"),))
    for area, word in ((disk, "rotating"), (remote, "over the network"), (NVME, "")):
        seen = host(area)
        said = warnings(ON_DEVICE, seen, lay_out(ON_DEVICE, seen, None))
        assert [word in sentence for sentence in said] == ([True] if word else [])


@pytest.mark.parametrize(("mode", "changes"), [(0o700, 0), (0o711, 0), (0o755, 1)])
def test_a_store_that_is_there_is_left_with_the_mode_that_libvirtd_gave_it(
    mode: int, changes: int
) -> None:
    wish = checked(Spec(kind=Kind.DISK, device=NVME.path, file_system="xfs"))
    seen = claimed(wish, host())
    there = {**seen.directories, PLACE: Directory(uid=QEMU[0], gid=QEMU[1], mode=mode)}
    mounted = replace(seen, directories=there, mounts=(replace(_mount("xfs"), device=NVME.number),))
    actions = plan_create(wish, mounted)
    assert len([action for action in actions if isinstance(action, MakeDirectory)]) == changes


def test_remove_of_nothing_is_nothing() -> None:
    assert plan_remove(host(None)) == ()


def test_remove_leaves_what_is_not_ours() -> None:
    seen = claimed(ON_DEVICE, host())
    claim = find_claim(seen.files[FSTAB])
    assert claim is not None
    foreign = replace(
        NVME, signatures=(Signature(type="swap", uuid=claim.uuid), Signature(type="gpt"))
    )
    assert "wipefs --all /dev/nvme1n1" not in commands(plan_remove(replace(seen, area=foreign)))
    ours = replace(NVME, signatures=foreign.signatures[:1])
    assert "wipefs --all /dev/nvme1n1" in commands(plan_remove(replace(seen, area=ours)))


def test_remove_refuses_what_lies_over_the_store() -> None:
    seen = replace(claimed(ON_DEVICE, host()), mounts=(_mount("ext4"),))
    with pytest.raises(RamshelfError, match="mounted over the store"):
        plan_remove(seen)
    disk = checked(Spec(kind=Kind.DISK, device=NVME.path))
    seen = replace(claimed(disk, host()), mounts=(_mount("ext4"),))
    with pytest.raises(RamshelfError, match="mounted over the store"):
        plan_remove(seen)
    with pytest.raises(RamshelfError, match="Guests run on the store: web1"):
        plan_remove(replace(seen, guests=("web1",)))


def _mount(fstype: str) -> Mount:
    return Mount(
        mount_id=1,
        parent_id=0,
        device=(8, 1),
        root="/",
        mount_point=PLACE,
        options=("rw",),
        fstype=fstype,
        source="other",
        super_options=("rw",),
    )


def test_a_sysctl_that_somebody_changed_since_stays() -> None:
    seen = claimed(ON_DEVICE, host())
    text = written(plan_create(ON_DEVICE, host()), SYSCTL_PATH)
    seen = replace(
        seen,
        files={**seen.files, SYSCTL_PATH: text},
        sysctls={"vm.page-cluster": 0, "vm.swappiness": 10},
    )
    values = [action.lines()[0] for action in plan_remove(seen) if isinstance(action, SetValue)]
    assert values == ["echo 3 >/proc/sys/vm/page-cluster"]


@pytest.mark.parametrize("fstab", ["", "# no end", "UUID=1 / ext4 defaults 0 1\n\n", "a b c\r\n"])
def test_fstab_comes_back_byte_for_byte(fstab: str) -> None:
    seen = host()
    seen = claimed(ON_DEVICE, replace(seen, files={**seen.files, FSTAB: fstab}))
    assert written(plan_remove(seen), FSTAB) == fstab


def test_fstab_that_was_not_there_is_removed_again() -> None:
    seen = replace(host(), files={})
    text = written(plan_create(ON_DEVICE, seen), FSTAB)
    lines = [
        line
        for action in plan_remove(replace(seen, files={FSTAB: text}))
        for line in action.lines()
    ]
    assert lines[lines.index("--- /etc/fstab") + 1] == "+++ /dev/null"


def test_removal_that_was_cut_off_before_the_reload_goes_on() -> None:
    seen = host(None, systemd=True)
    seen = replace(seen, files={**seen.files, backup_path(FSTAB): seen.files[FSTAB]})
    assert [action.lines()[0] for action in plan_remove(seen)] == [
        "systemctl daemon-reload",
        "rm --force /etc/fstab.ramshelf-backup",
    ]


def test_plan_for_json() -> None:
    documents = describe(plan_create(ON_DEVICE, host()))
    assert documents[0] == {
        "why": "Keep a copy of /etc/fstab as it is now",
        "change": ["cp --archive /etc/fstab /etc/fstab.ramshelf-backup"],
    }
    assert all(document["why"] and document["change"] for document in documents)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "/",
        "/a//b",
        "/a/../b",
        "/a/./b",
        "/a b",
        "/a\nb",
        "/a,b",
        "/ä",
        "/a/",
        "/a\\b",
    ],
)
def test_paths_that_would_need_quoting(path: str) -> None:
    with pytest.raises(UsageError):
        checked(Spec(kind=Kind.SWAP, size=GIB, file=path))


def test_sizes_are_whole_mib() -> None:
    wish = checked(Spec(kind=Kind.SWAP, size=GIB + 5000, file="/srv/a", tmpfs_size=2 * GIB + 1))
    assert (wish.size, wish.tmpfs_size) == (GIB, 2 * GIB)


def test_explicit_default_directory() -> None:
    explicit = MemoryDirectory(configured=PLACE, path=f"{PLACE}/libvirt/qemu", explicit=True)
    actions = plan_create(ON_DEVICE, host(directory=explicit))
    made = [action.path for action in actions if isinstance(action, MakeDirectory)]
    assert made == [f"{PLACE}/libvirt", f"{PLACE}/libvirt/qemu"]
    assert QEMU_CONF not in [
        action.path for action in actions if isinstance(action, WriteFile | EditFile)
    ]
