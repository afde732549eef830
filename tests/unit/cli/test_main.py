"""The frame of the command line: what holds for every verb."""

import errno
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from ramshelf.agent.log import Log
from ramshelf.cli import main
from ramshelf.cli.context import Context, pass_context, show_steps, tell
from ramshelf.core.errors import ConfigError, RefusedError
from ramshelf.system.run import run
from ramshelf.system.steps import LOGGER
from ramshelf.system.textfiles import change_text

Raiser = Callable[[], Any]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Raiser], None]:
    """Makes ``ramshelf probe`` a verb that calls the given function."""

    def add(function: Raiser) -> None:
        @click.command("probe")
        @pass_context
        def command(context: Context) -> Any:
            result = function()
            context.emit({"result": "x"}, lambda: click.echo("text"))
            return result

        module = ModuleType("ramshelf.cli.probe")
        module.__dict__["command"] = command
        monkeypatch.setitem(sys.modules, "ramshelf.cli.probe", module)
        monkeypatch.setitem(main._VERBS, "probe", "Probe.")  # noqa: SLF001 - the table of verbs

    return add


def raiser(error: BaseException) -> Raiser:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize("json_first", [True, False])
def test_json_before_and_after_the_verb(
    verb: Callable[[Raiser], None], capsys: pytest.CaptureFixture[str], *, json_first: bool
) -> None:
    verb(lambda: None)
    assert main.run(["--json", "probe"] if json_first else ["probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"result": "x"}


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """``ramshelf act`` changes a file by itself and by a program, and says so."""

    @click.command("act")
    @pass_context
    def command(context: Context) -> None:
        tell("1. Write the file")
        (tmp_path / "file").write_text("old")
        run(["true", "a b"])
        change_text(tmp_path / "file", lambda _text: "new")
        context.report({"changed": True}, lambda: click.echo("It is written."))
        context.emit({"size_mib": 1}, lambda: click.echo("1 MiB"))

    module = ModuleType("ramshelf.cli.act")
    module.__dict__["command"] = command
    monkeypatch.setitem(sys.modules, "ramshelf.cli.act", module)
    monkeypatch.setitem(main._VERBS, "act", "Act.")  # noqa: SLF001 - the table of verbs
    monkeypatch.setattr("ramshelf.system.textfiles.LOCK", str(tmp_path / "lock"))
    yield tmp_path
    logging.getLogger(LOGGER).handlers.clear()
    logging.getLogger(LOGGER).setLevel(logging.NOTSET)


def test_without_verbose_and_quiet_no_step_is_shown(
    acting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["act"]) == 0
    assert capsys.readouterr() == ("It is written.\n1 MiB\n", "1. Write the file\n")
    assert (acting / "file").read_text() == "new"


@pytest.mark.parametrize("argv", [["-q", "act"], ["act", "--quiet"]])
def test_quiet_leaves_what_was_asked_for(
    acting: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert main.run(argv) == 0
    assert capsys.readouterr() == ("1 MiB\n", "")
    assert main.run([*argv, "--json"]) == 0
    assert '"changed": true' in capsys.readouterr().out
    assert (acting / "file").read_text() == "new"


def test_quiet_hides_no_error(
    verb: Callable[[Raiser], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raiser(RefusedError("capacity.exceeded", "No room.", hint="Stop one.")))
    assert main.run(["probe", "-q"]) == 1
    assert capsys.readouterr().err == "ramshelf: No room. [capacity.exceeded]\nhint: Stop one.\n"


@pytest.mark.parametrize("argv", [["-v", "act"], ["act", "--verbose"]])
def test_verbose_shows_each_step_as_it_happens(
    acting: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert main.run(argv) == 0
    out, err = capsys.readouterr()
    assert out == "It is written.\n1 MiB\n"
    assert err == (f"1. Write the file\n+ true 'a b'\n+ mv {acting}/.file.ramshelf {acting}/file\n")


def test_a_name_in_a_step_says_nothing_to_the_terminal(
    acting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_steps()
    run(["true", str(acting), "\x1b]0;mine\x07"])
    assert capsys.readouterr().err == f"+ true {acting} '?]0;mine?'\n"


def test_the_agent_logs_steps_as_it_logs_all_else(
    acting: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    show_steps()
    Log().take_in_libraries()
    logging.captureWarnings(capture=False)
    run(["true", str(acting)])
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"]) == ("info", "step")
    assert line["message"] == f"true {acting}"


def test_verbose_and_quiet_do_not_go_together(
    acting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["-v", "act", "-q"]) == 255
    assert "[cli.usage]" in capsys.readouterr().err
    assert not (acting / "file").exists()


def test_a_verb_s_number_is_the_exit_status(verb: Callable[[Raiser], None]) -> None:
    verb(lambda: 2)
    assert main.run(["probe"]) == 2


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            RefusedError("capacity.exceeded", "No room."),
            1,
            "ramshelf: No room. [capacity.exceeded]\n",
        ),
        (
            ConfigError("config.value", "Bad.", hint="Mend it."),
            255,
            "ramshelf: Bad. [config.value]\nhint: Mend it.\n",
        ),
        (
            PermissionError(errno.EACCES, "x", "/etc/fstab"),
            1,
            "ramshelf: /etc/fstab: Permission denied. [system.permission]\nhint: Run it as root.\n",
        ),
        (
            OSError(errno.EIO, "x", b"/etc/f"),
            1,
            "ramshelf: /etc/f: Input/output error. [system.io]\n",
        ),
        (
            OSError(errno.EROFS, "x", "/etc/f"),
            1,
            (
                "ramshelf: /etc/f: Read-only file system. [system.io]\n"
                "hint: 'findmnt --target /etc/f' shows what is mounted there.\n"
            ),
        ),
        (click.Abort(), 130, "ramshelf: Interrupted. [cli.interrupted]\n"),
    ],
)
def test_an_error_is_a_sentence_a_code_and_a_hint(
    verb: Callable[[Raiser], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    text: str,
) -> None:
    verb(raiser(error))
    assert main.run(["probe"]) == status
    assert capsys.readouterr() == ("", text)


def test_an_error_as_json_goes_to_standard_error(
    verb: Callable[[Raiser], None], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"missing_mib": 5, "path": Path("/x")}
    verb(raiser(RefusedError("capacity.exceeded", "No room.", hint="Stop one.", facts=facts)))
    assert main.run(["probe", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "code": "capacity.exceeded",
            "message": "No room.",
            "hint": "Stop one.",
            "facts": {"missing_mib": 5, "path": "/x"},
        }
    }


def test_ctrl_c_is_one_line(
    verb: Callable[[Raiser], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raiser(KeyboardInterrupt()))
    assert main.run(["probe"]) == 130
    assert capsys.readouterr().err == "ramshelf: Interrupted. [cli.interrupted]\n"


def test_ctrl_c_while_a_pipe_is_read_is_one_line() -> None:
    # A background job's children ignore SIGINT.
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "ramshelf", "xml", "apply"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write("<domain>")
        process.stdin.flush()
        while Path(f"/proc/{process.pid}/wchan").read_text() not in {"pipe_read", "anon_pipe_read"}:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "ramshelf: Interrupted. [cli.interrupted]\n")


def test_a_bug_is_no_traceback_unless_asked_for(
    verb: Callable[[Raiser], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verb(raiser(KeyError("a\nb")))
    assert main.run(["probe"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == r"ramshelf: This is a bug in ramshelf: KeyError: 'a\nb'. [internal.bug]"
    assert "RAMSHELF_DEBUG=1" in second
    monkeypatch.setenv("RAMSHELF_DEBUG", "1")
    assert main.run(["probe"]) == 1
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    "argv",
    [["zebra"], ["--zebra"], ["completion"], ["completion", "tcsh"], ["--connect"]],
)
def test_usage_errors_say_where_the_help_is(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(argv) == 255
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence.endswith("[cli.usage]")
    assert hint.startswith("hint: 'ramshelf")
    assert hint.endswith(" --help' shows what it takes.")


def test_usage_errors_are_json_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--json", "zebra"]) == 255
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "cli.usage"


def test_without_a_verb_the_help_and_255(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 255
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "Usage: ramshelf [OPTIONS] COMMAND [ARGS]...")


def test_a_name_that_is_not_text_is_shown() -> None:
    code = (
        "import ramshelf.cli.main as m; m.cli.invoke = lambda _: print('a\\udcffb'); "
        "m.run(['doctor'])"
    )
    argv = [sys.executable, "-c", code]
    ended = subprocess.run(argv, capture_output=True, check=False, env={"LC_ALL": "C"})
    assert (ended.stdout, ended.stderr) == (b"a\\udcffb\n", b"")


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        ("| true", 1, ""),
        (">&-", 0, ""),
        (">/dev/full", 1, "ramshelf: No space left on device. [system.io]\n"),
        (">/dev/full 2>&-", 1, ""),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_output_that_nobody_takes(redirection: str, status: int, message: str) -> None:
    script = f"set -o pipefail; {sys.executable} -m ramshelf completion bash {redirection}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", message)
