"""The one place that edits how a guest's memory is backed.

It takes domain XML and gives domain XML. It owns memoryBacking's source, access, allocation and
discard, and the attributes of NUMA cells and memory devices that would overrule them (libvirt's
qemuBuildMemoryBackendProps asks the device first, then its cell, then memoryBacking). Everything
else stays as it was: elements, attributes, comments, namespaces, order and white space.
"""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.parsers import expat

from lxml import etree

from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.errors import InputError, RefusedError
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.requirements import (
    DISCARD,
    VIRT_TYPES,
    Version,
    dotted,
    punch_writes_back,
    supports,
)
from ramshelf.core.units import MIB, to_mib

MAX_BYTES = 4 * MIB
"""The longest string that libvirt takes over its protocol, in bytes (REMOTE_STRING_MAX)."""

NAME_MAX_BYTES = 255 - len(".xml.new")
"""The longest name of a guest, in bytes.

libvirt first writes a definition to ``NAME.xml.new`` (virFileRewrite), and a file name has at most
255 bytes.
"""

_OWNED = ("source", "access", "allocation", "discard")
"""The elements that are edited here, in the order in which libvirt and Nova write them."""

_OWN_FILES = ("dimm", "virtio-mem")
"""The models of memory devices whose memory libvirt puts on the memory backing directory."""

_SHARING = (
    "devices/filesystem/driver[@type='virtiofs']",
    "devices/interface[@type='vhostuser']",
    "devices/disk[@type='vhostuser']",
)
"""Devices that are run by a process of their own, which maps the guest's memory."""

_QEMU_ARG = "{http://libvirt.org/schemas/domain/qemu/1.0}arg"
_INDENT = re.compile(r"\s*\n[ \t]*")


OFF = Finding(
    code="config.off",
    severity=Severity.WARNING,
    sentence=(
        "File-backed memory is off (file_backed_memory is 0, or not set in nova.conf): "
        "the domain XML is left as it is."
    ),
    hint="Set [libvirt] file_backed_memory in nova.conf, or unset it in ramshelf.conf.",
)


class Discard(enum.Enum):
    """The choice whether QEMU discards the memory's contents when the guest ends."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


class AllocationMode(enum.Enum):
    """The time at which the memory's pages are allocated."""

    ONDEMAND = "ondemand"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, kw_only=True)
class Backing:
    """The backing that is wished for.

    Where ``only`` is set, all other attributes of the owned elements are dropped.
    """

    allocation: AllocationMode = AllocationMode.ONDEMAND
    discard: Discard = Discard.AUTO
    only: bool = False


LIKE_NOVA = Backing(allocation=AllocationMode.IMMEDIATE, discard=Discard.YES, only=True)
"""The backing that Nova writes (LibvirtDriver._get_guest_memory_backing_config)."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """What is known of the host that will run the guest; None stands for what is not known."""

    libvirt: Version | None = None
    qemu: Version | None = None
    kernel: Version | None = None
    fstype: str | None = None


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The resulting domain XML, the guest that it describes, and notes for the user.

    ``xml`` is UTF-8 text. ``changed`` is False where the backing was already as wished.
    """

    xml: str
    guest: Guest
    changed: bool
    notes: tuple[Finding, ...]


def make_file_backed(document: bytes, backing: Backing, support: Support) -> Applied:
    """Make a domain file-backed.

    Raises InputError ``xml.*`` for what is not a usable domain, and RefusedError ``xml.hugepages``,
    ``xml.launch-security`` or ``discard.unsupported`` for what cannot be file-backed as wished.
    """
    root = parse_document(document)
    _check(root)
    before = _serialise(root, document)
    if parse_guest(before.encode()).hugepages:
        raise _hugepages(root)
    discard, note = decide_discard(backing.discard, support)
    notes = [note] if note else []
    memory_backing = _memory_backing(root)
    notes += _set_source(memory_backing)
    _set(memory_backing, "access", {"mode": "shared"}, only=backing.only)
    _set(memory_backing, "allocation", {"mode": backing.allocation.value}, only=backing.only)
    if discard:
        _set(memory_backing, "discard", {}, only=backing.only)
    elif (element := memory_backing.find("discard")) is not None:
        _remove(element)
    notes += _drop_overrides(root, discard=discard)
    after = _serialise(root, document)
    guest = parse_guest(after.encode())
    return Applied(
        xml=after, guest=guest, changed=after != before, notes=(*notes, *_remarks(root, guest))
    )


