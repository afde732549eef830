"""What a host changes in the XML of a guest that comes to it, and nothing else."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.domain.memory import parse_guest
from ramshelf.core.errors import RefusedError
from ramshelf.core.migration.arrival import check_backing, on_arrival

TEMPLATE = """\
<?xml version='1.0'?>
<domain type='kvm'>
  <name>gäst</name><!-- <discard/> -->
  <metadata><m:memoryBacking xmlns:m='x'><allocation mode='immediate'/><discard/>\
</m:memoryBacking></metadata>
  <memoryBacking>
    {}
  </memoryBacking>
  <description>a &gt; b, <![CDATA[<memoryBacking><discard/></memoryBacking>]]></description>
</domain>
"""
FILE = "<source type='file'/>\n    <access mode='shared'/>"


def xml(children: str) -> bytes:
    return TEMPLATE.format(children).encode()


def apart(document: bytes) -> tuple[str, str]:
    """The document without its memoryBacking's children, and these."""
    head, _, rest = document.decode().partition("  <memoryBacking>")
    children, _, tail = rest.partition("</memoryBacking>\n  <description>")
    return head + tail, children


@pytest.mark.parametrize(
    ("before", "discard", "after"),
    [
        (
            f"{FILE}\n    <allocation mode='immediate'/>",
            False,
            f"{FILE}\n    <allocation mode='ondemand'/>",
        ),
        (f"{FILE}\n    <discard/>", False, FILE),
        (f"{FILE}<discard></discard>", False, FILE),
        (f"<discard/>\n    {FILE}", False, FILE),
        (FILE, True, f"{FILE}\n    <discard/>"),
        (
            f'{FILE}\n    <allocation threads="8" mode="immediate" ></allocation><discard />',
            None,
            f'{FILE}\n    <allocation threads="8" mode="ondemand" ></allocation><discard />',
        ),
        (
            "<nosharepages/><source type='file'/>",
            True,
            "<nosharepages/><source type='file'/><discard/>",
        ),
    ],
)
def test_allocation_and_discard_are_changed(
    before: str, after: str, *, discard: bool | None
) -> None:
    changed = on_arrival(xml(before), discard=discard)
    assert changed is not None
    outside, inside = apart(changed)
    assert outside == apart(xml(before))[0]
    assert "".join(inside.split()) == "".join(after.split())
    assert on_arrival(changed, discard=discard) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<domain>",
        b"<domain/>",
        b"<domain><memoryBacking/></domain>",
        xml(FILE),
        xml(f"{FILE}<allocation mode='ondemand'/>"),
        xml("<discard/><discard/>"),
        b"\xff\xfe<domain/>",
        b"<domstatus>" + xml(f"{FILE}<discard/>").partition(b"?>")[2] + b"</domstatus>",
        xml(f"{FILE}<discard/>")
        .decode()
        .replace("'1.0'", "'1.0' encoding='UTF-16'")
        .encode("utf-16"),
    ],
)
def test_where_nothing_is_to_be_done_or_anything_is_in_doubt_it_stays(document: bytes) -> None:
    assert on_arrival(document, discard=False) is None


@pytest.mark.parametrize(
    "metadata", ["<a:x xmlns:a='u'><b:y/></a:x>", "&foo;", "<\N{PILE OF POO}>ä</\N{PILE OF POO}>"]
)
def test_odd_metadata_does_not_keep_the_policy_away(metadata: str) -> None:
    document = (
        f"<domain><metadata>{metadata}</metadata><memoryBacking>{{}}</memoryBacking>"
        "<name>ü</name></domain>"
    )
    before, after = (
        document.format(text).encode()
        for text in (
            f"{FILE}<allocation mode='immediate'/><discard/>",
            f"{FILE}<allocation mode='ondemand'/>",
        )
    )
    assert on_arrival(before, discard=False) == after


CHILDREN = [
    "<source type='file'/>",
    "<access mode='shared'/>",
    "<discard/>",
    "<locked/>",
    "<!-- < -->",
    "\n  ",
]
CHILDREN += [
    "<allocation mode='immediate'/>",
    "<allocation mode='immediate'></allocation>",
    "<nosharepages/>",
]


@given(st.lists(st.sampled_from(CHILDREN), unique=True), st.sampled_from([True, False, None]))
def test_it_is_wellformed_and_as_wished(children: list[str], discard: bool | None) -> None:  # noqa: FBT001
    document = xml("".join(children))
    changed = on_arrival(document, discard=discard) or document
    backing = ET.fromstring(changed).find("memoryBacking")  # noqa: S314 - our own
    assert backing is not None
    if (
        discard is not None
        and len(backing)
        and "allocation" not in {child.tag for child in backing}
    ):
        assert (backing.find("discard") is not None) is (discard and len(backing) > 0)
    kept = [child for child in children if "discard" not in child and "allocation" not in child]
    assert all(child.encode() in changed for child in kept)


@pytest.mark.parametrize(
    ("children", "file_backed", "off", "code"),
    [
        (FILE, True, False, None),
        (FILE, False, False, None),  # refused when it is to be reserved
        (FILE, False, True, "migration.becomes-anonymous"),
        ("", True, False, "migration.becomes-file-backed"),
        ("", False, False, None),
        ("", False, True, None),
    ],
)
def test_a_guest_whose_backing_would_change_is_refused(
    children: str, code: str | None, *, file_backed: bool, off: bool
) -> None:
    guest = parse_guest(
        f"<domain><name>one</name><memory>1</memory><memoryBacking>{children}</memoryBacking></domain>"
    )
    if code is None:
        check_backing(guest, file_backed=file_backed, off=off)
    else:
        with pytest.raises(RefusedError) as refused:
            check_backing(guest, file_backed=file_backed, off=off)
        assert refused.value.code == code
