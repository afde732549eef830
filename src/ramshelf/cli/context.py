"""The global options, handed to every verb, and those of them that work after the verb too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

import click

from ramshelf.core.errors import RamshelfError

if TYPE_CHECKING:
    from ramshelf.core.config import Config
    from ramshelf.core.doctor.facts import BadConfig


@dataclass(frozen=True, kw_only=True)
class Context:
    """The global options; the configuration is read when first asked for."""

    config_files: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = ()
    connect: str | None = None
    as_json: bool = False
    no_headers: bool = False

    @cached_property
    def config(self) -> "Config":
        """The configuration; raises ConfigError."""
        from ramshelf.system.settings import load_config  # noqa: PLC0415 - oslo.config is heavy

        return load_config(self.config_files, self.config_dirs)

    @property
    def config_or_problem(self) -> "Config | BadConfig":
        """The configuration, or why it cannot be used, for those who go on without it."""
        from ramshelf.core.doctor.facts import BadConfig  # noqa: PLC0415 - not for every command

        try:
            return self.config
        except RamshelfError as error:
            return BadConfig(
                reason=error.sentence.rstrip("."),
                code=error.code,
                hint=error.hint,
                facts=error.facts,
            )

    @property
    def uri(self) -> str:
        """The libvirt connection URI."""
        return self.connect or self.config.connection_uri

    def emit(self, document: Mapping[str, object], text: Callable[[], None]) -> None:
        """Print ``document`` as JSON where asked for, else call ``text``."""
        if self.as_json:
            import json  # noqa: PLC0415 - only where it is used

            click.echo(json.dumps(document, indent=2, default=str))
        else:
            text()


no_headers = click.option(
    "--no-headers",
    "verb_no_headers",
    is_flag=True,
    help="Print only the rows of tables, for scripts.",
)
"""Gives a verb that prints a table its own ``--no-headers``; it stands above ``pass_context``."""


def pass_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the Context to a verb as its first argument and give the verb its own ``--json``."""

    @click.option("--json", "verb_json", is_flag=True, help="Print JSON; sizes end in _mib.")
    @click.pass_context
    @wraps(function)
    def wrapper(
        ctx: click.Context,
        /,
        *args: Any,
        verb_json: bool,
        verb_no_headers: bool = False,
        **kwargs: Any,
    ) -> Any:
        context: Context = ctx.obj
        if verb_json and not context.as_json:
            context = replace(context, as_json=True)
        if verb_no_headers and not context.no_headers:
            context = replace(context, no_headers=True)
        return ctx.invoke(function, context, *args, **kwargs)

    command: Callable[..., Any] = wrapper
    return command