def leave_alone(document: bytes) -> Applied:
    """Return the domain as it is, with a note that file backing is off."""
    root = parse_document(document)
    xml = _serialise(root, document)
    return Applied(xml=xml, guest=parse_guest(xml.encode()), changed=False, notes=(OFF,))


def make_anonymous(document: bytes) -> Applied:
    """Make a domain's memory anonymous by taking out what ``make_file_backed`` owns.

    Raises InputError ``xml.*``, and RefusedError ``xml.shared-memory`` where another process is to
    share the memory.
    """
    root = parse_document(document)
    domain_name(root)
    before = _serialise(root, document)
    for path in _SHARING:
        if root.find(path) is not None:
            raise RefusedError(
                "xml.shared-memory",
                f"The domain shares its memory with another process ({path.rpartition('/')[2]}), "
                "which anonymous memory does not allow.",
                hint="Give it <source type='memfd'/> and <access mode='shared'/> by hand.",
                facts={"element": path},
            )
    for backing in root.findall("memoryBacking"):
        for tag in _OWNED:
            for element in backing.findall(tag):
                _remove(element)
        if len(backing) == 0:
            _remove(backing)
    for _, access, element in _overriders(root):
        for name in (access, "discard"):
            if name in element.attrib:
                del element.attrib[name]
    after = _serialise(root, document)
    return Applied(xml=after, guest=parse_guest(after.encode()), changed=after != before, notes=())


def decide_discard(wish: Discard, support: Support) -> tuple[bool, Finding | None]:
    """Tell whether to set discard, and what the user should know about that.

    ``auto`` sets it only where it does what it is meant for. Raises RefusedError
    ``discard.unsupported`` where ``yes`` is asked of versions that are known not to have it.
    """
    if wish is Discard.NO:
        return False, None
    unknown = [
        name
        for name, value in (
            ("libvirt's version", support.libvirt),
            ("QEMU's version", support.qemu),
            ("the kernel's version", support.kernel),
            ("the store's file system", support.fstype),
        )
        if value is None
    ]
    old = support.libvirt and support.qemu and not supports(DISCARD, support.libvirt, support.qemu)
    flushes = (
        support.fstype and support.kernel and punch_writes_back(support.fstype, support.kernel)
    )
    floor = f"libvirt {dotted(DISCARD.libvirt)} and QEMU {dotted(DISCARD.qemu)}"
    if wish is Discard.YES:
        if old:
            raise RefusedError(
                "discard.unsupported", f"Discard needs {floor}.", hint="Use --discard auto."
            )
        return True, (
            _warning(
                "discard.flushes",
                f"Discard is set as asked, but {support.fstype} writes the memory to the device "
                "before it discards it.",
            )
            if flushes
            else None
        )
    if old:
        return False, _info("discard.unsupported", f"Discard is not set: it needs {floor}.")
    if flushes:
        return False, _info(
            "discard.flushes",
            f"Discard is not set: {support.fstype} would write the memory to the device first.",
        )
    if unknown:
        return False, _info(
            "discard.unknown", f"Discard is not set: {_and(unknown)} could not be found out."
        )
    return True, None


_WANTED = "Domain XML is what 'virsh dumpxml NAME' and 'virt-install --print-xml' print."


