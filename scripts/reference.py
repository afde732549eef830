#!/usr/bin/env python3
"""reference.py [--check]: write what docs/reference repeats of what the program knows of itself.

These parts stand between two marks in the pages. With --check it changes nothing, and fails where
one is out of date.
"""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
from oslo_config import cfg

from ramshelf.cli.main import cli
from ramshelf.core.agent.metrics import METRICS, SECTIONS, Metric
from ramshelf.core.catalog import GROUPS, RULES, Rule
from ramshelf.core.errorcodes import ERROR_CODES
from ramshelf.core.errorcodes import SECTIONS as ERROR_SECTIONS
from ramshelf.core.explain import error
from ramshelf.core.migration import table
from ramshelf.core.setting import DEFAULT_FILES
from ramshelf.system.options import OPTIONS

CHECKOUT = Path(__file__).resolve().parent.parent
REFERENCE = CHECKOUT / "docs/reference"
TESTS = CHECKOUT / "tests/host"
RESULTS = TESTS / "results"

_MARKED = re.compile(
    r"(<!-- from here written by scripts/reference.py: (\w+) -->\n).*?(<!-- to here -->)",
    re.DOTALL,
)


def commands() -> str:
    """Return every command's help, as a wide terminal shows it."""
    return "\n\n".join(
        f"## {' '.join(words)}\n\n```text\n{text}\n```"
        for words, text in _helps(cli, ("ramshelf",), None)
    )


def files() -> str:
    """Return the configuration files that are read by default."""
    return "\n".join(f"{number}. `{path}`" for number, path in enumerate(DEFAULT_FILES, start=1))


def options() -> str:
    """Return every option of the configuration, from what oslo.config is told."""
    sections = []
    for group, members in OPTIONS.items():
        rows = "\n".join(
            f"| `{option.name}` | {type_of(option)} | {option.help} |" for option in members
        )
        sections.append(
            f"### [{group}]\n\n| option | type and default | meaning |\n| --- | --- | --- |\n{rows}"
        )
    return "\n\n".join(sections)


def findings() -> str:
    """Return every code that the doctor can report, by group."""
    sections = []
    for group, title in GROUPS.items():
        rows = "\n".join(
            f"| `{rule.code}` | {_severities(rule)} | {rule.meaning} | {rule.hint} |"
            for rule in RULES.values()
            if rule.code.startswith(f"{group}.")
        )
        header = "| code | severity | meaning | what to do |\n| --- | --- | --- | --- |"
        sections.append(f"## {group}\n\n{title}.\n\n{header}\n{rows}")
    return "\n\n".join(sections)


def errors(section: str) -> str:
    """Return every code of a section that errors and notes have."""
    rows = "\n".join(
        f"| `{meaning.code}` | {_escaped(meaning.meaning)} | {_escaped(meaning.hint)} |"
        for meaning in map(error, ERROR_CODES.values())
        if ERROR_CODES[meaning.code].section == section
    )
    return f"| code | meaning | what to do |\n| --- | --- | --- |\n{rows}"


def metrics() -> str:
    """Return every metric of the agent's, by section."""
    sections = []
    for section, title in SECTIONS.items():
        rows = "\n".join(
            f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.help} |"
            for metric in METRICS.values()
            if metric.section == section
        )
        header = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |"
        sections.append(f"## {title}\n\n{header}\n{rows}")
    return "\n\n".join(sections)


def migrations() -> str:
    """Return which guests can move where, by the sort of both hosts."""
    sorts = tuple(table.HOSTS)
    header = f"| from \\ to | {' | '.join(sorts)} |\n|{' --- |' * (len(sorts) + 1)}"
    rows = "\n".join(
        f"| **{source}** | {' | '.join(table.cell(source, there) for there in sorts)} |"
        for source in sorts
    )
    return f"{header}\n{rows}"


def tested() -> str:
    """Return what was tried on which host, and how it ended, from what the tests recorded."""
    hosts = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    if not hosts:
        return "Nothing is on record yet."
    names = [host["host"]["distribution"] for host in hosts]
    kinds = list(hosts[0]["host"])
    header = f"| |{'|'.join(f' {name} ' for name in names)}|\n|{' --- |' * (len(names) + 1)}\n"
    made_of = "\n".join(
        f"| {kind} | {' | '.join(host['host'][kind] for host in hosts)} |"
        for kind in kinds
        if kind != "distribution"
    )
    sections = [header + made_of]
    for path in sorted(TESTS.glob("test_*.py")):
        title = ast.get_docstring(ast.parse(path.read_text())) or ""
        known = {
            test for host in hosts for test in host["tests"] if test.partition("::")[0] == path.name
        }
        rows = "\n".join(
            f"| {_said(test)} | {' | '.join(_outcome(host['tests'].get(test)) for host in hosts)} |"
            for test in sorted(known)
        )
        if rows:
            sections.append(f"## {title.partition(chr(10))[0].rstrip('.')}\n\n{header}{rows}")
    return "\n\n".join(sections)


def _escaped(text: str) -> str:
    """Return a text with its XML elements marked as code; else Markdown takes them for HTML."""
    return re.sub(r"<[^>]+>", lambda match: f"`{match[0]}`", text)


def _said(test: str) -> str:
    name, _, which = test.partition("::test_")[2].partition("[")
    return name.replace("_", " ") + (f": {which[:-1]}" if which else "")


def _outcome(known: list[str] | None) -> str:
    return " ".join(known) if known else "not tried"


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def _severities(rule: Rule) -> str:
    return f"{rule.severity.value}, {rule.milder.value}" if rule.milder else rule.severity.value


def _helps(
    command: click.Command, words: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    context = click.Context(command, parent=parent, info_name=words[-1], **command.context_settings)
    context.terminal_width = 100
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield words, text
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _helps(child, (*words, name), context)


def type_of(option: cfg.Opt) -> str:
    """Return an option's type, limits and default in words."""
    kind = {
        "IntOpt": "whole number",
        "FloatOpt": "number",
        "BoolOpt": "true or false",
        "StrOpt": "text",
    }
    text = kind[type(option).__name__]
    choices = getattr(option.type, "choices", None)
    if choices:
        text = "one of " + ", ".join(f"`{choice}`" for choice in choices)
    minimum = getattr(option.type, "min", None)
    if minimum is not None:
        text += f" from {minimum:g}"
    if option.default is None:
        return f"{text}; not set"
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    return f"{text}; {'empty' if default == '' else f'`{default}`'}"


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "files": files,
    "findings": findings,
    "metrics": metrics,
    "migrations": migrations,
    "options": options,
    "tested": tested,
    **{f"errors_{section}": partial(errors, section) for section in ERROR_SECTIONS},
}


def main() -> int:
    """Write the parts, or check them."""
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for page in sorted(REFERENCE.glob("*.md")):
        old = page.read_text()
        new = _MARKED.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n\n{match[3]}", old)
        if new != old and check:
            print(f"{page} is out of date: run scripts/reference.py", file=sys.stderr)
            stale += 1
        elif new != old:
            page.write_text(new)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
