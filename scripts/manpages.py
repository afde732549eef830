#!/usr/bin/env python3
"""manpages.py DIRECTORY: write the manual pages into DIRECTORY.

There is one for ramshelf, one for each of its nouns and verbs, and ramshelf.conf(5). They come
from what the command line and the configuration say of themselves, as docs/reference does.
"""

import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from ramshelf import __version__
from ramshelf.cli.main import cli
from ramshelf.core.setting import DEFAULT_FILES
from ramshelf.system.options import OPTIONS
from reference import type_of

EXIT_STATUS = {
    "0": "It is done; of doctor and status: all is good.",
    "1": "It was refused or failed, and nothing is half done; of doctor and status: warnings.",
    "2": "Of doctor and status: failures.",
    "130": "It was interrupted by Ctrl-C.",
    "255": "The command or the configuration makes no sense, or it could not run at all.",
}


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name of each page's file and its text."""
    context = _context(cli, "ramshelf", None)
    verbs = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    named = [f"ramshelf-{name}" for name, _ in verbs]
    yield (
        "ramshelf.1",
        _page("ramshelf", 1, cli.help or "", _whole(context), [*named, "ramshelf.conf"]),
    )
    for name, verb in verbs:
        if verb is not None:
            what = verb.get_short_help_str(limit=1000)
            body = _verb(_context(verb, name, context))
            yield f"ramshelf-{name}.1", _page(f"ramshelf-{name}", 1, what, body, ["ramshelf"])
    what = "the configuration of ramshelf"
    yield "ramshelf.conf.5", _page("ramshelf.conf", 5, what, _configuration(), ["ramshelf"])


def _page(name: str, section: int, what: str, body: list[str], others: list[str]) -> str:
    see = [_reference(other) for other in others]
    return "\n".join(
        [
            f'.TH {_roff(name.upper())} {section} "" "ramshelf {__version__}" "ramshelf"',
            ".SH NAME",
            f"{_roff(name)} \\- {_roff(what[0].lower() + what[1:].rstrip('.'))}",
            *body,
            ".SH SEE ALSO",
            ",\n".join(see),
            "",
        ]
    )


def _reference(name: str) -> str:
    return f"\\fB{_roff(name)}\\fR({5 if name.endswith('.conf') else 1})"


def _whole(context: click.Context) -> list[str]:
    """Return the body of the page about the whole: its options, and the verbs."""
    body = [".SH SYNOPSIS", *_usage(context), ".SH OPTIONS", *_options(context), ".SH COMMANDS"]
    for name in cli.list_commands(context):
        verb = cli.get_command(context, name)
        if verb is not None:
            body += [".TP", _reference(f"ramshelf-{name}"), _roff(verb.get_short_help_str(1000))]
    body += [".SH EXIT STATUS"]
    for status, meaning in EXIT_STATUS.items():
        body += [".TP", status, _roff(meaning)]
    return [*body, ".SH FILES", *(_roff(path) + "\n.br" for path in DEFAULT_FILES)]


def _verb(context: click.Context) -> list[str]:
    """Return the body of a verb's page: what it does, or what each of its commands does."""
    commands = list(_commands(context))
    body = [".SH SYNOPSIS"]
    for child in commands or [context]:
        body += [*_usage(child), ".br"]
    body += [".SH DESCRIPTION", *_help(context.command)]
    if not commands:
        return [*body, ".SH OPTIONS", *_options(context), *_examples(context, ".SH")]
    body += [".SH COMMANDS"]
    for child in commands:
        body += [f".SS {_roff(child.command_path)}", *_help(child.command), *_options(child)]
        body += _examples(child, ".PP")
    return body


def _commands(context: click.Context) -> Iterator[click.Context]:
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield _context(command, name, context)


def _usage(context: click.Context) -> list[str]:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return [f".B {_roff(context.command_path)}", _roff(pieces)]


def _help(command: click.Command) -> list[str]:
    paragraphs = cleandoc(command.help or "").split("\n\n")
    return [line for text in paragraphs for line in (".PP", _roff(" ".join(text.split())))]


def _options(context: click.Context) -> list[str]:
    lines = []
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            lines += [".TP", f"\\fB{_roff(record[0])}\\fR", _roff(" ".join(record[1].split()))]
    return lines


def _examples(context: click.Context, heading: str) -> list[str]:
    """Return the examples below a command's help, each on a line of its own."""
    text = re.sub(r"\A\x08?\s*Examples?:", "", context.command.epilog or "").strip("\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    title = "EXAMPLES" if heading == ".SH" else "Examples:"
    begin = [".SH EXAMPLES"] if heading == ".SH" else [heading, title]
    return [*begin, ".PP", ".nf", ".RS", *map(_roff, lines), ".RE", ".fi"]


def _configuration() -> list[str]:
    """Return the body of the page about the configuration: its files, and each option by group."""
    body = [".SH SYNOPSIS", *(_roff(path) + "\n.br" for path in DEFAULT_FILES)]
    about = (
        "ramshelf reads these files, where they exist, in this order, and the *.conf files of the "
        "directories sorted by name; the later one wins. Their format is that of nova.conf, and "
        "what Nova and ramshelf both use has Nova's names. Where --config-file or --config-dir is "
        "given only what they name is read."
    )
    body += [".SH DESCRIPTION", _roff(about)]
    for group, members in OPTIONS.items():
        body += [f".SH [{_roff(group)}]"]
        for option in members:
            text = f"{option.help} ({type_of(option)})"
            body += [".TP", f"\\fB{_roff(option.name)}\\fR", _roff(text.replace("`", ""))]
    return body


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, parent=parent, info_name=name, **command.context_settings)


def _roff(text: str) -> str:
    """Return a text as roff has it; every hyphen as the one that is typed, also in prose."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main() -> int:
    """Write the pages."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 255
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (directory / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