def parse_document(document: bytes) -> etree._Element:
    """Return the root of domain XML that may come from anyone.

    Nothing is fetched or expanded, and no DTD is accepted. Raises InputError ``xml.empty``,
    ``xml.too-large``, ``xml.doctype``, ``xml.several-documents``, ``xml.malformed`` or
    ``xml.not-a-domain``.
    """
    if not document.strip():
        raise InputError("xml.empty", "There is no domain XML: the input is empty.", hint=_WANTED)
    if len(document) > MAX_BYTES:
        raise InputError(
            "xml.too-large",
            f"The domain XML is larger than {to_mib(MAX_BYTES)} MiB, which libvirt refuses.",
        )
    _refuse_doctype(document)
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, strip_cdata=False
    )
    try:
        if b"\0" in document:  # where it ends for fromstring before lxml 5, whatever follows
            parser.feed(document)
            root = parser.close()
        else:
            root = etree.fromstring(document, parser)
    except etree.XMLSyntaxError as error:
        if re.search(rb"</domain\s*>\s*<(\?xml|domain)\b", document):
            raise InputError(
                "xml.several-documents",
                "The input holds several XML documents; one domain is expected.",
                hint=(
                    "virt-install prints one for the installation and one for later boots: "
                    "choose with --print-xml 1 or --print-xml 2."
                ),
            ) from error
        reason = (error.msg or "unknown error").splitlines()[0]
        raise InputError(
            "xml.malformed", f"The domain XML cannot be parsed: {reason}.", hint=_WANTED
        ) from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise _doctype()
    if root.tag != "domain":
        raise InputError(
            "xml.not-a-domain", f"The XML is a <{root.tag}>, not a <domain>.", hint=_WANTED
        )
    return root


def domain_name(root: etree._Element) -> str:
    """Return the domain's name.

    Raises InputError ``xml.name`` for a name that libvirt refuses (virDomainDefParseXML,
    virDomainDefPostParse) or cannot use as a file's name (virFileRewrite). libvirt accepts a
    carriage return, but loses it when it copies the definition for a start (virDomainDefCopy): the
    guest is then no longer in any list.
    """
    # As libvirt reads it: a comment within the name is left out, a blank stays.
    name = str(root.xpath("string(name)"))
    if not name:
        raise InputError("xml.name", "The domain has no name.")
    for character, word in (("/", "a slash"), ("\n", "a line break"), ("\r", "a carriage return")):
        if character in name:
            raise InputError(
                "xml.name",
                f"The domain's name has {word} in it, which libvirt refuses or does not keep.",
            )
    size = len(name.encode())
    if size > NAME_MAX_BYTES:
        raise InputError(
            "xml.name",
            f"The domain's name has {size} bytes; libvirt can keep no more than {NAME_MAX_BYTES} "
            "as a file's name.",
        )
    return name


def with_uuid(root: etree._Element, identity: str) -> bytes:
    """Return the XML of a domain that has no UUID, with this UUID."""
    element = etree.Element("uuid")
    element.text = identity
    for empty in root.findall("uuid"):
        _remove(empty)
    name = root.find("name")
    assert name is not None  # noqa: S101 - domain_name has found it
    _insert_after(name, element)
    return etree.tostring(root.getroottree(), encoding="UTF-8")


class _Prolog(Exception):  # noqa: N818 - no error: the document's prolog has been read
    """Raised to stop the parser when it has reached the root element."""


def _refuse_doctype(document: bytes) -> None:
    """Stop at a document type declaration before any entity of it is read."""

    def doctype(*_: object) -> None:
        raise _doctype()

    def root(*_: object) -> None:
        raise _Prolog

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = root
    try:
        parser.Parse(document, True)
    except _Prolog:
        pass
    except expat.ExpatError:
        pass  # lxml explains the error better, and knows more encodings


def _doctype() -> InputError:
    return InputError(
        "xml.doctype", "The domain XML has a document type declaration, which is not accepted."
    )


