"""The policy of the host that a guest comes to.

It decides when the guest's memory is allocated, and whether QEMU discards it. The hook uses this
module, so it needs only the standard library. Every byte stays as it was except those of
memoryBacking's allocation and discard. libvirt lets these change while a guest is on its way, but
not the source of its memory (virDomainDefCheckABIStability).
"""

from __future__ import annotations

from pyexpat import ExpatError

from ramshelf.core.domain.xml import Element, new_parser, parse, without_metadata
from ramshelf.core.errors import InputError, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ramshelf.core.domain.memory import Guest

_MEMORY_BACKING = ["domain", "memoryBacking"]


def check_backing(guest: Guest, *, file_backed: bool, off: bool) -> None:
    """Refuse a guest whose memory is not backed as this host wants it.

    It is to be on the host's store, or, where file backing is ``off``, in no file. Raises
    RefusedError ``migration.becomes-file-backed`` or ``migration.becomes-anonymous``. A guest that
    needs a store where none is mounted is refused when its memory is to be reserved.
    """
    if file_backed and not guest.file_backed:
        code, why = "migration.becomes-file-backed", "is not in files, as this host wants it"
    elif off and guest.file_backed:
        code, why = (
            "migration.becomes-anonymous",
            "is in files, and file-backed memory is off on this host",
        )
    else:
        return
    raise RefusedError(
        code,
        f"The memory of guest {guest.name} {why}: libvirt cannot change that while it runs.",
        hint="Move it with 'ramshelf guest migrate --offline'.",
        facts={"guest": guest.name},
    )


def on_arrival(xml: bytes, *, discard: bool | None) -> bytes | None:
    """Return the domain XML with memory allocated on demand, and with or without discard.

    ``discard`` None leaves discard as it is. The result is None where nothing is to be changed, or
    where it is not certain that nothing else would change: the XML is left as it is then.
    """
    try:
        xml.decode()  # libvirt writes UTF-8, and the places found hold for that alone
        changed = _edited(xml, _find(xml), discard=discard)
        if changed == xml or _else_than_policy(parse(changed)) != _else_than_policy(parse(xml)):
            return None
    except (ExpatError, InputError, ValueError):
        return None
    return changed


class _Places:
    """Where elements begin and end, in bytes; ``last`` is the end of memoryBacking's last child."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[int, int]] = {}
        self.last: int | None = None


def _find(xml: bytes) -> _Places:
    """Find the children of memoryBacking, as leniently as the whole is parsed."""
    try:
        return _places(xml)
    except ExpatError:
        return _places(without_metadata(xml))


def _places(xml: bytes) -> _Places:
    places = _Places()
    path: list[str] = []
    begins: list[int] = []
    parser = new_parser()

    def start(name: str, _attributes: object) -> None:
        path.append(name)
        begins.append(parser.CurrentByteIndex)

    def end(name: str) -> None:
        begin = begins.pop()
        if path[:-1] == _MEMORY_BACKING:
            place = parser.CurrentByteIndex  # where the end tag begins, or an empty element ends
            tagged = xml.startswith(f"</{name}".encode(), place)
            places.last = xml.index(b">", place) + 1 if tagged else place
            if path[-1] in places.spans:
                raise ValueError(f"{path[-1]} is there twice")
            places.spans[path[-1]] = (begin, places.last)
        path.pop()

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(xml, True)
    return places


def _edited(xml: bytes, places: _Places, *, discard: bool | None) -> bytes:
    edits: list[tuple[int, int, bytes]] = []
    if span := places.spans.get("allocation"):
        element = xml[slice(*span)]
        for quote in ("'", '"'):
            immediate, ondemand = f"mode={quote}immediate{quote}", f"mode={quote}ondemand{quote}"
            element = element.replace(immediate.encode(), ondemand.encode())
        edits.append((*span, element))
    present = places.spans.get("discard")
    if discard is False and present is not None:
        edits.append((_begin_of_line(xml, present[0]), present[1], b""))
    if discard is True and present is None and places.last is not None:
        first = min(begin for begin, _ in places.spans.values())
        edits.append(
            (places.last, places.last, xml[_begin_of_line(xml, first) : first] + b"<discard/>")
        )
    for begin, end, text in sorted(edits, reverse=True):
        xml = xml[:begin] + text + xml[end:]
    return xml


def _begin_of_line(xml: bytes, index: int) -> int:
    """Return where the white space before an element begins."""
    return len(xml[:index].rstrip())


def _else_than_policy(element: Element, parent: str = "") -> tuple[object, ...]:
    """Return what an element says besides what may change.

    What is in <metadata> is not looked at.
    """
    in_backing = parent == "memoryBacking"
    changes = {"mode"} if in_backing and element.tag == "allocation" else set()
    return (
        element.tag,
        tuple(pair for pair in element.attributes.items() if pair[0] not in changes),
        element.text.strip(),
        *(
            _else_than_policy(child, element.tag)
            for child in element.children
            if (element.tag, child.tag) != ("memoryBacking", "discard")
        ),
    )
