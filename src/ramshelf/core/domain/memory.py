"""A guest's memory as its domain XML describes it, and the files that libvirt will make for it.

This module only reads, and needs only the standard library, so that the hook can use it.
``core/domain/backing.py`` edits.
"""

from __future__ import annotations

from ramshelf.core.domain.xml import Element, parse
from ramshelf.core.errors import InputError
from ramshelf.core.record import dataclass
from ramshelf.core.units import KIB, MIB, align_up, libvirt_bytes

# libvirt aligns guest memory before it starts QEMU (qemuDomainGetMemorySizeAlignment), and memory
# devices to more (qemuDomainGetMemoryModuleSizeAlignment).
_ALIGNMENT = {"ppc64": 256 * MIB, "ppc64le": 256 * MIB}
_DEVICE_ALIGNMENT = 2 * MIB

MEMORY_IDS = (
    ("x86_64", "pc", "pc.ram"),
    ("x86_64", "q35", "pc.ram"),
    ("x86_64", "isapc", "pc.ram"),
    ("x86_64", "microvm", "microvm.ram"),
    ("i686", "pc", "pc.ram"),
    ("i686", "q35", "pc.ram"),
    ("i686", "isapc", "pc.ram"),
    ("i686", "microvm", "microvm.ram"),
    ("aarch64", "virt", "mach-virt.ram"),
    ("armv7l", "virt", "mach-virt.ram"),
    ("ppc64", "pseries", "ppc_spapr.ram"),
    ("ppc64le", "pseries", "ppc_spapr.ram"),
    ("ppc64", "powernv", "pnv.ram"),
    ("ppc64le", "powernv", "pnv.ram"),
    ("s390x", "s390-ccw", "s390.ram"),
    ("riscv32", "virt", "riscv_virt_board.ram"),
    ("riscv64", "virt", "riscv_virt_board.ram"),
    ("loongarch64", "virt", "loongarch.ram"),
)
"""QEMU's MachineClass.default_ram_id by architecture and prefix of the machine type.

That is the name of the file that a guest without NUMA cells has. QEMU before 5.0 has no such ids;
there, and for machines that are not listed here, the name is found out when the guest has started.
"""

MEMORY_DEVICES = frozenset({"dimm", "virtio-mem"})
"""Memory devices whose file libvirt makes.

NVDIMM and virtio-pmem bring a file of their own, and SGX has none.
"""

_PINNING = (
    ("devices/hostdev", "pci"),
    ("devices/hostdev", "mdev"),
    ("devices/interface", "hostdev"),
    ("devices/interface", "vdpa"),
    ("devices/interface/actual", "hostdev"),
)
"""Devices, by type, for which QEMU pins the guest's memory (qemuDomainGetMemLockLimitBytes)."""

_PINNING_DISKS = frozenset({"nvme", "vhostvdpa"})
_DISK_LAYERS = frozenset({"backingStore", "mirror", "source", "dataStore"})
"""Elements that may lie below a disk or beside it, and may lead to an NVMe device.

QEMU drives an NVMe device there by VFIO, as it does where the disk itself is one. ``dataStore``
lies in a layer's source (libvirt 10.10).
"""

_PINNING_ARGUMENTS = ("vfio-", "vhost-vdpa")
_LOCKING_ARGUMENTS = ("mem-lock=on",)
"""Parts of a domain's own arguments for QEMU (qemu:commandline) that pin or lock its memory."""

_BACKED_DEVICES = frozenset({"nvdimm", "virtio-pmem", "sgx-epc"})
"""Memory devices whose memory is in a file of their own or in an enclave of the CPU.

That memory is not anonymous.
"""


