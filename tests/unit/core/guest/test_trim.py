"""Which guests may be trimmed."""

import pytest

from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.files.mounts import Mount
from ramshelf.core.guest.trim import check_trim
from ramshelf.core.record import replace
from ramshelf.core.store.find import Store
from ramshelf.core.store.kind import Kind

GUEST = parse_guest("""<domain type='kvm' id='3'><name>web</name><memory unit='MiB'>512</memory>
<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>
<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>""")
OPENED = ("/dev/kvm", "socket:[1]", "/var/lib/libvirt/qemu/ram/3-web/pc.ram", "/dev/vhost-net")


def store(kind: Kind) -> Store:
    mount = Mount(
        mount_id=1,
        parent_id=0,
        device=(0, 1),
        root="/",
        mount_point="/ram",
        options=("rw",),
        fstype="tmpfs" if kind.tmpfs else "xfs",
        source="ramshelf",
        super_options=("rw",),
    )
    return Store(kind=kind, mount=mount, memory_dir="/ram", marked=True)


@pytest.mark.parametrize("kind", [Kind.RAM, Kind.SWAP])
def test_one_that_only_qemu_writes_to_may_be(kind: Kind) -> None:
    check_trim(GUEST, store(kind), mappers=[100], opened=OPENED)


@pytest.mark.parametrize(
    "path",
    ["/dev/vfio/12", "/dev/vfio/vfio", "/dev/iommu", "/dev/vhost-vdpa-0", "/dev/bus/usb/001/002"],
)
def test_not_one_with_a_device_of_its_own(path: str) -> None:
    """Such a device writes past QEMU; interfaces and NVMe disks have them as well as <hostdev>."""
    with pytest.raises(RefusedError) as caught:
        check_trim(GUEST, store(Kind.RAM), mappers=[100], opened=[*OPENED, path])
    assert (caught.value.code, caught.value.facts["devices"]) == ("guest.device-access", [path])


@pytest.mark.parametrize(
    ("guest", "kind", "mappers", "code"),
    [
        (replace(GUEST, passthrough=True), Kind.RAM, [100], "guest.device-access"),
        (replace(GUEST, locked=True), Kind.RAM, [100], "guest.memory-locked"),
        (GUEST, Kind.SWAP, [100, 101], "guest.memory-shared"),
        (GUEST, Kind.DISK, [100], "guest.keeps-extents"),
        (GUEST, Kind.DAX, [100], "guest.keeps-extents"),
    ],
)
def test_others_are_refused(guest: Guest, kind: Kind, mappers: list[int], code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_trim(guest, store(kind), mappers=mappers, opened=OPENED)
    assert caught.value.code == code
