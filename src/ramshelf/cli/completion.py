"""``ramshelf completion``: the shell's completion script."""

import click
from click.shell_completion import get_completion_class

from ramshelf.cli.context import Context, pass_context

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog="""\b
Examples:
  ramshelf completion bash > /etc/bash_completion.d/ramshelf
  ramshelf completion zsh > /usr/local/share/zsh/site-functions/_ramshelf
  ramshelf completion fish > /etc/fish/completions/ramshelf.fish
""",
)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@pass_context
def command(context: Context, shell: str) -> None:
    """Print the completion script of SHELL (bash, zsh or fish).

    Put it where the shell looks for such scripts, as in the examples, and start a new shell. For
    one session only: source <(ramshelf completion bash).
    """
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"click has no completion for {shell}.")
    script = completion(click.Group(), {}, "ramshelf", "_RAMSHELF_COMPLETE").source()
    context.emit({"shell": shell, "script": script}, lambda: click.echo(script))
