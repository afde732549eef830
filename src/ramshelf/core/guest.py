"""A guest's memory as its domain XML describes it, and the files that libvirt will make for it.

Read only, with the standard library, so that the hook can use it. ``core/backing.py`` edits.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import PurePosixPath

from ramshelf.core.errors import InputError
from ramshelf.core.units import MIB, align_up, libvirt_bytes

# libvirt aligns guest memory before it starts QEMU (qemuDomainGetMemorySizeAlignment).
_ALIGNMENT = {"ppc64": 256 * MIB, "ppc64le": 256 * MIB}

# QEMU's MachineClass.default_ram_id, by architecture and machine type prefix. What is not here is
# taken to be unknown: the hook then accounts by size and leaves the file to QEMU.
_MEMORY_IDS = (
    ("x86_64", "microvm", "microvm.ram"),
    ("x86_64", "", "pc.ram"),
    ("i686", "microvm", "microvm.ram"),
    ("i686", "", "pc.ram"),
    ("aarch64", "virt", "mach-virt.ram"),
    ("armv7l", "virt", "mach-virt.ram"),
    ("ppc64", "pseries", "ppc_spapr.ram"),
    ("ppc64le", "pseries", "ppc_spapr.ram"),
    ("s390x", "", "s390.ram"),
    ("riscv64", "virt", "riscv_virt_board.ram"),
    ("loongarch64", "virt", "loongarch.ram"),
)

SHORT_NAME_MAX = 20
"""Characters of a guest's name in its directory's name (VIR_DOMAIN_SHORT_NAME_MAX)."""


@dataclass(frozen=True, kw_only=True)
class MemoryFile:
    """One file that libvirt makes QEMU open; ``name`` None where QEMU's name for it is not known."""

    name: str | None
    size: int


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What ramshelf needs to know of a domain; sizes in bytes.

    ``source`` is the memoryBacking source type (``file``, ``memfd``, ``anonymous``) or None.
    ``files`` are the memory files on the memory backing directory, none for a guest that is not
    file-backed. ``domain_id`` is None for a guest that is not running.
    """

    name: str
    uuid: str
    domain_id: int | None
    virt_type: str
    memory: int
    max_memory: int
    slots: int
    source: str | None
    access: str | None
    allocation: str | None
    discard: bool
    hugepages: bool
    locked: bool
    passthrough: bool
    files: tuple[MemoryFile, ...]

    @property
    def file_backed(self) -> bool:
        """Whether any of its memory lies in files of the memory backing directory."""
        return bool(self.files)

    @property
    def file_bytes(self) -> int:
        """The apparent size of all its memory files together."""
        return sum(file.size for file in self.files)


def directory_name(domain_id: int, name: str) -> str:
    """The guest's directory below the memory backing directory (virDomainDefGetShortName)."""
    return f"{domain_id}-{name[:SHORT_NAME_MAX]}"


def guest_directory(memory_dir: str, domain_id: int, name: str) -> str:
    """The absolute path of a running guest's directory."""
    return str(PurePosixPath(memory_dir, directory_name(domain_id, name)))


