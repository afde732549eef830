"""The store is recognised by the mount table, held against fstab."""

import pytest

from ramshelf.core.files.fstab import parse_fstab
from ramshelf.core.files.mounts import Mount, parse_mountinfo
from ramshelf.core.store.find import NoStore, Store, find_store
from ramshelf.core.store.kind import Kind

DIRECTORY = "/var/lib/libvirt/qemu/ram"
ROOT = "20 1 254:0 / / rw - ext4 /dev/vda rw\n"


def mounts(
    fstype: str = "xfs", options: str = "rw", device: str = "7:3", at: str = DIRECTORY
) -> tuple[Mount, ...]:
    return parse_mountinfo(
        f"{ROOT}30 20 {device} / {at} {options} - {fstype} /dev/loop3 {options}\n"
    )


def find(
    table: tuple[Mount, ...],
    fstab: str = "",
    devices: dict[str, tuple[int, int]] | None = None,
    *,
    swap: bool = False,
) -> Store | NoStore:
    return find_store(table, parse_fstab(fstab), DIRECTORY, devices=devices or {}, swap_active=swap)


@pytest.mark.parametrize(
    ("fstype", "options", "swap", "kind"),
    [
        ("xfs", "rw", False, Kind.DISK),
        ("ext4", "rw,dax=always", False, Kind.DAX),
        ("tmpfs", "rw", False, Kind.RAM),
        ("tmpfs", "rw", True, Kind.SWAP),
        ("tmpfs", "rw,size=600m,noswap", True, Kind.RAM),
        ("tmpfs", "rw,noswap", False, Kind.RAM),
    ],
)
def test_a_mount_that_nobody_announced_is_known_by_its_file_system(
    fstype: str,
    options: str,
    swap: bool,  # noqa: FBT001 - a column of the table
    kind: Kind,
) -> None:
    store = find(mounts(fstype, options), swap=swap)
    assert isinstance(store, Store)
    assert (store.kind, store.marked, store.beyond_swap) == (kind, False, True)


def test_the_mark_in_fstab_decides_what_a_tmpfs_is() -> None:
    entry = f"ramshelf {DIRECTORY} tmpfs size=1g,x-ramshelf.kind=ram 0 0"
    store = find(mounts("tmpfs"), entry, swap=True)
    assert isinstance(store, Store)
    assert (store.kind, store.marked, store.beyond_swap) == (Kind.RAM, True, False)


@pytest.mark.parametrize(("kind", "found"), [("ram", Kind.RAM), ("swap", None)])
def test_a_tmpfs_that_cannot_swap_is_no_swap_store_whatever_fstab_says(
    kind: str, found: Kind | None
) -> None:
    entry = f"ramshelf {DIRECTORY} tmpfs size=1g,x-ramshelf.kind={kind} 0 0"
    store = find(mounts("tmpfs", "rw,noswap"), entry, swap=True)
    assert (store.kind if isinstance(store, Store) else None) is found
    if isinstance(store, NoStore):
        assert (store.code, "noswap" in store.sentence, store.expected is None) == (
            "store.not-mounted",
            True,
            False,
        )


def test_the_mark_says_whether_it_may_be_larger_than_its_swap() -> None:
    entry = f"ramshelf {DIRECTORY} tmpfs size=1g,x-ramshelf.kind=swap,x-ramshelf.beyond-swap 0 0"
    store = find(mounts("tmpfs"), entry, swap=True)
    assert isinstance(store, Store)
    assert store.beyond_swap


@pytest.mark.parametrize(
    ("table", "fstab", "devices", "code"),
    [
        (parse_mountinfo(ROOT), "", {}, "store.root-file-system"),
        (mounts(at="/var"), "", {}, "store.root-file-system"),
        (mounts("btrfs"), "", {}, "store.unsupported"),
        (
            parse_mountinfo(ROOT),
            f"UUID=a {DIRECTORY} xfs x-ramshelf.kind=disk 0 0",
            {},
            "store.not-mounted",
        ),
        (
            mounts("ext4"),
            f"UUID=a {DIRECTORY} xfs x-ramshelf.kind=disk 0 0",
            {},
            "store.not-mounted",
        ),
        (mounts(), f"UUID=a {DIRECTORY} xfs defaults 0 0", {"UUID=a": (7, 4)}, "store.not-mounted"),
        (
            mounts(at="/var/lib/libvirt/qemu"),
            f"UUID=a {DIRECTORY} xfs defaults 0 0",
            {},
            "store.not-mounted",
        ),
    ],
)
def test_what_is_no_store_is_said(
    table: tuple[Mount, ...], fstab: str, devices: dict[str, tuple[int, int]], code: str
) -> None:
    found = find(table, fstab, devices)
    assert isinstance(found, NoStore)
    assert found.code == code


