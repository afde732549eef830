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


VERBOSE = "Show each command that is run and each file that is changed, on standard error."
QUIET = "Print nothing but errors and what was asked for."


@dataclass(frozen=True, kw_only=True)
class Context:
    """The global options; the configuration is read when first asked for."""

    config_files: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = ()
    connect: str | None = None
    as_json: bool = False
    no_headers: bool = False
    verbose: bool = False
    quiet: bool = False

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
        """Print what was asked for: ``document`` as JSON where wished, else call ``text``."""
        if self.as_json:
            import json  # noqa: PLC0415 - only where it is used

            click.echo(json.dumps(document, indent=2, default=str))
        else:
            text()

    def report(self, document: Mapping[str, object], text: Callable[[], None]) -> None:
        """Print what was done, as ``emit`` does; with ``--quiet`` only where JSON is wished."""
        if self.as_json or not self.quiet:
            self.emit(document, text)


no_headers = click.option(
    "--no-headers",
    "verb_no_headers",
    is_flag=True,
    help="Print only the rows of tables, for scripts.",
)
"""Gives a verb that prints a table its own ``--no-headers``; it stands above ``pass_context``."""


def tell(text: str, *, nl: bool = True) -> None:
    """Print on standard error what a command says besides its result; nothing with ``--quiet``."""
    ctx = click.get_current_context(silent=True)
    if ctx is None or not isinstance(ctx.obj, Context) or not ctx.obj.quiet:
        click.echo(text, err=True, nl=nl)


def show_steps() -> None:
    """Print each step that is taken on the host from now on, on standard error."""
    import logging  # noqa: PLC0415 - only where it is used

    from ramshelf.system.steps import LOGGER  # noqa: PLC0415 - as above

    steps = logging.getLogger(LOGGER)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("+ %(message)s"))
    steps.handlers = [handler]
    steps.setLevel(logging.INFO)


def pass_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the Context to a verb as its first argument.

    It also gives the verb its own ``--json``, ``--verbose`` and ``--quiet``.
    """

    @click.option("--json", "verb_json", is_flag=True, help="Print JSON; sizes end in _mib.")
    @click.option("-v", "--verbose", "verb_verbose", is_flag=True, help=VERBOSE)
    @click.option("-q", "--quiet", "verb_quiet", is_flag=True, help=QUIET)
    @click.pass_context
    @wraps(function)
    def wrapper(
        ctx: click.Context,
        /,
        *args: Any,
        verb_json: bool,
        verb_verbose: bool,
        verb_quiet: bool,
        verb_no_headers: bool = False,
        **kwargs: Any,
    ) -> Any:
        context: Context = ctx.obj
        if verb_json and not context.as_json:
            context = replace(context, as_json=True)
        if verb_no_headers and not context.no_headers:
            context = replace(context, no_headers=True)
        if verb_verbose and not context.verbose:
            context = replace(context, verbose=True)
        if verb_quiet and not context.quiet:
            context = replace(context, quiet=True)
        if context.verbose and context.quiet:
            raise click.UsageError("--verbose and --quiet do not go together.", ctx)
        if context.verbose:
            show_steps()
        ctx.obj = context
        return ctx.invoke(function, context, *args, **kwargs)

    command: Callable[..., Any] = wrapper
    return command