def _check(root: etree._Element) -> None:
    """Refuse a domain that libvirt would refuse, or whose memory cannot lie in files."""
    domain_name(root)
    virt_type = root.get("type", "")
    if virt_type not in VIRT_TYPES:
        raise InputError(
            "xml.hypervisor",
            f"The domain is of type {virt_type!r}; file-backed memory needs "
            f"{' or '.join(VIRT_TYPES)}.",
        )
    for tag in ("memoryBacking", "memory", "cpu"):
        if len(root.findall(tag)) > 1:
            raise InputError("xml.duplicate-element", f"The domain has more than one <{tag}>.")
    for tag in _OWNED:
        if len(root.findall(f"memoryBacking/{tag}")) > 1:
            raise InputError(
                "xml.duplicate-element", f"The domain's <memoryBacking> has more than one <{tag}>."
            )
    security = root.find("launchSecurity")
    if security is not None:
        # SEV pins every page (KVM_MEMORY_ENCRYPT_REG_REGION); SEV-SNP and TDX keep the pages in
        # guest_memfd.
        raise RefusedError(
            "xml.launch-security",
            f"The domain asks for launchSecurity of type {security.get('type', '')!r}: "
            "its memory is held in RAM and cannot lie in files of the store.",
            hint="Run this guest without file-backed memory.",
            facts={"element": "launchSecurity"},
        )


def _hugepages(root: etree._Element) -> RefusedError:
    path = next(
        path
        for path in ("memoryBacking/hugepages", "devices/memory/source/pagesize")
        if root.find(path) is not None
    )
    return RefusedError(
        "xml.hugepages",
        f"The domain asks for huge pages in {path}; they cannot come from files of the store.",
        hint=f"Remove {path.rpartition('/')[2]}, or run this guest without file-backed memory.",
        facts={"element": path},
    )


def _memory_backing(root: etree._Element) -> etree._Element:
    """Return the domain's memoryBacking; where there is none, insert one after its memory sizes."""
    present = root.find("memoryBacking")
    if present is not None:
        return present
    element = etree.Element("memoryBacking")
    before = [
        child for child in root if child.tag in {"name", "memory", "currentMemory", "maxMemory"}
    ]
    sizes = [child for child in before if child.tag != "name"]
    _insert_after((sizes or before)[-1], element)
    return element


def _set_source(memory_backing: etree._Element) -> list[Finding]:
    present = memory_backing.find("source")
    old = present.get("type") if present is not None else None
    _set(memory_backing, "source", {"type": "file"}, only=True)
    if old in {None, "file"}:
        return []
    return [_info("backing.source-replaced", f"The memory source {old!r} is replaced by 'file'.")]


def _set(parent: etree._Element, tag: str, attributes: dict[str, str], *, only: bool) -> None:
    """Give ``parent`` a child with these attributes.

    The child that is there is used; where there is none, a new one is inserted in its proper place.
    """
    element = parent.find(tag)
    if element is None:
        element = etree.Element(tag)
        _place(parent, element)
    elif only:
        for name in [name for name in element.attrib if name not in attributes]:
            del element.attrib[name]
    for name, value in attributes.items():
        element.set(name, value)


def _place(parent: etree._Element, element: etree._Element) -> None:
    """Insert an owned element after those that libvirt writes before it.

    All other elements keep their places.
    """
    earlier = _OWNED[: _OWNED.index(str(element.tag))]
    later = _OWNED[len(earlier) + 1 :]
    children = list(parent.iterchildren("*"))
    predecessors = [child for child in children if child.tag in earlier] or [
        child for child in children if child.tag not in later
    ]
    if predecessors:
        _insert_after(predecessors[-1], element)
    else:
        _insert_first(parent, element)


def _insert_after(sibling: etree._Element, element: etree._Element) -> None:
    """Insert an element with the indentation that stands before ``sibling``."""
    previous = sibling.getprevious()
    parent = sibling.getparent()
    assert parent is not None  # noqa: S101 - a child has a parent
    gap = (previous.tail if previous is not None else parent.text) or ""
    while (remark := sibling.getnext()) is not None and _remarks_on_line(sibling, remark):
        sibling = remark
    tail = sibling.tail
    sibling.addnext(element)
    element.tail = tail
    sibling.tail = gap if _INDENT.fullmatch(gap) else ""


def _remarks_on_line(element: etree._Element, following: etree._Element) -> bool:
    """Tell whether a comment stands behind ``element`` on its line."""
    return not isinstance(following.tag, str) and "\n" not in (element.tail or "")


