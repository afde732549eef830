"""parse_ini against what oslo.config itself makes of the same text."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oslo_config import cfg

from ramshelf.core.errors import ConfigError
from ramshelf.core.files.inifile import parse_ini

Sections = dict[str, dict[str, list[str]]]

# Lines near the grammar's edges come up often enough only when they are built from such words.
_word = st.sampled_from(
    [
        "[",
        "]",
        "libvirt",
        "LIBVIRT",
        "DEFAULT",
        "default",
        "=",
        ":",
        " ",
        "\t",
        "#",
        ";",
        '"',
        "'",
        "a",
        "0",
        "\f",
    ]
)
_line = st.lists(_word, max_size=6).map("".join)
_texts = st.lists(_line, max_size=8).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r"]).map(lambda end: end.join(lines))
)


def by_oslo(text: str) -> Sections | None:
    """What oslo.config's parser makes of the text; None if it refuses it.

    The names of sections are normalized.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.conf")
        path.write_bytes(text.encode())
        normalized: Sections = {}
        parser = cfg.ConfigParser(str(path), {})
        parser._add_normalized(normalized)  # noqa: SLF001 - what _parse_file does
        try:
            parser.parse()
        except cfg.ParseError:
            return None
        return {name: section for name, section in normalized.items() if section}


def by_us(text: str) -> Sections | None:
    sections: Sections = {}
    try:
        for setting in parse_ini(text, "x.conf"):
            sections.setdefault(setting.section, {}).setdefault(setting.key, []).append(
                setting.value
            )
    except ConfigError:
        return None
    return sections


@given(_texts)
@example("[a]\nb = 1\n# comment\n  more\n")
@example('[a]\nb = "\n')
@example("[ a ]\nb = ' 5 '\n c\n")
@example("b = 1\n")
@example("[a]\n= 1\n")
@example("[]\n")
def test_reads_what_oslo_config_reads(text: str) -> None:
    assert by_us(text) == by_oslo(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        settings = parse_ini(text, "/etc/nova/nova.conf")
    except ConfigError:
        return
    assert all(setting.key and setting.section and setting.line for setting in settings)


def test_a_setting_knows_where_it_stands() -> None:
    first, second = parse_ini("[DEFAULT]\n\nmy_ip = ::1\n[libvirt]\nvirt_type: qemu\n", "nova.conf")
    assert str(first) == "nova.conf line 3: [DEFAULT] my_ip = ::1"
    assert (second.name, second.value, second.line) == ("libvirt.virt_type", "qemu", 5)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[libvirt\n", 1, "a section must be written [NAME]"),
        ("[a]\n  b\n", 2, "a continuation line continues nothing"),
        ("[a]\nfile_backed_memory\n", 2, "there is no KEY = VALUE"),
        ("\nb = 1\n\n[a]\n", 2, "a key stands before the first section"),
    ],
)
def test_malformed_text_is_named_by_line(text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ini(text, "nova.conf")
    assert caught.value.sentence == f"nova.conf line {line}: {what}."
