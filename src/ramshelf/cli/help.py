"""``ramshelf help``: the same as ``--help``, for those who type it so."""

import click

from ramshelf.cli.context import Context, pass_context
from ramshelf.cli.group import Group


@click.command(
    "help",
    epilog="""\b
Examples:
  ramshelf help
  ramshelf help guest start
""",
)
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@pass_context
@click.pass_context
def command(ctx: click.Context, context: Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, or of ramshelf itself."""
    shown = ctx.find_root()
    for word in words:
        if not isinstance(shown.command, Group):
            break  # a command takes arguments, and 'help' has been told enough
        name, found, _ = shown.command.resolve_command(shown, [word])
        if found is None:
            break
        shown = click.Context(found, parent=shown, info_name=name, **found.context_settings)
    text = shown.get_help()
    context.emit({"command": shown.command_path, "help": text}, lambda: click.echo(text))
