"""A noun's commands: listed in the order of their definition, with help that is not cut off."""

from collections.abc import Iterator

import click

from ramshelf.core.errors import UsageError


class HelpWanted(click.ClickException):
    """A group was called without a command; the message is its help."""


class Group(click.Group):
    """Lists the first sentence of each command's help, and says what a mistyped one may mean."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Do as click does, but raise HelpWanted where a command is missing: 8.1 exits with 0."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            raise HelpWanted(ctx.get_help())
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names as they were defined; click's own sorts them."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write whole sentences; click's own cuts them to the width of the terminal."""
        rows = [
            (name, command.get_short_help_str(limit=1000))
            for name, command in self._shown(ctx)
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Do as click does; raises UsageError ``cli.usage`` with what was probably meant."""
        word = args[0]
        if (
            not ctx.resilient_parsing
            and not word.startswith("-")
            and self.get_command(ctx, word) is None
        ):
            raise self._unknown(ctx, word)
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, word: str) -> UsageError:
        import difflib  # noqa: PLC0415 - only where it is used

        path = ctx.command_path
        meant = [
            f"{name} {word}"
            for name, command in self._shown(ctx)
            if isinstance(command, click.Group) and word in command.commands
        ] or difflib.get_close_matches(word, self.list_commands(ctx), n=1)
        hint = f"'{path} --help' shows what it takes."
        if meant:
            commands = " or ".join(f"'{path} {each}'" for each in meant)
            hint = f"Did you mean {commands}? {hint}"
        return UsageError("cli.usage", f"There is no command '{path} {word}'.", hint=hint)

    def _shown(self, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
        for name in self.list_commands(ctx):
            if (command := self.get_command(ctx, name)) is not None:
                yield name, command
