"""The manual pages that the packages have."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ramshelf.cli import main
from ramshelf.system.options import OPTIONS

SCRIPT = Path(__file__).parents[2] / "scripts/manpages.py"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the pages' texts by name, with hyphens as they are shown."""
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, str(SCRIPT), str(directory)], check=True)
    return {path.name: path.read_text().replace("\\-", "-") for path in directory.iterdir()}


def commands(
    command: click.Command, words: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(command)
    children = command.list_commands(context) if isinstance(command, click.Group) else []
    found = [(words, command)]
    for name in children:
        assert isinstance(command, click.Group)
        child = command.get_command(context, name)
        assert child is not None
        found += commands(child, (*words, name))
    return found


def test_every_command_has_its_options_and_examples_on_the_page_of_its_noun(
    pages: dict[str, str],
) -> None:
    for words, command in commands(main.cli):
        page = pages["-".join(("ramshelf", *words[:1])) + ".1"]
        assert " ".join(("ramshelf", *words)) in page
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert re.search(rf"^\\fB.*{parameter.opts[-1]}\b", page, re.MULTILINE), parameter
        for line in re.findall(r"^ +(ramshelf .*)$", command.epilog or "", re.MULTILINE):
            assert not words or line in page


def test_every_option_of_the_configuration_is_on_its_page(pages: dict[str, str]) -> None:
    for group, options in OPTIONS.items():
        assert f".SH [{group}]\n" in pages["ramshelf.conf.5"]
        for option in options:
            assert f".TP\n\\fB{option.name}\\fR\n" in pages["ramshelf.conf.5"]


def test_a_page_refers_to_pages_that_there_are(pages: dict[str, str]) -> None:
    for text in pages.values():
        for name, section in re.findall(r"\\fB(ramshelf[\w.-]*)\\fR\((\d)\)", text):
            assert f"{name}.{section}" in pages


def test_no_line_of_a_page_begins_by_accident_as_a_request(pages: dict[str, str]) -> None:
    known = {"TH", "SH", "SS", "B", "PP", "TP", "RS", "RE", "br", "nf", "fi"}
    for text in pages.values():
        assert set(re.findall(r"^[.'](\S*)", text, re.MULTILINE)) <= known
