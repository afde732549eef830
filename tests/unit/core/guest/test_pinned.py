"""Guests whose memory cannot leave RAM: which they are, and where a device can have it."""

import pytest

from ramshelf.core.config import Config
from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.errors import ConfigError, RefusedError
from ramshelf.core.guest.pinned import check_device
from ramshelf.core.record import replace
from ramshelf.core.requirements import Version
from ramshelf.core.setting import Setting, host_reserved_mib
from ramshelf.core.store.find import Store
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import GIB
from support.good_host import GUEST, MEMORY_DIR, MOUNT

LOCKED = replace(GUEST, locked=True)
DEVICE = replace(GUEST, passthrough=True)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("kernel", [(6, 4, 9), (6, 5, 0)])
def test_where_a_device_s_memory_cannot_be_pinned(kind: Kind, kernel: Version) -> None:
    store = Store(kind=kind, mount=MOUNT, memory_dir=MEMORY_DIR, marked=True)
    check_device(LOCKED, store, kernel)
    if kind.tmpfs or (kind is Kind.DISK and kernel < (6, 5, 0)):
        check_device(DEVICE, store, kernel)
    else:
        with pytest.raises(RefusedError, match="cannot pin"):
            check_device(DEVICE, store, kernel)


@pytest.mark.parametrize(
    ("device", "pins"),
    [
        ("<hostdev mode='subsystem' type='pci'/>", True),
        ("<hostdev mode='subsystem' type='mdev'/>", True),
        ("<hostdev mode='subsystem' type='usb'/>", False),
        ("<interface type='hostdev'/>", True),
        ("<interface type='network'><actual type='hostdev'/></interface>", True),
        ("<interface type='vdpa'/>", True),
        ("<interface type='bridge'/>", False),
        ("<disk type='nvme'/>", True),
        (
            (
                "<disk type='file'><backingStore type='file'><backingStore "
                "type='nvme'/></backingStore></disk>"
            ),
            True,
        ),
        ("<disk type='file'><mirror type='nvme' job='copy'/></disk>", True),
        ("<disk type='vhostvdpa'/>", True),
        ("<disk type='file'><backingStore type='vhostvdpa'/></disk>", True),
        (
            (
                "<disk type='file'><source file='a'><dataStore "
                "type='nvme'><source/></dataStore></source></disk>"
            ),
            True,
        ),
        ("<disk type='file'><source file='a'><dataStore type='file'/></source></disk>", False),
        ("<controller type='nvme'/>", False),
        ("</devices><launchSecurity type='sev'/><devices>", True),
        ("<disk type='file'/>", False),
    ],
)
def test_devices_that_pin_all_memory(device: str, *, pins: bool) -> None:
    guest = parse_guest(f"<domain><memory>1048576</memory><devices>{device}</devices></domain>")
    assert guest.passthrough is pins
    assert guest.pinned == (GIB if pins else 0)


def test_what_the_host_keeps() -> None:
    place = Setting(path="f", section="ramshelf", key="host_reserved_memory_mb", value="512")
    assert host_reserved_mib([]) == Config().host_reserved_mib
    assert host_reserved_mib([place]) == 512
    with pytest.raises(ConfigError):
        host_reserved_mib([replace(place, value="much")])


@pytest.mark.parametrize(
    ("arguments", "pins"),
    [
        (("-overcommit", "mem-lock=on"), True),
        (("-device", "vfio-pci,host=01:00.0"), True),
        (("-device", '{"driver": "vfio-pci"}'), True),
        (("-device", "vhost-vdpa-device-pci"), True),
        (("-device", "virtio-rng-pci"), False),
        (("-overcommit", "cpu-pm=on"), False),
    ],
)
def test_arguments_of_its_own_that_pin_all_memory(
    arguments: tuple[str, ...], *, pins: bool
) -> None:
    args = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    guest = parse_guest(
        f"<domain><memory>1048576</memory><qemu:commandline>{args}</qemu:commandline></domain>"
    )
    assert guest.pinned == (GIB if pins else 0)