def _insert_first(parent: etree._Element, element: etree._Element) -> None:
    """Insert the first child, one level deeper than ``parent`` where the document is indented."""
    first = next(iter(parent), None)
    text = parent.text or ""
    if first is not None:
        parent.insert(0, element)
        element.tail = text if _INDENT.fullmatch(text) else ""
        return
    previous, grandparent = parent.getprevious(), parent.getparent()
    gap = (
        previous.tail
        if previous is not None
        else grandparent.text
        if grandparent is not None
        else ""
    ) or ""
    parent.append(element)
    if _INDENT.fullmatch(gap):
        line = "\n" + gap.rpartition("\n")[2]
        parent.text = line + line[1:]
        element.tail = line


def _remove(element: etree._Element) -> None:
    """Take an element out, and leave the white space before its successor or the parent's end."""
    previous, parent = element.getprevious(), element.getparent()
    assert parent is not None  # noqa: S101 - a child has a parent
    tail = element.tail
    parent.remove(element)
    if previous is not None:
        previous.tail = tail
    else:
        parent.text = tail


def _overriders(root: etree._Element) -> Iterator[tuple[str, str, etree._Element]]:
    """Yield the NUMA cells and memory devices that may overrule memoryBacking.

    Each comes with a description and with the name of its access attribute.
    """
    for index, cell in enumerate(root.iterfind("cpu/numa/cell")):
        yield f"NUMA cell {cell.get('id', str(index))}", "memAccess", cell
    for device in root.iterfind("devices/memory"):
        if device.get("model") in _OWN_FILES:
            yield f"A memory device ({device.get('model')})", "access", device


def _drop_overrides(root: etree._Element, *, discard: bool) -> list[Finding]:
    """Remove what contradicts memoryBacking, so that memoryBacking decides.

    A private mapping of a file would keep what the guest writes in anonymous memory, besides its
    place on the store.
    """
    notes = []
    for name, access, element in _overriders(root):
        if element.get(access) == "private":
            del element.attrib[access]
            notes.append(
                _info(
                    "backing.private-replaced",
                    f"{name} asked for private memory; it is shared now.",
                )
            )
        if element.get("discard") not in {None, "yes" if discard else "no"}:
            notes.append(
                _info(
                    "backing.discard-replaced",
                    f"{name} had discard={element.get('discard')!r}; it follows memoryBacking now.",
                )
            )
            del element.attrib["discard"]
    return notes


def _remarks(root: etree._Element, guest: Guest) -> Iterator[Finding]:
    """Yield notes on what stays as it is, and yet bears on how the memory is backed."""
    if guest.locked:
        yield _warning(
            "backing.locked",
            "The domain locks its memory: all of it stays in RAM, besides its place on the store.",
        )
    if guest.hotplug:
        yield _info(
            "backing.hotplug",
            f"The guest is counted with its maxMemory, {to_mib(guest.promise)} MiB: "
            "no hook is called when memory is plugged in later.",
        )
    arguments = [element.get("value", "") for element in root.iter(_QEMU_ARG)]
    if any(
        value in {"-mem-path", "-mem-prealloc"} or "memory-backend" in value for value in arguments
    ):
        yield _warning(
            "backing.qemu-commandline",
            "qemu:commandline has arguments about memory; they are kept and may undo the file "
            "backing.",
        )


def _serialise(root: etree._Element, document: bytes) -> str:
    """Return UTF-8 text that ends with one line break.

    It has an XML declaration where the document had one.
    """
    declared = re.match(rb"(?:\xef\xbb\xbf)?<\?xml\s", document) is not None
    nodes = [*reversed(list(root.itersiblings(preceding=True))), root, *root.itersiblings()]
    lines = [etree.tostring(node, encoding="unicode", with_tail=False) for node in nodes]
    return (
        "\n".join((["<?xml version='1.0' encoding='UTF-8'?>"] if declared else []) + lines) + "\n"
    )


def _info(code: str, sentence: str) -> Finding:
    return Finding(code=code, severity=Severity.INFO, sentence=sentence)


def _warning(code: str, sentence: str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, sentence=sentence)


def _and(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