@dataclass(frozen=True, kw_only=True)
class MemoryFile:
    """One file that libvirt makes QEMU open.

    ``name`` is None where QEMU's name for it is not known. ``private``: QEMU maps it so that what
    the guest writes becomes anonymous memory (MAP_PRIVATE), as it does with a file unless libvirt
    says share=on.
    """

    name: str | None
    size: int
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What ramshelf needs to know of a domain; sizes are in bytes.

    ``memory`` is all that the guest starts with, memory devices included. ``source`` is the type of
    the memoryBacking source (``file``, ``memfd``, ``anonymous``) or None. ``discard``: QEMU is to
    discard some of the memory when it ends. ``hugepages``: some of the memory uses pages larger
    than the system's, and ``huge_bytes`` of it do so for certain. ``files`` are the memory files on
    the memory backing directory; a guest that is not file-backed has none. ``hotplug`` is what may
    be added to them by hot-plug, up to maxMemory. ``passthrough``: all of the memory is pinned,
    because a device may use it at any time or because it is encrypted. ``domain_id`` is None for a
    guest that is not running. ``vcpus`` is the most that it may have. ``elsewhere`` is the part of
    its memory that is in files or enclaves of its own devices (NVDIMM, virtio-pmem, SGX), and
    ``device_bytes`` is what devices have for it besides its memory.
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
    hotplug: int = 0
    huge_bytes: int = 0
    vcpus: int = 1
    elsewhere: int = 0
    device_bytes: int = 0

    @property
    def file_backed(self) -> bool:
        """Whether any of its memory lies in files of the memory backing directory."""
        return bool(self.files)

    @property
    def file_bytes(self) -> int:
        """The apparent size of all its memory files together."""
        return sum(file.size for file in self.files)

    @property
    def private_bytes(self) -> int:
        """The bytes of its files that are mapped privately.

        Once they are written, they take RAM and swap, too. Memory that may be hot-plugged is mapped
        as the guest's own memory is, unless the device says otherwise.
        """
        private = sum(file.size for file in self.files if file.private)
        return private + self.hotplug if private else 0

    @property
    def promise(self) -> int:
        """The bytes that the store must be able to hold for it.

        These are its files, and what may be hot-plugged.
        """
        return self.file_bytes + self.hotplug

    @property
    def paged(self) -> int:
        """The most memory in the system's own pages that it may come to have, whatever backs it."""
        return max(0, self.max_memory - self.huge_bytes - self.elsewhere) + self.device_bytes

    @property
    def emulated(self) -> bool:
        """Whether QEMU itself runs its instructions (TCG)."""
        return self.virt_type == "qemu"

    @property
    def pinned(self) -> int:
        """The bytes that it keeps in RAM for good, whatever backs them.

        Huge pages do not count: they have been taken from RAM before.
        """
        if not (self.locked or self.passthrough) or self.huge_bytes >= self.memory:
            return 0
        return self.paged


def parse_guest(text: str | bytes, *, page_size: int = 4 * KIB) -> Guest:
    """Read domain XML, plain or inside the ``domstatus`` of /run/libvirt/qemu.

    ``page_size`` is the system's, in bytes; huge pages of that size are ordinary pages to libvirt.
    Raises InputError ``xml.malformed``, ``xml.not-a-domain`` or ``xml.memory``.
    """
    root = parse(text)
    domain = root.find("domain") if root.tag == "domstatus" else root
    if domain is None or domain.tag != "domain":
        raise InputError("xml.not-a-domain", f"The XML is a <{root.tag}>, not a <domain>.")
    try:
        return _guest(domain, page_size)
    except ValueError as error:
        raise InputError("xml.memory", f"The domain's memory cannot be read: {error}.") from error


def _guest(domain: Element, page_size: int) -> Guest:
    backing = domain.find("memoryBacking")
    memory = _memory(domain)
    max_memory = domain.find("maxMemory")
    maximum = max(memory, _bytes(max_memory)) if max_memory is not None else memory
    domain_id = domain.get("id")
    backends = _Backends(domain, page_size)
    files, huge = backends.files(memory)
    return Guest(
        name=domain.findtext("name"),
        uuid=domain.findtext("uuid").strip(),
        domain_id=int(domain_id) if domain_id and int(domain_id) >= 0 else None,
        virt_type=domain.get("type") or "",
        memory=memory,
        max_memory=maximum,
        slots=int(max_memory.get("slots", "0")) if max_memory is not None else 0,
        source=backends.source,
        access=backends.access,
        allocation=_attribute(backing, "allocation", "mode"),
        discard=_discards(domain),
        hugepages=huge > 0,
        huge_bytes=0 if backends.mixed_pages else huge,
        locked=domain.find("memoryBacking/locked") is not None
        or _argues(domain, _LOCKING_ARGUMENTS),
        passthrough=_passthrough(domain),
        files=files,
        hotplug=maximum - memory if files else 0,
        vcpus=_vcpus(domain),
        elsewhere=sum(
            _bytes(device.find("target/size"))
            for device in domain.each("devices/memory")
            if device.get("model") in _BACKED_DEVICES
        ),
        device_bytes=_device_bytes(domain),
    )


