"""Domain XML as a small tree, read as leniently as libvirt reads it.

libvirt copies <metadata> as it is from what its user defined (virXMLFormatMetadata), and libxml2 is
content with more than an XML parser with namespaces is: prefixes that nobody declared, references
to entities that nobody declared (where a DTD was named), names of the fifth edition of XML 1.0. All
else libvirt writes by itself, with ``<`` escaped. What is in <metadata> means nothing here, so it
must not decide whether a guest is understood.

No external entity is loaded, and expat bounds what internal ones expand to. For the hook: no
``xml.etree``.
"""

from __future__ import annotations

from pyexpat import ExpatError, ParserCreate

from ramshelf.core.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pyexpat import XMLParserType


class Element:
    """An element; ``text`` is what stands before its first child. Paths are tags with ``/`` between.

    ``get`` gives an attribute by its name, or None, or the default that it is given.
    """

    __slots__ = ("attributes", "children", "get", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.text = ""
        self.children: list[Element] = []
        self.attributes = attributes
        self.get = attributes.get

    def each(self, path: str) -> Iterator[Element]:
        """The elements at this path below it, in document order."""
        tag, _, rest = path.partition("/")
        for child in self.children:
            if child.tag == tag:
                if rest:
                    yield from child.each(rest)
                else:
                    yield child

    def find(self, path: str) -> Element | None:
        """The first element at this path."""
        return next(self.each(path), None)

    def findtext(self, path: str, default: str = "") -> str:
        """The text of the first element at this path."""
        found = self.find(path)
        return default if found is None else found.text


def parse(text: str | bytes) -> Element:
    """The document's root, without a domain's <metadata>. Raises InputError ``xml.malformed``."""
    encoding = "utf-8" if isinstance(text, str) else None  # of bytes the document says it
    # Text from a file may stand for bytes that are no UTF-8: the parser refuses them.
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
"""What a parser raises; the latter two for an encoding that the document names, and Python has not.
"""

_DEPTH = 256
"""Elements within one another, as in libxml2 (xmlParserMaxDepth)."""


class _Builder:
    """What the parser calls; ``root`` is the document's first element."""

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
    """A parser without namespaces that passes over references to entities that are not declared."""
    parser = ParserCreate(encoding)
    parser.UseForeignDTD(True)  # else such a reference ends the parse
    return parser


def without_metadata(document: bytes) -> bytes:
    """The document with blanks for its <metadata>: every other byte stays where it was.

    It is found by the text: libvirt escapes every other ``<``.
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
