"""The mount table and fstab."""

import pytest
from hypothesis import strategies as st

from ramshelf.core.files.fstab import KIND_OPTION, parse_fstab
from ramshelf.core.files.mounts import covering, parse_mountinfo, unescape

MOUNTINFO = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 0:26 / /run rw,nosuid,nodev shared:5 master:2 - tmpfs tmpfs rw,size=400k,mode=755
90 22 0:51 / /var/lib/libvirt/qemu/ram rw,relatime - tmpfs ramshelf rw,size=614400k
91 22 7:0 / /srv/guest\040memory ro,noatime - xfs /dev/loop0 rw,attr2
92 90 7:1 / /var/lib/libvirt/qemu/ram rw - ext4 /dev/loop1 ro
"""


def test_mountinfo() -> None:
    root, run, _, spaced, top = parse_mountinfo(MOUNTINFO)
    assert (root.device, root.fstype, root.source) == ((254, 1), "ext4", "/dev/vda1")
    assert (run.fstype, run.super_options) == ("tmpfs", ("rw", "size=400k", "mode=755"))
    assert spaced.mount_point == "/srv/guest memory"
    assert [mount.read_only for mount in (root, spaced, top)] == [False, True, True]


@pytest.mark.parametrize(
    ("path", "mount_id"),
    [
        ("/", 22),
        ("/var/lib/libvirt/qemu", 22),
        ("/var/lib/libvirt/qemu/ramdisk", 22),
        ("/var/lib/libvirt/qemu/ram", 92),  # the later one hides the earlier
        ("/var/lib/libvirt/qemu/ram/1-guest", 92),
        ("/srv/guest memory/libvirt/qemu", 91),
    ],
)
def test_covering(path: str, mount_id: int) -> None:
    mount = covering(parse_mountinfo(MOUNTINFO), path)
    assert mount is not None
    assert mount.mount_id == mount_id


def test_lines_that_are_none_are_passed_over() -> None:
    assert parse_mountinfo("\nnonsense\n1 2 3\n") == ()


@pytest.mark.parametrize("end", ["\v", "\r", "\x1c", "\x85", "\u2028"])
def test_a_mount_point_may_have_any_letter(end: str) -> None:
    """Any user can mount a FUSE file system wherever he likes below his own directory."""
    [mount] = parse_mountinfo(f"36 25 0:40 / /home/x/a{end}b rw - fuse.x  rw,user_id=1000\n")
    assert (mount.mount_point, mount.source) == (f"/home/x/a{end}b", "")


def test_unescape() -> None:
    assert unescape(r"a\040b\011c\134d") == "a b\tc\\d"


paths = st.lists(st.sampled_from(["a", "b", "cc"]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


def test_fstab() -> None:
    entries = parse_fstab(
        "# comment\n"
        "UUID=1 / ext4 errors=remount-ro 0 1\n"
        f"ramshelf\t/srv/guest\\040memory tmpfs size=1G,{KIND_OPTION}=swap,nofail 0 0\n"
        "short line\n"
        "/dev/loop0 /mnt xfs\n"
    )
    assert [entry.mount_point for entry in entries] == ["/", "/srv/guest memory", "/mnt"]
    store = entries[1]
    assert (store.option(KIND_OPTION), store.option("nofail"), store.option("noauto")) == (
        "swap",
        "",
        None,
    )
    assert entries[2].options == ("defaults",)