def _vcpus(domain: Element) -> int:
    """Return the most vCPUs that it may have, or 1 where the number cannot be read.

    Such a number is for libvirt to refuse.
    """
    text = (domain.findtext("vcpu") or "").strip()
    return int(text) if text.isascii() and text.isdigit() else 1


def _discards(domain: Element) -> bool:
    parts = (*domain.each("cpu/numa/cell"), *domain.each("devices/memory"))
    return domain.find("memoryBacking/discard") is not None or any(
        part.get("discard") == "yes" for part in parts
    )


def _passthrough(domain: Element) -> bool:
    """Tell whether something pins the guest's memory.

    Encryption does so, too (KVM_MEMORY_ENCRYPT_REG_REGION).
    """
    return (
        domain.find("launchSecurity") is not None
        or any(
            device.get("type") == kind for path, kind in _PINNING for device in domain.each(path)
        )
        or any(_pins(disk) for disk in domain.each("devices/disk"))
        or _argues(domain, _PINNING_ARGUMENTS)
    )


def _argues(domain: Element, parts: tuple[str, ...]) -> bool:
    """Tell whether one of the domain's own arguments for QEMU contains one of these parts."""
    arguments = domain.each("qemu:commandline/qemu:arg")
    return any(part in argument.get("value", "") for argument in arguments for part in parts)


def _pins(layer: Element) -> bool:
    """Tell whether a disk, or what lies below it, is of a type that pins the guest's memory."""
    below = (child for child in layer.children if child.tag in _DISK_LAYERS)
    return layer.get("type") in _PINNING_DISKS or any(map(_pins, below))


def _device_bytes(domain: Element) -> int:
    """Return the bytes that devices give the guest besides its memory.

    These are what it shares with others (ivshmem), and the memory of its screens.
    """
    shared = sum(_bytes(size) for size in domain.each("devices/shmem/size"))
    screens = sum(
        int(value) * KIB
        for model in domain.each("devices/video/model")
        for value in (
            model.get("ram", "0"),
            max(model.get("vram", "0"), model.get("vram64", "0"), key=int),
        )
    )
    return shared + screens


def _memory(domain: Element) -> int:
    """Return the size of all of the guest's memory.

    Where <memory> does not say it, the NUMA cells and memory devices do, as in
    virDomainDefPostParseMemory, which refuses a domain without any memory.
    """
    element = domain.find("memory")
    memory = _bytes(element) if element is not None else 0
    if not memory:
        memory = sum(_bytes(device.find("target/size")) for device in domain.each("devices/memory"))
        for cell in domain.each("cpu/numa/cell"):
            memory += libvirt_bytes(cell.get("memory", "0"), cell.get("unit"))
    if not memory:
        raise ValueError("it is zero, or not given")
    return memory


