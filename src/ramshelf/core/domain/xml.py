"""Domain XML as a small tree, read as leniently as libvirt reads it.

libvirt copies <metadata> as it is from what its user defined (virXMLFormatMetadata), and libxml2
accepts more than an XML parser with namespaces does: prefixes that nobody declared, references to
entities that nobody declared (where a DTD was named), names of the fifth edition of XML 1.0. All
else is written by libvirt itself, with ``<`` escaped. What is in <metadata> means nothing here, so
it must not decide whether a guest is understood.

No external entity is loaded, and expat bounds what internal ones expand to. The hook uses this
module, so it does without ``xml.etree``.
"""

from __future__ import annotations

from pyexpat import ExpatError, ParserCreate

from ramshelf.core.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pyexpat import XMLParserType


class Element:
    """An element; paths to others below it are tags with ``/`` between.

    ``text`` is what stands before its first child. ``get`` returns an attribute by its name, or
    else None or the default that it is given.
    """

    __slots__ = ("attributes", "children", "get", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.text = ""
        self.children: list[Element] = []
        self.attributes = attributes
        self.get = attributes.get

    def each(self, path: str) -> Iterator[Element]:
        """Yield the elements at this path below it, in document order."""
        tag, _, rest = path.partition("/")
        for child in self.children:
            if child.tag == tag:
                if rest:
                    yield from child.each(rest)
                else:
                    yield child

    def find(self, path: str) -> Element | None:
        """Return the first element at this path, None where there is none."""
        return next(self.each(path), None)

    def findtext(self, path: str, default: str = "") -> str:
        """Return the text of the first element at this path, or the default where there is none."""
        found = self.find(path)
        return default if found is None else found.text


def parse(text: str | bytes) -> Element:
    """Return the document's root, without a domain's <metadata>.

    Raises InputError ``xml.malformed``.
    """
    encoding = "utf-8" if isinstance(text, str) else None  # for bytes, the document names it
    # Text from a file may stand for bytes that are not UTF-8: the parser refuses them.
    document = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    try:
        return _tree(document, encoding)
    except _MALFORMED as error:
        try:
            return _tree(without_metadata(document), encoding)
        except _MALFORMED:
            raise InputError(
                "xml.malformed", f"The domain XML cannot be parsed: {error}."
            ) from error


_MALFORMED = (ExpatError, LookupError, ValueError)
"""What a parser raises.

The latter two are for an encoding that the document names and Python does not have.
"""

_DEPTH = 256
"""How deep elements may be nested, as in libxml2 (xmlParserMaxDepth)."""


class _Builder:
    """The handlers that the parser calls; ``root`` holds the document's first element."""

    def __init__(self) -> None:
        self.root = Element("", {})
        self._open = [self.root]
        self._skipped = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        parent = self._open[-1]
        if self._skipped or (tag == "metadata" and parent.tag == "domain"):
            self._skipped += 1
            return
        if len(self._open) > _DEPTH:
            raise ExpatError("excessive depth")
        element = Element(tag, attributes)
        parent.children.append(element)
        self._open.append(element)

    def end(self, _tag: str) -> None:
        if self._skipped:
            self._skipped -= 1
        else:
            self._open.pop()

    def text(self, data: str) -> None:
        element = self._open[-1]
        if not self._skipped and not element.children:
            element.text += data

    def skipped_entity(self, name: str, _is_parameter: int) -> None:
        if not self._skipped:
            raise ExpatError(f"undefined entity {name}")


def new_parser(encoding: str | None = None) -> XMLParserType:
    """Make a parser without namespaces that passes over references to undeclared entities."""
    parser = ParserCreate(encoding)
    parser.UseForeignDTD(True)  # without this, such a reference ends the parse
    return parser


def without_metadata(document: bytes) -> bytes:
    """Return the document with blanks for its <metadata>, every other byte where it was.

    The element is found by its text, for libvirt escapes every other ``<``.
    """
    begins = [place for end in b"> \t\r\n" if (place := document.find(b"<metadata%c" % end)) >= 0]
    begin = min(begins, default=len(document))
    end = document.rfind(b"</metadata>") + len(b"</metadata>")
    return document[:begin] + b" " * (end - begin) + document[end:] if begin < end else document


def _tree(document: bytes, encoding: str | None) -> Element:
    builder = _Builder()
    parser = new_parser(encoding)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.SkippedEntityHandler = builder.skipped_entity
    parser.Parse(document, True)
    return builder.root.children[0]
