"""What options take: sizes, and numbers of seconds; each says in its own words what it wants."""

import click

from ramshelf.core.errors import UsageError
from ramshelf.core.units import parse_size


class Size(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has it without
    """A size with a unit, in bytes."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes; raises UsageError ``cli.usage``."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            raise _wrong(param, ctx, f"{error}.") from None


class Seconds(click.ParamType):  # type: ignore[type-arg]  # the same
    """A number of seconds, more than zero."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; raises UsageError ``cli.usage``."""
        try:
            number = float(str(value))
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise _wrong(
                param,
                ctx,
                f"{str(value)!r} is not a number of seconds greater than zero.",
                "Give seconds without a unit: 300 is five minutes.",
            )
        return number


def _wrong(
    param: click.Parameter | None, ctx: click.Context | None, sentence: str, hint: str = ""
) -> UsageError:
    option = param.opts[0] if param else "value"
    where = f"'{ctx.command_path} --help' shows what it takes." if ctx else ""
    return UsageError("cli.usage", f"{option}: {sentence}", hint=hint or where)
