"""Every command there is: what the contract promises of each."""

import io
from collections.abc import Iterator

import click
import pytest

from ramshelf.agent.loop import Agent
from ramshelf.cli import main


def commands(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something by itself, with the words that call it."""
    if not isinstance(command, click.Group):
        yield words, command
    else:
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from commands(child, (*words, name))


COMMANDS = dict(commands(main.cli))


def test_the_verbs_are_those_of_the_contract() -> None:
    assert {" ".join(words) for words in COMMANDS} == {
        "status",
        "doctor",
        "store create",
        "store resize",
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
        "agent run",
        "agent install",
        "agent remove",
        "explain",
        "completion",
        "help",
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
    assert all(option in text for option in ("--json", "--verbose", "--quiet"))
    assert "docs/" not in text  # what is installed has no such directory


def test_commands_that_print_tables_take_no_headers() -> None:
    takes = {
        " ".join(words)
        for words, command in COMMANDS.items()
        if any("--no-headers" in each.opts for each in command.params)
    }
    assert takes == {"guest list", "capacity", "store clean", "placement show", "explain"}


@pytest.mark.parametrize("argv", ["--no-headers explain hook", "explain hook --no-headers"])
def test_no_headers_before_and_after_the_verb(
    argv: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(argv.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("hook.") for line in lines)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", ["1", "20", "400"])
def test_help_on_any_terminal(
    words: tuple[str, ...], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main.run([*words, "-h"]) == 0


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["agnet"], "'ramshelf agent'"),
        (["guest", "strat"], "'ramshelf guest start'"),
        (["start", "web1"], "'ramshelf guest start'"),
        (["install"], "'ramshelf hook install' or 'ramshelf agent install'"),
        (["help", "store", "crate"], "'ramshelf store create'"),
    ],
)
def test_a_mistyped_command_is_answered_with_what_was_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 255
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence.endswith("[cli.usage]")
    assert hint.startswith(f"hint: Did you mean {meant}? 'ramshelf")


def test_help_is_the_same_as_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("store",), ("store", "create")):
        assert main.run([*words, "--help"]) == 0
        wanted = capsys.readouterr()
        assert main.run(["help", *words]) == 0
        assert capsys.readouterr() == wanted


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_no_help_of_a_group_is_cut_off(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for noun in ("store", "hook", "guest", "xml", "placement", "agent"):
        assert main.run([noun, "--help"]) == 0
        assert "..." not in capsys.readouterr().out.split("Commands:")[1]


@pytest.mark.parametrize("options", [[], ["--metrics-socket", "/run/door"]])
def test_units_that_were_installed_before_agent_run_start_the_agent(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Agent, "__init__", lambda *given: started.append(given[-1]))
    monkeypatch.setattr(Agent, "run", lambda _agent: None)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main.run(["agent", *options]) == 0
    assert main.run(["agent", "run", *options]) == 0
    assert started == [options[-1] if options else ""] * 2


def test_the_agent_without_a_verb_on_a_terminal_shows_its_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert main.run(["agent"]) == 255
    assert capsys.readouterr().err.startswith("Usage: ramshelf agent [OPTIONS] ")
