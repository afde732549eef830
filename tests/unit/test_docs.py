"""The documentation against the program."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from ramshelf.cli import main
from ramshelf.core import catalog
from ramshelf.core.requirements import DISCARD, FILE_BACKING

CHECKOUT = Path(__file__).parents[2]
TOP = ("README.md", "CHANGELOG.md", "SECURITY.md")
PAGES = [
    *(CHECKOUT / name for name in TOP),
    *(page for part in ("docs", "deploy") for page in sorted((CHECKOUT / part).rglob("*.md"))),
]
_CODE = re.compile(r"[a-z]+\.[a-z]+(-[a-z]+)*")
GROUPS = {
    "agent",
    "backing",
    "capacity",
    "cli",
    "config",
    "discard",
    "file",
    "guest",
    "hook",
    "host",
    "internal",
    "libvirt",
    "metrics",
    "migration",
    "placement",
    "store",
    "system",
    "tool",
    "xml",
}
NO_CODES = {"agent.lock", "hook.log", "placement.direct", "placement.objects", "store.lock"}


@pytest.mark.parametrize("script", ["reference.py", "figures.py"])
def test_the_pages_that_repeat_the_program_and_its_figures_are_up_to_date(script: str) -> None:
    argv = [sys.executable, str(CHECKOUT / "scripts" / script), "--check"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if "://" in target:
            continue
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"
    for target in re.findall(r'\b(?:src|srcset)="([^"]+)"', text):
        assert (page.parent / target).exists(), target


def test_readme_names_the_lowest_versions() -> None:
    text = (CHECKOUT / "README.md").read_text()
    for name, at_least, discard in (
        ("libvirt", FILE_BACKING.libvirt, DISCARD.libvirt),
        ("QEMU", FILE_BACKING.qemu, DISCARD.qemu),
    ):
        assert (
            f"| {name} | {at_least[0]}.{at_least[1]}; `discard` {discard[0]}.{discard[1]}" in text
        )
    python = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"| Python | {python.removeprefix('>=')}; " in text


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


def shown_commands() -> list[tuple[str, str]]:
    """Each ramshelf command that a page shows in an indented block, with the page's name."""
    return [
        (page.name, part.strip())
        for page in PAGES
        for line in re.findall(r"^ {4}\S.*", page.read_text(), re.MULTILINE)
        for part in re.split(r"[|;]|&&", line)
        if part.split()[:1] == ["ramshelf"]
    ]


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_shown_commands_exist(page: str, line: str) -> None:  # noqa: ARG001 - names the test
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = main.cli
    context = click.Context(command, info_name="ramshelf")
    while isinstance(command, click.Group) and (words or not command.invoke_without_command):
        takes_value = {"--config-file", "--config-dir", "--connect"}
        while words[0].startswith("--"):
            del words[: 2 if words[0] in takes_value else 1]
        child = command.get_command(context, words.pop(0))
        assert child is not None, line
        command = child
        context = click.Context(command, info_name=command.name, parent=context)
    known = {
        name
        for parameter in command.params
        for name in [*parameter.opts, *parameter.secondary_opts]
    }
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def codes_in_the_source() -> set[str]:
    """Texts in the form of a code, of a group that exists; the tables of codes are elsewhere."""
    codes = set()
    for path in (CHECKOUT / "src").rglob("*.py"):
        if path.parent.name != "checks" and path.name != "errorcodes.py":
            texts = (getattr(node, "value", None) for node in ast.walk(ast.parse(path.read_text())))
            codes |= {text for text in texts if isinstance(text, str) and _is_code(text)}
    return codes - NO_CODES


def _is_code(text: str) -> bool:
    return bool(_CODE.fullmatch(text)) and text.partition(".")[0] in GROUPS


def test_every_error_code_is_in_the_reference() -> None:
    text = (CHECKOUT / "docs/reference/errors.md").read_text()
    documented = set(re.findall(r"^\| `([a-z.-]+)` \|", text, re.MULTILINE))
    findings = set(catalog.RULES)
    assert codes_in_the_source() - findings <= documented
    assert documented <= codes_in_the_source() | findings


def test_the_tests_that_the_security_page_names_are_there() -> None:
    named = set(
        re.findall(r"`(test_\w+)`", (CHECKOUT / "docs/explanation/security.md").read_text())
    )
    sources = "".join(path.read_text() for path in (CHECKOUT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in sources} == set()
