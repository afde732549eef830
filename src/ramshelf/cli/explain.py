"""``ramshelf explain``: what a code means, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ramshelf.cli.context import Context, no_headers, pass_context
from ramshelf.cli.later import later
from ramshelf.cli.output import fields, table
from ramshelf.core.errors import UsageError

if TYPE_CHECKING:
    from ramshelf.core import explain as core
else:
    core = later("ramshelf.core.explain")


def _complete(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return [CompletionItem(code) for code in core.codes() if code.startswith(incomplete)]


@click.command(
    "explain",
    epilog="""\b
Examples:
  ramshelf explain store.not-mounted
  ramshelf explain hook
  ramshelf explain
""",
)
@click.argument("code", metavar="[CODE|GROUP]", required=False, shell_complete=_complete)
@no_headers
@pass_context
def command(context: Context, code: str | None) -> None:
    """Say what the code of a finding, an error or a note means, and what to do about it.

    CODE is what stands in brackets after a message, such as store.not-mounted. Without it, or with
    only the part before the dot, the codes are listed. It asks neither the host nor libvirt.
    """
    word = (code or "").strip("[]").lower()
    listed = tuple(each for each in core.codes() if not word or each.startswith(f"{word}."))
    if listed:
        found = tuple(meaning for each in listed for meaning in core.explain(each))
        text = _listed(listed, bare=context.no_headers)
    elif found := core.explain(word):
        text = "\n\n".join(_explained(meaning) for meaning in found)
    else:
        raise _unknown(word)
    document = {"codes": [_document(meaning) for meaning in found]}
    context.emit(document, lambda: click.echo(text))


def _listed(found: tuple[str, ...], *, bare: bool) -> str:
    """Return a line for each code, in blocks by group; all blocks have the same columns.

    ``bare``: without header and blocks.
    """
    groups = list(core.by_group(found))
    rows = [
        (meaning.code, meaning.severities[0], meaning.first_sentence)
        for _, members in groups
        for meaning in members
    ]
    header, *lines = table(("CODE", "SEVERITY", "MEANING"), rows).splitlines()
    if bare:
        return "\n".join(lines)
    blocks = [header]
    for _, members in groups:
        blocks.append("\n".join(lines[: len(members)]))
        del lines[: len(members)]
    return "\n\n".join(blocks)


def _explained(meaning: core.Meaning) -> str:
    lines = [
        ("code", meaning.code),
        ("severity", " or ".join(meaning.severities)),
        ("said by", meaning.said_by),
        ("about", meaning.about),
        ("meaning", meaning.meaning),
    ]
    if meaning.hint:
        lines.append(("what to do", meaning.hint))
    return fields(lines)


def _document(meaning: core.Meaning) -> dict[str, object]:
    return {
        "code": meaning.code,
        "severities": list(meaning.severities),
        "said_by": meaning.said_by,
        "about": meaning.about,
        "meaning": meaning.meaning,
        "hint": meaning.hint,
    }


def _unknown(word: str) -> UsageError:
    close = core.meant(word)
    hint = "'ramshelf explain' lists all codes."
    if close:
        hint = f"Did you mean {' or '.join(close)}? {hint}"
    return UsageError("cli.usage", f"There is no code '{word}'.", hint=hint)
