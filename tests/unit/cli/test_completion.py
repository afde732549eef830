"""The completion scripts in the shells that they are for, where installed (bash always is)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def script(shell: str) -> str:
    argv = [str(BIN / "ramshelf"), "completion", shell]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def ask(shell: str, text: str, path: Path) -> str:
    """What the shell prints for a program text, run with the completion script in ``path``."""
    path.write_text(script(shell))
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(path.parent)}
    ended = subprocess.run(
        [shell, "-c", text, shell, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert ended.stderr == ""
    return ended.stdout


BASH = """
source "$1"
COMP_WORDS=(ramshelf {words}); COMP_CWORD={index}
$(complete -p ramshelf | sed 's/.*-F \\([^ ]*\\) .*/\\1/') ramshelf
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "index", "expected"),
    [
        ("comp", 1, ["completion"]),
        ("completion ''", 2, ["bash", "zsh", "fish"]),
        ("completion --js", 2, ["--json"]),
        ("explain guest.pa", 2, ["guest.paused", "guest.passthrough"]),
    ],
)
def test_bash(words: str, index: int, expected: list[str], tmp_path: Path) -> None:
    out = ask("bash", BASH.format(words=words, index=index), tmp_path / "ramshelf")
    assert out.splitlines() == expected


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(tmp_path: Path) -> None:
    out = ask(
        "fish",
        "source $argv[2]; complete --do-complete 'ramshelf completion '",
        tmp_path / "ramshelf.fish",
    )
    assert {line.split("\t")[0] for line in out.splitlines()} >= {"bash", "zsh", "fish"}


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(tmp_path: Path) -> None:
    text = "autoload -U compinit; compinit -u; source $1; print ${_comps[ramshelf]}"
    assert ask("zsh", text, tmp_path / "_ramshelf") == "_ramshelf_completion\n"
