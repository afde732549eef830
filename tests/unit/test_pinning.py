"""Guests whose memory cannot leave RAM: what of them is admitted."""

import pytest

from ramshelf.core.config import Config
from ramshelf.core.errors import ConfigError, RefusedError
from ramshelf.core.guest import Guest, parse_guest
from ramshelf.core.kind import Kind
from ramshelf.core.pinning import check_device, check_ram
from ramshelf.core.record import replace
from ramshelf.core.requirements import Version
from ramshelf.core.setting import Setting, host_reserved_mib
from ramshelf.core.store import Store
from ramshelf.core.units import GIB, MIB
from support.good_host import GUEST, MEMORY_DIR, MOUNT

LOCKED = replace(GUEST, locked=True)
DEVICE = replace(GUEST, passthrough=True)
HUGE = replace(LOCKED, hugepages=True, huge_bytes=LOCKED.memory)


RAM, RESERVED = 8 * GIB, 1 * GIB


@pytest.mark.parametrize(
    ("guest", "others", "missing_mib"),
    [
        (LOCKED, (), 0),
        (LOCKED, (GUEST, GUEST, GUEST, GUEST), 0),
        (LOCKED, (LOCKED, replace(DEVICE, max_memory=3 * GIB)), 0),
        (LOCKED, (LOCKED, replace(DEVICE, max_memory=3 * GIB + 1)), 1),
        (LOCKED, (replace(LOCKED, source=None, files=(), max_memory=6 * GIB),), 1024),
        (LOCKED, (replace(HUGE, max_memory=6 * GIB),), 0),
        (replace(LOCKED, max_memory=7 * GIB + MIB), (), 1),
        (replace(DEVICE, max_memory=9 * GIB), (), 2048),
        (replace(GUEST, max_memory=9 * GIB), (LOCKED,), 0),
    ],
)
def test_ram_for_guests_that_pin_it(guest: Guest, others: tuple[Guest, ...], missing_mib: int) -> None:
    if not missing_mib:
        check_ram(guest, others, ram=RAM, reserved=RESERVED)
        return
    with pytest.raises(RefusedError) as caught:
        check_ram(guest, others, ram=RAM, reserved=RESERVED)
    assert (caught.value.code, caught.value.facts["missing_mib"]) == ("ram.exceeded", missing_mib)


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
            "<disk type='file'><backingStore type='file'><backingStore type='nvme'/></backingStore></disk>",
            True,
        ),
        ("<disk type='file'><mirror type='nvme' job='copy'/></disk>", True),
        ("<disk type='vhostvdpa'/>", True),
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
