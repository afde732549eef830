"""The store is recognised by the mount table, held against fstab."""

import pytest

from ramshelf.core.fstab import parse_fstab
from ramshelf.core.kind import Kind
from ramshelf.core.mounts import Mount, parse_mountinfo
from ramshelf.core.store import NoStore, Store, find_store

DIRECTORY = "/var/lib/libvirt/qemu/ram"
ROOT = "20 1 254:0 / / rw - ext4 /dev/vda rw\n"


def mounts(
    fstype: str = "xfs", options: str = "rw", device: str = "7:3", at: str = DIRECTORY
) -> tuple[Mount, ...]:
    return parse_mountinfo(f"{ROOT}30 20 {device} / {at} {options} - {fstype} /dev/loop3 {options}\n")


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
def test_a_tmpfs_that_cannot_swap_is_no_swap_store_whatever_fstab_says(kind: str, found: Kind | None) -> None:
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
        (parse_mountinfo(ROOT), f"UUID=a {DIRECTORY} xfs x-ramshelf.kind=disk 0 0", {}, "store.not-mounted"),
        (mounts("ext4"), f"UUID=a {DIRECTORY} xfs x-ramshelf.kind=disk 0 0", {}, "store.not-mounted"),
        (mounts(), f"UUID=a {DIRECTORY} xfs defaults 0 0", {"UUID=a": (7, 4)}, "store.not-mounted"),
        (mounts(at="/var/lib/libvirt/qemu"), f"UUID=a {DIRECTORY} xfs defaults 0 0", {}, "store.not-mounted"),
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
