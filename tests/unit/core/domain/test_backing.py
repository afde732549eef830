"""core/domain/backing: what is set, what is kept, what is refused."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ramshelf.core.domain.backing import (
    LIKE_NOVA,
    MAX_BYTES,
    NAME_MAX_BYTES,
    AllocationMode,
    Applied,
    Backing,
    Discard,
    Support,
    decide_discard,
    domain_name,
    leave_alone,
    make_anonymous,
    make_file_backed,
    parse_document,
)
from ramshelf.core.errors import InputError, RamshelfError, RefusedError

TMPFS = Support(libvirt=(9, 0, 0), qemu=(7, 2, 0), kernel=(6, 1, 0), fstype="tmpfs")
SIZE = "<memory unit='MiB'>512</memory>"
ONDEMAND = Backing(discard=Discard.NO)
QEMU_NS = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"


def domain(
    inside: str = SIZE, attributes: str = "type='kvm'", name: str = "<name>web</name>"
) -> bytes:
    return f"<domain {attributes}>{name}{inside}</domain>".encode()


def applied(inside: str, backing: Backing = ONDEMAND) -> Applied:
    return make_file_backed(domain(inside), backing, TMPFS)


def memory_backing(xml: str) -> str:
    match = re.search("<memoryBacking.*</memoryBacking>", xml, re.DOTALL)
    assert match is not None
    return match[0]


def codes(result: Applied) -> set[str]:
    return {note.code for note in result.notes}


def test_a_guest_without_backing_gets_it_after_its_memory_sizes() -> None:
    xml = applied(f"{SIZE}<currentMemory>524288</currentMemory><vcpu>1</vcpu>").xml
    assert xml.index("</currentMemory>") < xml.index("<memoryBacking>") < xml.index("<vcpu>")
    assert (
        memory_backing(xml)
        == '<memoryBacking><source type="file"/><access mode="shared"/><allocation'
        ' mode="ondemand"/>'
        "</memoryBacking>"
    )


def test_nova_gets_its_own_element() -> None:
    xml = applied(f"{SIZE}<memoryBacking><allocation threads='8'/></memoryBacking>", LIKE_NOVA).xml
    assert (
        memory_backing(xml)
        == '<memoryBacking><source type="file"/><access mode="shared"/><allocation'
        ' mode="immediate"/>'
        "<discard/></memoryBacking>"
    )


@pytest.mark.parametrize("source", ["memfd", "anonymous"])
def test_another_source_is_replaced_and_said(source: str) -> None:
    result = applied(f"{SIZE}<memoryBacking><source type='{source}'/><discard/></memoryBacking>")
    assert '<source type="file"/>' in result.xml
    assert "<discard/>" not in result.xml
    assert "backing.source-replaced" in codes(result)
    assert result.guest.file_bytes == 512 << 20


def test_other_children_of_memory_backing_stay_before_the_source() -> None:
    result = applied(f"{SIZE}<memoryBacking><nosharepages/><!-- why --><locked/></memoryBacking>")
    assert memory_backing(result.xml).startswith(
        '<memoryBacking><nosharepages/><!-- why --><locked/><source type="file"/>'
    )
    assert "backing.locked" in codes(result)


def test_prealloc_threads_are_kept() -> None:
    backing = Backing(allocation=AllocationMode.IMMEDIATE, discard=Discard.NO)
    result = applied(f"{SIZE}<memoryBacking><allocation threads='8'/></memoryBacking>", backing)
    assert '<allocation threads="8" mode="immediate"/>' in result.xml


def test_missing_elements_go_between_those_that_are_there() -> None:
    result = applied(
        f"{SIZE}<memoryBacking><source type='file'/><discard/></memoryBacking>",
        Backing(discard=Discard.YES),
    )
    children = [child.tag for child in etree.fromstring(memory_backing(result.xml))]
    assert children == ["source", "access", "allocation", "discard"]


def test_the_indentation_is_the_document_s_own() -> None:
    document = (
        b"<domain type='kvm'>\n    <name>web</name>\n    <memory>9</memory> <!-- MiB?"
        b" -->\n</domain>"
    )
    assert (
        make_file_backed(document, ONDEMAND, TMPFS).xml
        == '<domain type="kvm">\n    <name>web</name>\n    <memory>9</memory> <!-- MiB? -->\n'
        '    <memoryBacking>\n        <source type="file"/>\n        <access mode="shared"/>\n'
        '        <allocation mode="ondemand"/>\n    </memoryBacking>\n</domain>\n'
    )


def test_private_cells_and_devices_would_keep_their_memory_beside_the_store() -> None:
    result = applied(
        f"{SIZE}<maxMemory slots='2' unit='GiB'>1</maxMemory><cpu><numa><cell id='0' "
        "memory='262144' memAccess='private' discard='yes'/><cell id='1' memory='131072' "
        "memAccess='shared'/></numa></cpu><devices><memory model='dimm' "
        "access='private'><target><size>131072</size><node>0</node></target></memory></devices>"
    )
    assert "private" not in result.xml
    assert "discard" not in result.xml
    assert 'memAccess="shared"' in result.xml
    assert codes(result) == {
        "backing.private-replaced",
        "backing.discard-replaced",
        "backing.hotplug",
    }
    assert result.guest.promise == 1 << 30


def test_devices_with_files_of_their_own_stay() -> None:
    device = (
        '<memory model="nvdimm" access="private"><source><path>/dev/pmem0</path></source>'
        "<target><size>131072</size><node>0</node></target></memory>"
    )
    assert device in applied(f"{SIZE}<devices>{device}</devices>").xml


def test_vhost_user_and_foreign_namespaces_stay() -> None:
    inside = (
        SIZE + '<metadata><app:x xmlns:app="urn:x"'
        ' app:memoryBacking="1"><memoryBacking/></app:x></metadata><devices><interface'
        ' type="vhostuser"><source type="unix" path="/run/v"'
        ' mode="client"/></interface></devices><qemu:commandline><qemu:arg'
        " value='-mem-path'/></qemu:commandline>"
    )
    result = make_file_backed(domain(inside, f"type='kvm' {QEMU_NS}"), ONDEMAND, TMPFS)
    assert '<app:x xmlns:app="urn:x" app:memoryBacking="1"><memoryBacking/></app:x>' in result.xml
    assert '<qemu:arg value="-mem-path"/>' in result.xml
    assert "backing.qemu-commandline" in codes(result)


def test_declaration_comments_and_encoding() -> None:
    document = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<!-- vor -->\n".encode(
        "latin-1"
    ) + domain(SIZE, name="<name>weiß</name>").decode().encode("latin-1")
    xml = make_file_backed(document, ONDEMAND, TMPFS).xml
    assert xml.startswith("<?xml version='1.0' encoding='UTF-8'?>\n<!-- vor -->\n<domain")
    assert "weiß" in xml


def test_cdata_and_processing_instructions_stay() -> None:
    inside = SIZE + "<description><![CDATA[a < b]]></description><?keep this?>"
    assert "<![CDATA[a < b]]></description><?keep this?>" in applied(inside).xml


def test_what_is_right_already_is_not_changed() -> None:
    once = applied(SIZE)
    again = make_file_backed(once.xml.encode(), ONDEMAND, TMPFS)
    assert once.changed
    assert not again.changed
    assert again.xml == once.xml


PAGED_DIMM = (
    "<devices><memory model='dimm'><source><pagesize unit='MiB'>2</pagesize></source>"
    "<target><size>131072</size></target></memory></devices>"
)


@pytest.mark.parametrize(
    ("inside", "element"),
    [
        (f"{SIZE}<memoryBacking><hugepages/></memoryBacking>", "memoryBacking/hugepages"),
        (
            (
                f"{SIZE}<memoryBacking><hugepages><page size='1' "
                "unit='GiB'/></hugepages></memoryBacking>"
            ),
            "memoryBacking/hugepages",
        ),
        (
            f"{SIZE}{PAGED_DIMM}",
            "devices/memory/source/pagesize",
        ),
    ],
)
def test_huge_pages_are_refused_by_the_name_of_their_element(inside: str, element: str) -> None:
    with pytest.raises(RefusedError, match=element) as caught:
        applied(inside)
    assert caught.value.code == "xml.hugepages"
    assert caught.value.facts == {"element": element}


def test_pages_of_the_ordinary_size_are_no_huge_pages() -> None:
    inside = f"{SIZE}<memoryBacking><hugepages><page size='4'/></hugepages></memoryBacking>"
    assert applied(inside).guest.file_bytes == 512 << 20


BILLION_LAUGHS = (
    "<!DOCTYPE domain [<!ENTITY a 'ha'>"
    + "".join(f"<!ENTITY a{n} '{f'&a{n - 1 if n > 1 else str()};' * 10}'>" for n in range(1, 10))
    + "]><domain type='kvm'><name>&a9;</name></domain>"
)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "xml.empty"),
        (b" \n\t", "xml.empty"),
        (b"not XML at all", "xml.malformed"),
        (b"<domain", "xml.malformed"),
        (b"\0\0\0\0", "xml.malformed"),
        (domain() + b"\0", "xml.malformed"),
        (domain(name="<name>a\0b</name>"), "xml.malformed"),
        (b"<domain type='kvm'><name>\xff</name></domain>", "xml.malformed"),
        (b"<?xml version='1.0' encoding='UTF-16'?>" + domain(), "xml.malformed"),
        (b"<a>" * 5000, "xml.malformed"),
        (b"<domain>" + b" " * MAX_BYTES + b"</domain>", "xml.too-large"),
        (BILLION_LAUGHS.encode(), "xml.doctype"),
        (BILLION_LAUGHS.encode("utf-16"), "xml.doctype"),
        (b"<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>" + domain(), "xml.doctype"),
        (
            b"<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
            + domain(name="<name>&x;</name>"),
            "xml.doctype",
        ),
        (b"<?xml version='1.0' encoding='cp037'?>", "xml.malformed"),
        (domain() + b"\n<?xml version='1.0'?>\n" + domain(), "xml.several-documents"),
        (domain() + domain(), "xml.several-documents"),
        (b"<domainsnapshot>" + domain() + b"</domainsnapshot>", "xml.not-a-domain"),
        (b"<domstatus>" + domain() + b"</domstatus>", "xml.not-a-domain"),
        (b"<domain xmlns='urn:x' type='kvm'/>", "xml.not-a-domain"),
        (domain(attributes="type='xen'"), "xml.hypervisor"),
        (domain(attributes="type='lxc'"), "xml.hypervisor"),
        (domain(attributes=""), "xml.hypervisor"),
        (domain(name=""), "xml.name"),
        (domain(name="<name/>"), "xml.name"),
        (domain(name="<name>a/b</name>"), "xml.name"),
        (domain(name="<name>a\nb</name>"), "xml.name"),
        (domain(name="<name>a&#13;</name>"), "xml.name"),
        (domain(name=f"<name>{'x' * 300}</name>"), "xml.name"),
        (domain(name=f"<name>{'ß' * 124}</name>"), "xml.name"),
        (domain(""), "xml.memory"),
        (domain("<memory>0</memory>"), "xml.memory"),
        (domain("<memory>many</memory>"), "xml.memory"),
        (domain("<memory>-5</memory>"), "xml.memory"),
        (domain("<memory unit='furlong'>5</memory>"), "xml.memory"),
        (domain(f"{SIZE}<memoryBacking/><memoryBacking/>"), "xml.duplicate-element"),
        (domain(f"{SIZE}{SIZE}"), "xml.duplicate-element"),
        (
            domain(
                f"{SIZE}<memoryBacking><source type='file'/><source type='memfd'/></memoryBacking>"
            ),
            "xml.duplicate-element",
        ),
        (domain(f"{SIZE}<launchSecurity type='sev'/>"), "xml.launch-security"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(document: bytes, code: str) -> None:
    with pytest.raises(RamshelfError) as caught:
        make_file_backed(document, ONDEMAND, TMPFS)
    assert caught.value.code == code
    assert caught.value.sentence.endswith(".")
    assert "\n" not in caught.value.sentence


def test_the_longest_name() -> None:
    name = "x" * NAME_MAX_BYTES
    assert make_file_backed(domain(name=f"<name>{name}</name>"), ONDEMAND, TMPFS).guest.name == name


@pytest.mark.parametrize(
    ("written", "name"),
    [("web ", "web "), ("we<!-- remark -->b", "web"), ("<![CDATA[<&>]]>", "<&>")],
)
def test_a_name_is_all_the_text_of_its_element(written: str, name: str) -> None:
    document = domain(name=f"<name>{written}</name>")
    assert (
        domain_name(parse_document(document))
        == make_file_backed(document, ONDEMAND, TMPFS).guest.name
        == name
    )


def test_a_doctype_in_a_comment_is_none() -> None:
    assert "<!-- <!DOCTYPE x> -->" in applied(f"{SIZE}<!-- <!DOCTYPE x> -->").xml


def test_memory_may_stand_in_numa_cells_alone() -> None:
    cells = "<cpu><numa><cell memory='1' unit='GiB'/></numa></cpu>"
    assert applied(f"<memory>0</memory>{cells}").guest.memory == 1 << 30
    assert applied(cells).guest.memory == 1 << 30


def support(fstype: str | None, kernel: int, libvirt: int = 4, qemu: int = 10) -> Support:
    """Linux 6.``kernel``, libvirt 4.``libvirt``, QEMU 2.``qemu``."""
    return Support(libvirt=(4, libvirt, 0), qemu=(2, qemu, 0), kernel=(6, kernel, 0), fstype=fstype)


@pytest.mark.parametrize(
    ("wish", "support", "expected"),
    [
        (Discard.NO, support("tmpfs", 1), (False, None)),
        (Discard.YES, Support(), (True, None)),
        (Discard.YES, support("xfs", 18), (True, "discard.flushes")),
        (Discard.AUTO, support("tmpfs", 1), (True, None)),
        (Discard.AUTO, support("tmpfs", 1, libvirt=3), (False, "discard.unsupported")),
        (Discard.AUTO, support("tmpfs", 1, qemu=9), (False, "discard.unsupported")),
        (Discard.AUTO, support("xfs", 18), (False, "discard.flushes")),
        (Discard.AUTO, support("ext4", 13), (False, "discard.flushes")),
        (Discard.AUTO, support("ext4", 14), (True, None)),
        (Discard.AUTO, support(None, 14), (False, "discard.unknown")),
        (Discard.AUTO, Support(kernel=(6, 14, 0), fstype="tmpfs"), (False, "discard.unknown")),
    ],
)
def test_discard(wish: Discard, support: Support, expected: tuple[bool, str | None]) -> None:
    decided, note = decide_discard(wish, support)
    assert (decided, note.code if note else None) == expected


def test_discard_is_refused_where_it_is_asked_for_and_cannot_be() -> None:
    with pytest.raises(RefusedError) as caught:
        decide_discard(Discard.YES, Support(libvirt=(4, 3, 9), qemu=(2, 10, 0)))
    assert caught.value.code == "discard.unsupported"


def test_off_leaves_the_domain_alone() -> None:
    result = leave_alone(domain(f"{SIZE}<memoryBacking><hugepages/></memoryBacking>"))
    assert codes(result) == {"config.off"}
    assert "source" not in result.xml


WORDS = st.text("abz09 &<>\"'äß\t\n", max_size=8)
SPACE = st.sampled_from(["", "\n  ", " ", "\n\n\t", "<!-- c -->", "\n  <!-- c -->\n  ", "<?p i?>"])
OTHERS = st.sampled_from([
    "<vcpu placement='static'>2</vcpu>",
    "<os><type arch='x86_64' machine='q35'>hvm</type></os>",
    f"<qemu:commandline {QEMU_NS}><qemu:arg value='-s'/></qemu:commandline>",
    (
        "<metadata><x:y xmlns:x='urn:x' x:source='file'><source type='memfd'/><discard/></x:y>"
        "</metadata>"
    ),
    (
        "<devices><disk type='file' device='disk'><source file='/a'/><access mode='x'/></disk>"
        "</devices>"
    ),
    "<description>a &lt; b <![CDATA[<memoryBacking/>]]></description>",
    "<title/>",
])  # fmt: skip
BACKINGS = st.lists(
    st.sampled_from([
        "<source type='memfd'/>",
        "<source type='anonymous'/>",
        "<access mode='private'/>",
        "<allocation mode='immediate' threads='2'/>",
        "<discard/>",
        "<nosharepages/>",
        "<locked/>",
    ]),
    unique_by=lambda text: text.split()[0].strip("</>"),
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    parts = ["<name>g</name>", SIZE, *draw(st.lists(OTHERS, max_size=5))]
    if draw(st.booleans()):
        inner = "".join(draw(SPACE) + part for part in draw(BACKINGS))
        parts.append(f"<memoryBacking>{inner}{draw(SPACE)}</memoryBacking>")
    parts = draw(st.permutations(parts))
    body = "".join(draw(SPACE) + part for part in parts) + draw(SPACE)
    return f"<domain type='qemu'>{body}</domain>".encode()


def without_backing(xml: bytes) -> bytes:
    """The document without memoryBacking: all else, white space included."""
    root = etree.fromstring(xml, etree.XMLParser(strip_cdata=False))
    for element in root.findall("memoryBacking"):
        previous = element.getprevious()
        if previous is None:
            root.text = element.tail
        else:
            previous.tail = element.tail
        element.tail = None
        root.remove(element)
    return etree.tostring(root)


def kept_children(xml: bytes) -> list[bytes]:
    """What of memoryBacking is not owned, in its order."""
    return [
        etree.tostring(child, with_tail=False)
        for child in etree.fromstring(xml).iterfind("memoryBacking/*")
        if child.tag not in {"source", "access", "allocation", "discard"}
    ]


@given(documents(), st.sampled_from([ONDEMAND, Backing(), LIKE_NOVA]))
def test_all_else_stays_and_a_second_time_changes_nothing(
    document: bytes, backing: Backing
) -> None:
    result = make_file_backed(document, backing, TMPFS)
    output = result.xml.encode()
    assert without_backing(output) == without_backing(document)
    assert kept_children(output) == kept_children(document)
    assert result.guest.source == "file"
    assert result.guest.access == "shared"
    assert result.guest.allocation == backing.allocation.value
    assert result.guest.discard == (backing.discard is not Discard.NO)
    assert make_file_backed(output, backing, TMPFS).xml == result.xml
    root = etree.fromstring(output)
    owned = [child.tag for child in root.iterfind("memoryBacking/*")]
    assert len(owned) == len(set(owned))


@given(st.binary(max_size=200))
def test_anything_is_refused_with_a_sentence_or_taken(document: bytes) -> None:
    with suppress(InputError):
        make_file_backed(document, ONDEMAND, TMPFS)


@given(WORDS)
def test_text_survives(text: str) -> None:
    root = etree.fromstring(domain())
    etree.SubElement(root, "description", note=text).text = text
    output = etree.fromstring(make_file_backed(etree.tostring(root), ONDEMAND, TMPFS).xml.encode())
    description = output.find("description")
    assert description is not None
    assert (description.text or "") == text
    assert description.get("note") == text


ANONYMOUS = """\
<domain type='kvm'>
  <name>guest</name>
  <memory unit='GiB'>1</memory>{}
  <cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'{}/></numa></cpu>
  <devices/>
