"""``ramshelf doctor --bundle``: one archive that tells all that whoever helps has to know."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

import click

from ramshelf.cli.context import Context, tell
from ramshelf.core.config import Config
from ramshelf.core.doctor.document import as_document
from ramshelf.core.errors import UsageError
from ramshelf.core.text import printable
from ramshelf.node.bundle import Part, collect, default_name, write
from ramshelf.node.doctor import Ask, gather
from ramshelf.system.worker import Patience

_COMMANDS = {
    "doctor": "every finding",
    "status": "how things are",
    "capacity": "what the store holds, and who holds it",
}


def bundle(context: Context, file: str) -> int:
    """Write the archive to ``file``, '' for a name by host and time in the current directory."""
    path = os.path.abspath(file or default_name())
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UsageError("cli.usage", f"{path} is no file.", hint="Give the name of a file.")

    def uri() -> str:
        config = context.config_or_problem
        return (
            context.connect or (config if isinstance(config, Config) else Config()).connection_uri
        )

    def facts() -> dict[str, str]:
        found = gather(
            context.config_or_problem,
            uri(),
            context.config_files,
            context.config_dirs,
            patience=Patience(each=5, together=8),
            ask=Ask.NEVER,
        )
        return {"facts.json": json.dumps(as_document(found), indent=2, default=str) + "\n"}

    reports = (
        *(
            Part(
                name=f"{verb}.json",
                what=f"what 'ramshelf {verb} --json' says: {what}",
                read=partial(_said, context, verb),
            )
            for verb, what in _COMMANDS.items()
        ),
        Part(name="facts.json", what="what the doctor knows of this host", read=facts),
    )
    collected = collect(
        reports,
        uri,
        context.config_files,
        context.config_dirs,
        patience=Patience(each=20, together=45),
    )
    write(path, collected)
    document = {
        "file": path,
        "files": sorted(collected.texts),
        "missing": dict(collected.missing),
    }

    def text() -> None:
        for name, why in collected.missing.items():
            tell(f"note: {name} is not in it: {why}.")
        count = len(collected.texts)
        click.echo(f"{printable(path)} has {count} files; INDEX in it says what each is.")
        click.echo("Secrets are masked. Look through it before you pass it on.")

    context.report(document, text)
    return 0


def _said(context: Context, verb: str) -> dict[str, str]:
    """Return what a command prints with these global options."""
    from ramshelf.cli.main import run  # noqa: PLC0415 - which imports this module

    options = [f"--config-file={path}" for path in context.config_files]
    options += [f"--config-dir={path}" for path in context.config_dirs]
    options += [f"--connect={context.connect}"] if context.connect else []
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        run([*options, verb, "--json"])
    return {f"{verb}.json": said.getvalue()}
