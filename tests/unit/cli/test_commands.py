"""Every command there is: what the contract promises of each."""

from collections.abc import Iterator

import click
import pytest

from ramshelf.cli import main


def commands(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something by itself, with the words that call it."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from commands(child, (*words, name))


COMMANDS = dict(commands(main.cli))


def test_the_verbs_are_those_of_the_contract() -> None:
    assert {" ".join(words) for words in COMMANDS} == {
        "doctor",
        "store create",
        "store show",
        "store remove",
        "store clean",
        "hook install",
        "hook remove",
        "hook status",
        "hook bypass",
        "guest start",
        "guest stop",
        "guest trim",
        "guest list",
        "guest migrate",
        "guest show",
        "xml apply",
        "capacity",
        "placement show",
        "placement report",
        "placement provider-config",
        "agent",
        "agent install",
        "agent remove",
        "completion",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_an_example_and_json(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main.run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"ramshelf {' '.join(words)}" in text.split("Example")[1]
    assert "--json" in text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", ["1", "20", "400"])
def test_help_on_any_terminal(
    words: tuple[str, ...], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main.run([*words, "-h"]) == 0
