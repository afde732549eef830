"""What happens at boot, by fstab and systemd's unit files.

The unit files are read as files, so that no systemd needs to run.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ramshelf.core.doctor.facts import BootOrder, ServiceOrder
from ramshelf.core.files.fstab import Entry
from ramshelf.core.files.mounts import is_below, normal
from ramshelf.core.host import SwapUse
from ramshelf.core.store.boot import SERVICES, escape_path
from ramshelf.system.blockdevice import find_by_uuid
from ramshelf.system.filesystem import read_text
from ramshelf.system.procfs import SwapArea
from ramshelf.system.run import run

_UNIT_PATH = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where units are looked for: the first that has a unit wins.

See systemd.unit(5), "Unit File Load Path".
"""


def unit_values(text: str, key: str) -> tuple[str, ...]:
    """Return the words of all ``KEY=`` lines of a unit; an empty one takes back those before it."""
    words: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, separator, value = line.partition("=")
        if separator and name.strip() == key:
            words = [*words, *value.split()] if value.strip() else []
    return tuple(words)


def boot_order(entries: tuple[Entry, ...], mount_point: str) -> BootOrder:
    """Find what mounts ``mount_point`` at boot, and what that requires.

    The services that wait for the mount are found, too.
    """
    mounted_by, requires = _mounting(entries, mount_point)
    services = {
        service: service_order(text, mount_point)
        for service in SERVICES
        if (text := _unit(service)) is not None
    }
    return BootOrder(mounted_by=mounted_by, requires=frozenset(requires), services=services)


def service_order(text: str, mount_point: str) -> ServiceOrder:
    """Return how a service whose unit has this text starts, as seen from the mount point.

    ``WantsMountsFor=`` is systemd's since 256; ``RequiresMountsFor=`` and it order, too.
    """
    unit = escape_path(mount_point, "mount")

    def mounts(key: str) -> bool:
        return any(is_below(path, mount_point) for path in unit_values(text, key))

    def names(*keys: str) -> bool:
        return any(unit in unit_values(text, key) for key in keys)

    by_path = mounts("RequiresMountsFor")
    after = names("After")
    return ServiceOrder(
        waits=by_path
        or mounts("WantsMountsFor")
        or (after and names("Wants", "Requires", "BindsTo")),
        requires=by_path or names("Requires", "BindsTo"),
    )


def _mounting(entries: tuple[Entry, ...], mount_point: str) -> tuple[str, set[str]]:
    """Find what mounts ``mount_point``, and the units without which it is not mounted.

    A bind mount also needs what it shows: systemd makes it require the mount that its source lies
    on (systemd.mount(5), "Implicit Dependencies"), and so what that mount requires.
    """
    unit = escape_path(mount_point, "mount")
    entry = next((entry for entry in reversed(entries) if entry.mount_point == mount_point), None)
    mounted_by, requires = "", set(unit_values(_unit(unit) or "", "Requires"))
    if _is_masked(unit):
        return "", set()
    if entry is not None and "noauto" not in entry.options:
        mounted_by = "/etc/fstab"
        requires |= {
            option.partition("=")[2]
            for option in entry.options
            if option.startswith("x-systemd.requires=")
        }
        if entry.bind:
            requires |= _mounting(_above(entries, entry), _source(entries, entry))[1]
    elif _unit_file(unit) is not None:
        mounted_by = unit
        requires |= set(unit_values(_unit(unit) or "", "BindsTo"))
    return mounted_by, requires


def _above(entries: tuple[Entry, ...], bind: Entry) -> tuple[Entry, ...]:
    """Return the other mounts that the source of a bind mount lies on."""
    path = normal(bind.spec)
    return tuple(
        entry for entry in entries if entry is not bind and is_below(path, entry.mount_point)
    )


def _source(entries: tuple[Entry, ...], bind: Entry) -> str:
    """Return where fstab mounts what a bind mount shows a part of."""
    return max(
        (entry.mount_point for entry in _above(entries, bind)), key=len, default=normal(bind.spec)
    )


def swap_uses(entries: tuple[Entry, ...], areas: tuple[SwapArea, ...]) -> tuple[SwapUse, ...]:
    """Return the active swap areas, and whether they come back at boot."""
    return tuple(_swap_use(entries, area) for area in areas)


def _swap_use(entries: tuple[Entry, ...], area: SwapArea) -> SwapUse:
    paths = {area.path}
    at_boot = _unit(escape_path(area.path, "swap")) is not None
    for entry in entries:
        if entry.fstype == "swap" and _names(entry.spec, area.path):
            paths.add(_device(entry.spec))
            at_boot = at_boot or "noauto" not in entry.options
    return SwapUse(
        path=area.path,
        size=area.size,
        units=frozenset(escape_path(path, "swap") for path in paths),
        at_boot=at_boot,
    )


def _names(spec: str, path: str) -> bool:
    """Tell whether fstab's ``spec`` is this device or file.

    Where no udev makes the links for UUIDs, what the devices carry decides.
    """
    link = _device(spec)
    if spec.startswith("UUID=") and not os.path.exists(link):
        found = find_by_uuid(os.path.basename(link), run)
        return found is not None and os.path.realpath(found) == os.path.realpath(path)
    return os.path.realpath(link) == os.path.realpath(path)


def _device(spec: str) -> str:
    """Return the path that fstab's ``UUID=``, ``LABEL=`` and the like stand for."""
    tag, separator, value = spec.partition("=")
    if not separator or spec.startswith("/"):
        return spec
    return f"/dev/disk/by-{tag.lower()}/{value.strip(chr(34))}"


def _unit_file(name: str) -> Path | None:
    """Return the file that counts for a unit; None where there is none, or where it is masked."""
    path = _first(name)
    return path if path is not None and path.is_file() else None


def _is_masked(name: str) -> bool:
    """Tell whether systemd starts no unit of this name, not even one that fstab makes.

    Where the file that counts is empty or a link to /dev/null (systemd.unit(5)).
    """
    path = _first(name)
    return path is not None and (os.path.realpath(path) == "/dev/null" or path.stat().st_size == 0)


def _first(name: str) -> Path | None:
    found = (Path(place, name) for place in _UNIT_PATH)
    return next((path for path in found if path.exists()), None)


def _unit(name: str) -> str | None:
    """Return a unit's text with its drop-ins; None where there is no such unit file, or a mask."""
    path = _unit_file(name)
    if path is None or _is_masked(name):
        return None
    return "\n".join([read_text(path), *(read_text(drop_in) for drop_in in _drop_ins(name))])


def _drop_ins(name: str) -> Iterator[Path]:
    found: dict[str, Path] = {}
    for place in reversed(_UNIT_PATH):
        directory = Path(place, f"{name}.d")
        if directory.is_dir():
            found |= {path.name: path for path in directory.glob("*.conf")}
    return iter(found[name] for name in sorted(found))