class _Backends:
    """The parts of a domain's memory, and which of them libvirt backs by files.

    The rules are those of qemuBuildMemoryBackendProps. A part is huge pages where they are asked
    for (they win over the source), a memfd where that is the source, a file where the source says
    so or any access mode is set (with an anonymous source, too), and anonymous memory otherwise.
    """

    def __init__(self, domain: Element, page_size: int) -> None:
        backing = domain.find("memoryBacking")
        self.source = _attribute(backing, "source", "type")
        self.access = _attribute(backing, "access", "mode")
        os_type = domain.find("os/type")
        self._arch = os_type.get("arch", "x86_64") if os_type is not None else "x86_64"
        self._machine = os_type.get("machine", "") if os_type is not None else ""
        self._alignment = _ALIGNMENT.get(self._arch, MIB)
        self._devices = list(domain.each("devices/memory"))
        self._cells = {
            int(cell.get("id", str(index))): cell
            for index, cell in enumerate(domain.each("cpu/numa/cell"))
        }
        self._page_size = page_size
        hugepages = backing.find("hugepages") if backing is not None else None
        self._pages = (
            [] if hugepages is None else list(hugepages.each("page")) or [Element("page", {})]
        )

    @property
    def mixed_pages(self) -> bool:
        """Whether some memory is said to use pages of the system's own size.

        On old machine types the first page size that is listed then counts for all of the memory
        (qemuBuildMemPathStr).
        """
        return any(not self._larger(page) for page in self._pages)

    def files(self, memory: int) -> tuple[tuple[MemoryFile, ...], int]:
        """Return the memory files, and the bytes that use huge pages."""
        parts = [
            *(self._cell_parts() if self._cells else [self._main_part(memory)]),
            *self._device_parts(),
        ]
        return tuple(file for file, _ in parts if file is not None), sum(huge for _, huge in parts)

    def _main_part(self, memory: int) -> tuple[MemoryFile | None, int]:
        # As in virDomainDefGetMemoryInitial, all memory devices count, whatever backs them.
        plugged = sum(_bytes(device.find("target/size")) for device in self._devices)
        if plugged > memory:
            raise ValueError("the memory devices are larger than the memory")
        return self._part(
            _memory_id(self._arch, self._machine),
            memory - plugged,
            access=self.access,
            huge=self._huge(None),
        )

    def _cell_parts(self) -> list[tuple[MemoryFile | None, int]]:
        return [
            self._part(
                f"ram-node{number}",
                libvirt_bytes(cell.get("memory", "0"), cell.get("unit")),
                access=cell.get("memAccess") or self.access,
                huge=self._huge(number),
            )
            for number, cell in self._cells.items()
        ]

    def _device_parts(self) -> list[tuple[MemoryFile | None, int]]:
        parts = []
        for device in self._devices:
            if device.get("model") not in MEMORY_DEVICES:
                continue
            node = int(device.findtext("target/node", "-1"))
            cell = self._cells.get(node)
            cell_access = cell.get("memAccess") if cell is not None else None
            page = device.find("source/pagesize")
            parts.append(
                self._part(
                    _attribute(device, "alias", "name"),
                    _bytes(device.find("target/size")),
                    access=device.get("access") or cell_access or self.access,
                    huge=_bytes(page) != self._page_size if page is not None else self._huge(node),
                    alignment=_DEVICE_ALIGNMENT,
                )
            )
        return parts

    def _part(
        self, name: str | None, size: int, *, access: str | None, huge: bool, alignment: int = 1
    ) -> tuple[MemoryFile | None, int]:
        aligned = align_up(size, max(self._alignment, alignment))
        if huge:
            return None, aligned
        if size == 0 or self.source == "memfd" or not (self.source == "file" or access):
            return None, 0
        return MemoryFile(name=name, size=aligned, private=access != "shared"), 0

    def _huge(self, node: int | None) -> bool:
        """Tell whether a NUMA node uses huge pages, as qemuBuildMemoryGetPagesize does.

        ``node`` is None for a guest without NUMA nodes.
        """
        general: Element | None = None
        for page in self._pages:
            nodes = page.get("nodeset")
            # Without NUMA cells libvirt drops nodeset='0' (virDomainDefPostParseMemtune).
            if nodes is None or not self._cells:
                general = page
            elif node is not None and _in_node_set(node, nodes):
                return self._larger(page)
        return general is not None and self._larger(general)

    def _larger(self, page: Element) -> bool:
        size = page.get("size")
        return size is None or libvirt_bytes(size, page.get("unit")) != self._page_size


def _in_node_set(node: int, text: str) -> bool:
    """Tell whether a node is in libvirt's bitmap notation ``0-3,^1,7`` (virBitmapParse).

    Raises ValueError where the text cannot be read.
    """
    found = False
    for item in text.replace(" ", "").split(","):
        if item.startswith("^"):
            found = found and int(item[1:]) != node
            continue
        first, _, last = item.partition("-")
        found = found or int(first) <= node <= int(last or first)
    return found


def _memory_id(arch: str, machine: str) -> str | None:
    for known_arch, prefix, name in MEMORY_IDS:
        if arch == known_arch and machine.startswith(prefix):
            return name
    return None


def _attribute(parent: Element | None, child: str, name: str) -> str | None:
    element = parent.find(child) if parent is not None else None
    return element.get(name) if element is not None else None


def _bytes(element: Element | None) -> int:
    if element is None or not (element.text or "").strip():
        raise ValueError("a size is missing")
    return libvirt_bytes(element.text or "", element.get("unit"))