def parse_guest(text: str | bytes) -> Guest:
    """Read domain XML, plain or inside the ``domstatus`` of /run/libvirt/qemu.

    Raises InputError ``xml.malformed``, ``xml.not-a-domain`` or ``xml.memory``.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - libvirt's own output; expat limits entity expansion
    except ET.ParseError as error:
        raise InputError("xml.malformed", f"The domain XML cannot be parsed: {error}.") from error
    domain = root.find("domain") if root.tag == "domstatus" else root
    if domain is None or domain.tag != "domain":
        raise InputError("xml.not-a-domain", f"The XML is a <{root.tag}>, not a <domain>.")
    try:
        return _guest(domain)
    except ValueError as error:
        raise InputError("xml.memory", f"The domain's memory cannot be read: {error}.") from error


def _guest(domain: ET.Element) -> Guest:
    backing = domain.find("memoryBacking")
    source = _attribute(backing, "source", "type")
    access = _attribute(backing, "access", "mode")
    memory = _bytes(domain.find("memory"))
    max_memory = domain.find("maxMemory")
    domain_id = domain.get("id")
    hugepages = backing is not None and backing.find("hugepages") is not None
    return Guest(
        name=domain.findtext("name", "").strip(),
        uuid=domain.findtext("uuid", "").strip(),
        domain_id=int(domain_id) if domain_id and int(domain_id) >= 0 else None,
        virt_type=domain.get("type", ""),
        memory=memory,
        max_memory=_bytes(max_memory) if max_memory is not None else memory,
        slots=int(max_memory.get("slots", "0")) if max_memory is not None else 0,
        source=source,
        access=access,
        allocation=_attribute(backing, "allocation", "mode"),
        discard=backing is not None and backing.find("discard") is not None,
        hugepages=hugepages,
        locked=backing is not None and backing.find("locked") is not None,
        passthrough=domain.find("devices/hostdev[@type='pci']") is not None
        or domain.find("devices/hostdev[@type='mdev']") is not None,
        files=_files(domain, memory, source, access, hugepages=hugepages),
    )


def _files(
    domain: ET.Element, memory: int, source: str | None, access: str | None, *, hugepages: bool
) -> tuple[MemoryFile, ...]:
    """The memory files, after qemuBuildMemoryBackendProps.

    A backend is a file when the source says so, or when no source is set and an access mode is.
    Huge pages win over the source, and go to hugetlbfs.
    """
    if hugepages or source not in {None, "file"}:
        return ()
    os_type = domain.find("os/type")
    arch = os_type.get("arch", "x86_64") if os_type is not None else "x86_64"
    machine = os_type.get("machine", "") if os_type is not None else ""
    alignment = _ALIGNMENT.get(arch, MIB)
    shared_cells = {
        cell.get("id", str(index)): cell.get("memAccess") or access
        for index, cell in enumerate(domain.iterfind("cpu/numa/cell"))
    }
    devices = [
        file
        for device in domain.iterfind("devices/memory")
        if (file := _device_file(device, source, access, shared_cells, alignment))
    ]
    cells = list(domain.iterfind("cpu/numa/cell"))
    if cells:
        main = [
            MemoryFile(
                name=f"ram-node{cell.get('id', index)}",
                size=align_up(libvirt_bytes(cell.get("memory", "0"), cell.get("unit")), alignment),
            )
            for index, cell in enumerate(cells)
            if source == "file" or cell.get("memAccess") or access
        ]
    elif source == "file" or access:
        device_bytes = sum(
            _bytes(device.find("target/size"))
            for device in domain.iterfind("devices/memory")
            if device.get("model") in {"dimm", "virtio-mem"}
        )
        initial = align_up(memory - device_bytes, alignment)
        main = [MemoryFile(name=_memory_id(arch, machine), size=initial)]
    else:
        main = []
    return tuple(main + devices)


def _device_file(
    device: ET.Element,
    source: str | None,
    access: str | None,
    cells: dict[str, str | None],
    alignment: int,
) -> MemoryFile | None:
    """The file of a DIMM or virtio-mem device; NVDIMM and virtio-pmem bring their own path."""
    if device.get("model") not in {"dimm", "virtio-mem"}:
        return None
    if device.find("source/pagesize") is not None:
        return None
    node = device.findtext("target/node", "").strip()
    shared = device.get("access") or cells.get(node) or access
    if source != "file" and not shared:
        return None
    alias = device.find("alias")
    return MemoryFile(
        name=alias.get("name") if alias is not None else None,
        size=align_up(_bytes(device.find("target/size")), alignment),
    )


def _memory_id(arch: str, machine: str) -> str | None:
    for known_arch, prefix, name in _MEMORY_IDS:
        if arch == known_arch and machine.startswith(prefix):
            return name
    return None


def _attribute(parent: ET.Element | None, child: str, name: str) -> str | None:
    element = parent.find(child) if parent is not None else None
    return element.get(name) if element is not None else None


def _bytes(element: ET.Element | None) -> int:
    if element is None or not (element.text or "").strip():
        raise ValueError("a size is missing")
    return libvirt_bytes(element.text or "", element.get("unit"))