@pytest.mark.parametrize("devices", [{}, {"UUID=a": (7, 3)}, {"UUID=b": (7, 4)}])
def test_the_device_that_fstab_names_is_the_one_mounted_as_far_as_is_known(
    devices: dict[str, tuple[int, int]],
) -> None:
    assert isinstance(find(mounts(), f"UUID=a {DIRECTORY} xfs defaults 0 0", devices), Store)


FAST = "/data/fast"
BIND = f"{FAST}/ram {DIRECTORY} none bind 0 0\n"
SHOWN = f"{ROOT}28 20 7:3 / {FAST} rw - xfs /dev/loop3 rw\n"


def bound(line: str, *, before: str = SHOWN) -> tuple[Mount, ...]:
    return parse_mountinfo(f"{before}30 20 {line}")


@pytest.mark.parametrize(
    "entry",
    [
        BIND,
        f"{FAST}/ram/ {DIRECTORY}/ none defaults,rbind 0 0",
        f"{FAST}//ram /var/lib/libvirt/qemu//ram xfs rw,bind,nofail 0 0",
    ],
)
def test_a_bind_mount_of_fstabs_is_a_store_where_it_shows_what_fstab_names(entry: str) -> None:
    store = find(bound(f"7:3 /ram {DIRECTORY} rw - xfs /dev/loop3 rw\n"), entry)
    assert isinstance(store, Store)
    assert (store.kind, store.mount_point, store.marked) == (Kind.DISK, DIRECTORY, False)


@pytest.mark.parametrize(
    "line",
    [
        # This one was made before the other was mounted.
        f"254:0 {FAST}/ram {DIRECTORY} rw - ext4 /dev/vda rw\n",
        f"7:3 /other {DIRECTORY} rw - xfs /dev/loop3 rw\n",
        f"7:3 /ram//deleted {DIRECTORY} rw - xfs /dev/loop3 rw\n",
        "7:3 /ram /var/lib/libvirt/qemu rw - xfs /dev/loop3 rw\n",
    ],
)
def test_a_bind_mount_that_shows_something_else_is_not_what_fstab_means(line: str) -> None:
    found = find(bound(line), BIND)
    assert isinstance(found, NoStore)
    assert (found.code, found.expected is None) == ("store.not-mounted", False)


@pytest.mark.parametrize("fstab", ["", "/srv/ram {DIRECTORY} none bind 0 0"])
def test_a_directory_of_the_systems_own_file_system_is_no_store_where_it_is_bound(
    fstab: str,
) -> None:
    table = bound(f"254:0 /srv/ram {DIRECTORY} rw - ext4 /dev/vda rw\n", before=ROOT)
    found = find(table, fstab.format(DIRECTORY=DIRECTORY))
    assert isinstance(found, NoStore)
    assert found.code == "store.root-file-system"


def test_what_is_bound_to_the_systems_place_makes_its_file_system_not_the_systems() -> None:
    table = parse_mountinfo(
        f"{SHOWN}30 20 7:3 /libvirt /var/lib/libvirt rw - xfs /dev/loop3 rw\n"
        f"31 20 7:3 /ram {DIRECTORY} rw - xfs /dev/loop3 rw\n"
    )
    assert isinstance(find(table, BIND), Store)


def test_a_bind_mount_is_built_as_the_entry_of_what_it_shows_says() -> None:
    fast = f"ramshelf {FAST} tmpfs size=1g,x-ramshelf.kind=swap 0 0\n"
    table = parse_mountinfo(
        f"{ROOT}28 20 0:50 / {FAST} rw - tmpfs ramshelf rw\n"
        f"30 20 0:50 /ram {DIRECTORY} rw - tmpfs ramshelf rw\n"
    )
    store = find(table, fast + BIND)
    assert isinstance(store, Store)
    assert (store.kind, store.marked, store.beyond_swap) == (Kind.SWAP, True, False)
    store = find(table, BIND)
    assert isinstance(store, Store)
    assert (store.kind, store.marked, store.beyond_swap) == (Kind.RAM, False, True)


def test_fstab_says_nothing_of_what_a_mount_unit_mounts_below() -> None:
    table = parse_mountinfo(
        f"{ROOT}28 20 7:4 / /var/lib/libvirt/qemu rw - xfs /dev/loop4 rw\n"
        f"30 28 7:3 / {DIRECTORY} rw - ext4 /dev/loop3 rw\n"
    )
    assert isinstance(find(table, "/dev/loop4 /var/lib/libvirt/qemu xfs defaults 0 0"), Store)
    found = find(table, "/dev/loop4 /var/lib/libvirt/qemu xfs x-ramshelf.kind=disk 0 0")
    assert isinstance(found, NoStore)
    assert found.code == "store.not-mounted"


@pytest.mark.parametrize("fstype", ["auto", "ext4,xfs"])
def test_fstab_may_leave_the_file_system_open(fstype: str) -> None:
    assert isinstance(find(mounts(), f"/dev/x {DIRECTORY} {fstype} defaults 0 0"), Store)
