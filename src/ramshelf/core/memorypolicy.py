"""The policy of the host that a guest comes to: when its memory is allocated, and whether QEMU discards it.

For the hook: standard library only, and every byte stays as it was but those of memoryBacking's allocation
and discard. libvirt lets these change while a guest is on its way; the source of its memory it does not
(virDomainDefCheckABIStability).
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from xml.parsers import expat

from ramshelf.core.errors import RefusedError
from ramshelf.core.guest import Guest

_IMMEDIATE = re.compile(rb"(mode\s*=\s*[\"'])immediate(?=[\"'])")
_MEMORY_BACKING = ["domain", "memoryBacking"]


def check_backing(guest: Guest, *, file_backed: bool, off: bool) -> None:
    """Refuse a guest whose memory is not backed as this host wants it: on its store, or (``off``) in no file.

    Raises RefusedError ``migration.becomes-file-backed`` or ``migration.becomes-anonymous``. A guest that
    needs a store where none is mounted is refused when its memory is to be reserved.
    """
    if file_backed and not guest.file_backed:
        code, why = "migration.becomes-file-backed", "is not in files, as this host wants it"
    elif off and guest.file_backed:
        code, why = "migration.becomes-anonymous", "is in files, and file-backed memory is off on this host"
    else:
        return
    raise RefusedError(
        code,
        f"The memory of guest {guest.name} {why}: libvirt cannot change that while it runs.",
        hint="Move it with 'ramshelf guest migrate --offline'.",
        facts={"guest": guest.name},
    )


def on_arrival(xml: bytes, *, discard: bool | None) -> bytes | None:
    """The domain XML with memory allocated on demand, and with or without discard (None: as it is).

    None where nothing is to be changed, or where it is not certain that nothing else would be: the XML is
    left as it is then.
    """
    try:
        xml.decode()  # libvirt writes UTF-8, and so are the places found
        places = _find(xml)
        changed = _edited(xml, places, discard=discard)
        if changed == xml or _else_than_policy(changed) != _else_than_policy(xml):
            return None
    except (expat.ExpatError, ET.ParseError, ValueError):
        return None
    return changed


@dataclass
class _Places:
    """Where elements begin and end, in bytes; ``last`` is the end of memoryBacking's last child."""

    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    last: int | None = None


def _find(xml: bytes) -> _Places:
    places = _Places()
    path: list[str] = []
    begins: list[int] = []
    parser = expat.ParserCreate()

    def start(name: str, _attributes: object) -> None:
        path.append(name)
        begins.append(parser.CurrentByteIndex)

    def end(name: str) -> None:
        begin = begins.pop()
        if path[:-1] == _MEMORY_BACKING:
            place = parser.CurrentByteIndex  # of its end tag; of an empty element the end
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
        edits.append((*span, _IMMEDIATE.sub(rb"\1ondemand", xml[slice(*span)])))
    present = places.spans.get("discard")
    if discard is False and present is not None:
        edits.append((_begin_of_line(xml, present[0]), present[1], b""))
    if discard is True and present is None and places.last is not None:
        first = min(begin for begin, _ in places.spans.values())
        edits.append((places.last, places.last, xml[_begin_of_line(xml, first) : first] + b"<discard/>"))
    for begin, end, text in sorted(edits, reverse=True):
        xml = xml[:begin] + text + xml[end:]
    return xml


def _begin_of_line(xml: bytes, index: int) -> int:
    """Where the white space before an element begins."""
    return len(xml[:index].rstrip())


def _else_than_policy(xml: bytes) -> str:
    """The document without what may change."""
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own output; expat limits entity expansion
    backing = root.find("memoryBacking")
    if backing is None:
        raise ValueError("there is no memoryBacking")
    for tag in ("allocation", "discard"):
        for element in backing.findall(tag):
            if tag == "allocation":
                element.attrib.pop("mode", None)
            else:
                backing.remove(element)
    return ET.canonicalize(ET.tostring(root), strip_text=True)
