"""`ramshelf xml apply` as a filter, held against libvirt's own schema and parser."""

import json
from pathlib import Path

import pytest

from ramshelf.core.domain.backing import NAME_MAX_BYTES
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import store

INPUTS = sorted((Path(__file__).parents[1] / "golden/xml").glob("*.in.xml"))


@pytest.mark.parametrize("options", [[], ["--like-nova"]], ids=["default", "nova"])
@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_the_output_passes_libvirt_s_schema(path: Path, options: list[str]) -> None:
    output = ramshelf("xml", "apply", *options, stdin=path.read_text()).stdout
    run("virt-xml-validate", "-", "domain", stdin=output)


def anonymous(name: str = "one") -> str:
    return domain_xml(name, memory_backing="")


def test_libvirt_takes_the_output_and_sees_what_was_meant(libvirtd: Libvirtd) -> None:
    output = ramshelf("xml", "apply", "--discard", "no", stdin=anonymous()).stdout
    libvirtd.virsh("define", "--validate", "/dev/stdin", stdin=output)
    defined = libvirtd.virsh("dumpxml", "one").stdout
    assert (
        "  <memoryBacking>\n    <source type='file'/>\n    <access mode='shared'/>\n"
        "    <allocation mode='ondemand'/>\n  </memoryBacking>\n" in defined
    )
    assert ramshelf("xml", "apply", "--discard", "no", stdin=output).stdout == output


@pytest.mark.parametrize(("file_system", "discards"), [("tmpfs", True), ("xfs", False)])
def test_auto_looks_at_the_store(libvirtd: Libvirtd, file_system: str, *, discards: bool) -> None:  # noqa: ARG001
    with store(file_system):
        applied = ramshelf("xml", "apply", stdin=anonymous())
    assert ("<discard/>" in applied.stdout) is discards
    assert ("[discard.flushes]" in applied.stderr) is not discards


def test_without_a_host_there_is_no_discard(libvirtd: Libvirtd) -> None:
    libvirtd.kill()
    applied = ramshelf("xml", "apply", stdin=anonymous())
    assert "<discard/>" not in applied.stdout
    assert "[discard.unknown]" in applied.stderr


def test_json() -> None:
    document = json.loads(
        ramshelf("xml", "apply", "--like-nova", "--json", stdin=anonymous()).stdout
    )
    assert '<allocation mode="immediate"/>' in document["xml"]
    assert document["notes"] == []


def test_off_prints_what_it_was_given(tmp_path: Path) -> None:
    conf = tmp_path / "nova.conf"
    conf.write_text("[libvirt]\nvirt_type = qemu\n")
    applied = ramshelf("--config-file", str(conf), "xml", "apply", stdin=anonymous())
    assert applied.stdout == anonymous()
    assert "[config.off]" in applied.stderr


def test_two_documents_of_virt_install_are_refused() -> None:
    said = ramshelf("xml", "apply", stdin=anonymous() * 2, ok=(1,)).stderr
    assert "[xml.several-documents]" in said
    assert "--print-xml 2" in said


def test_a_document_of_50_mib_is_refused() -> None:
    large = "echo '<domain>'; head -c 50M /dev/zero | tr '\\0' ' '"
    ended = run("bash", "-c", f"({large}) | {RAMSHELF} xml apply", ok=(1,))
    assert "[xml.too-large]" in ended.stderr


def test_wrong_usage() -> None:
    said = ramshelf(
        "xml", "apply", "--like-nova", "--discard", "no", stdin=anonymous(), ok=(255,)
    ).stderr
    assert "[cli.usage]" in said
    assert "[xml.file]" in ramshelf("xml", "apply", "/nonexistent", ok=(1,)).stderr


def test_a_closed_pipe(tmp_path: Path) -> None:
    path = tmp_path / "guest.xml"
    path.write_text(anonymous())
    ended = run(
        "bash", "-c", f"(sleep 1; {RAMSHELF} xml apply --discard no {path}; echo $? >&2) | true"
    )
    assert ended.stderr == "1\n"


@pytest.mark.parametrize(("length", "status"), [(NAME_MAX_BYTES, 0), (NAME_MAX_BYTES + 1, 1)])
def test_the_longest_name_is_libvirt_s(libvirtd: Libvirtd, length: int, status: int) -> None:
    xml = anonymous("x" * length)
    libvirtd.virsh("define", "/dev/stdin", stdin=xml, ok=(status,))
    ramshelf("xml", "apply", "--discard", "no", stdin=xml, ok=(status,))


@pytest.mark.parametrize("name", ["a/b", "a\nb"])
def test_names_that_libvirt_refuses(libvirtd: Libvirtd, name: str) -> None:
    xml = anonymous().replace("<name>one</name>", f"<name>{name}</name>")
    libvirtd.virsh("define", "/dev/stdin", stdin=xml, ok=(1,))
    assert "[xml.name]" in ramshelf("xml", "apply", stdin=xml, ok=(1,)).stderr