</domain>
"""


@pytest.mark.parametrize(
    ("backing", "left"),
    [
        (
            (
                "\n  <memoryBacking><source type='file'/><access "
                "mode='shared'/><discard/></memoryBacking>"
            ),
            "",
        ),
        (
            (
                "\n  <memoryBacking>\n    <nosharepages/>\n    <source type='file'/>\n "
                " </memoryBacking>"
            ),
            "\n  <memoryBacking>\n    <nosharepages/>\n  </memoryBacking>",
        ),
        ("", ""),
    ],
)
def test_memory_is_made_anonymous(backing: str, left: str) -> None:
    document = ANONYMOUS.format(backing, " memAccess='shared' discard='yes'").encode()
    removed = make_anonymous(document)
    assert removed.xml == ANONYMOUS.format(left, "").replace("'", '"')  # as lxml writes it
    assert not removed.guest.file_backed
    assert make_anonymous(removed.xml.encode()).changed is False


@pytest.mark.parametrize(
    "device",
    [
        "<filesystem type='mount'><driver type='virtiofs'/></filesystem>",
        "<interface type='vhostuser'/>",
        "<disk type='vhostuser'/>",
    ],
)
def test_memory_that_is_shared_does_not_become_anonymous(device: str) -> None:
    document = (
        ANONYMOUS.format("", "").replace("<devices/>", f"<devices>{device}</devices>").encode()
    )
    with pytest.raises(RefusedError) as caught:
        make_anonymous(document)
    assert caught.value.code == "xml.shared-memory"
