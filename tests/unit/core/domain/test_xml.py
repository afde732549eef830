"""Domain XML is understood wherever libvirt understands it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.domain.xml import parse
from ramshelf.core.errors import InputError
from ramshelf.core.units import MIB

DOMAIN = """<domain type='kvm' id='3'>
  <name>web </name>
  <uuid>124a0e0e-2e35-4173-a394-011b3351155a</uuid>
  {metadata}
  <memory unit='KiB'>262144</memory>
  <memoryBacking><source type='file'/></memoryBacking>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
</domain>
"""

METADATA = [
    "",
    "<metadata/>",
    "<metadata>text</metadata>",
    "<metadata><metadata>text</metadata></metadata>",
    "<metadata><memory>1</memory><devices><hostdev type='pci'/></devices></metadata>",
    "<metadata><a:x xmlns:a='urn:u'><b:y/></a:x></metadata>",  # a prefix that nobody declared
    "<metadata><a:b:c xmlns:a='urn:u' d:e='1'/></metadata>",
    # This is one attribute, twice.
    "<metadata><x a:y='1' b:y='2' xmlns:a='urn:u' xmlns:b='urn:u'/></metadata>",
    "<metadata><x xmlns:a=''/></metadata>",
    # The entity is of a DTD that libvirt does not write.
    "<metadata><x y='a&foo;b'>&foo;</x></metadata>",
    "<metadata><\N{PILE OF POO}/></metadata>",  # a name of the fifth edition of XML 1.0
    "<metadata a='1'><\N{PILE OF POO}>&foo;<![CDATA[</metadata>]]></\N{PILE OF POO}></metadata>",
    "<metadata>\n<!-- </metadata><memory> --><?a </metadata>?><\N{PILE OF POO}/></metadata>",
    "<metadata><![CDATA[<metadata><memory unit='GiB'>1</memory>]]></metadata>",
]


@pytest.mark.parametrize("metadata", METADATA)
@pytest.mark.parametrize(
    "around", ["{}", "<domstatus state='running'><monitor path='/x'/>{}</domstatus>"]
)
@pytest.mark.parametrize("binary", [False, True])
def test_metadata_says_nothing_of_a_guest(metadata: str, around: str, *, binary: bool) -> None:
    text = around.format(DOMAIN.format(metadata=metadata))
    guest = parse_guest(text.encode() if binary else text)
    assert (guest.name, guest.promise, guest.pinned) == ("web ", 256 * MIB, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<domain>",
        "<domain><name>a</domain>",
        "<domain><name>&foo;</name></domain>",  # Outside metadata libvirt writes no such thing.
        "<domain><\N{PILE OF POO}/></domain>",
        "<domain><\N{PILE OF POO}/><metadata>a</metadata></domain>",
        (
            "<domain><metadata_cache><\N{PILE OF POO}/></metadata_cache>"
            "<metadata>a</metadata></domain>"
        ),
        "<domain><metadata><\N{PILE OF POO}></metadata>",
        "<domain>\0</domain>",
        "<domain>\udcff</domain>",
        "<domain></domain><domain/>",
        "<a>" * 257 + "</a>" * 257,
    ],
)
def test_what_is_broken_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.code == "xml.malformed"


@pytest.mark.parametrize("encoding", ["shift_jis", "no such", "utf-7", "base64"])
def test_an_encoding_that_is_not_known_is_refused(encoding: str) -> None:
    with pytest.raises(InputError):
        parse(f"<?xml version='1.0' encoding='{encoding}'?><domain/>".encode())


PIECES = [
    "<domain>",
    "</domain>",
    "<metadata>",
    "</metadata>",
    "<metadata",
    "<memory unit='KiB'>1",
    "</memory>",
]
PIECES += [
    "&foo;",
    "&#0;",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?x",
    "?>",
    "<!DOCTYPE d [",
    "<a:b c='",
    "'/>",
    "\0",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text() | st.binary())
def test_whatever_it_is_it_is_read_or_refused(text: str | bytes) -> None:
    with contextlib.suppress(InputError):
        parse_guest(text)


def test_the_driver_of_a_disk_has_a_cache_of_metadata() -> None:
    """An element whose name begins alike is not cut out with <metadata>."""
    cache = "<disk><metadata_cache>1</metadata_cache></disk>"
    domain = "<domain><metadata><\N{PILE OF POO}/></metadata><name>a</name></domain>"
    root = parse(f"<domstatus>{cache}{domain}</domstatus>")
    assert root.findtext("disk/metadata_cache") == "1"
    assert root.findtext("domain/name") == "a"


def test_paths_give_what_lies_there_in_order() -> None:
    root = parse("<d>\n<a><b c='1'>x<e/>y</b></a><b c='2'/><a><b c='3'>z</b><b c='4'/></a></d>")
    assert [each.get("c") for each in root.each("a/b")] == ["1", "3", "4"]
    assert root.findtext("a/b") == "x"
    assert root.findtext("a/x", "none") == "none"
    assert root.find("b/e") is None
    assert (root.tag, root.text, root.get("x"), root.get("x", "y")) == ("d", "\n", None, "y")


def test_no_external_entity_is_loaded() -> None:
    head = (
        "<!DOCTYPE domain SYSTEM 'file:///etc/hostname' [<!ENTITY x SYSTEM "
        "'file:///etc/hostname'>]>"
    )
    with pytest.raises(InputError):
        parse(f"{head}<domain><name>&y;</name></domain>")
    assert parse(f"{head}<domain><name>a&x;</name></domain>").findtext("name") == "a"


def test_entities_that_the_text_declares_are_expanded() -> None:
    assert parse("<!DOCTYPE d [<!ENTITY x 'y'>]><d>a&x;b</d>").text == "ayb"


def test_what_entities_expand_to_is_bounded() -> None:
    entities = "".join(
        f"<!ENTITY l{number} '{f'&l{number - 1};' * 10}'>" for number in range(1, 10)
    )
    head = f"<!DOCTYPE d [<!ENTITY l0 '{'ha' * 50}'>{entities}]>"
    with pytest.raises(InputError):
        parse(f"{head}<domain><name>&l9;</name></domain>")
    assert (
        parse(f"{head}<domain><metadata>&l9;</metadata><name>a</name></domain>").findtext("name")
        == "a"
    )
