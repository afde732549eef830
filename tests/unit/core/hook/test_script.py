"""The script in libvirt's hook directory as shells run it, with programs in the place of Python."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from ramshelf.core.hook.bypass import LONGEST
from ramshelf.core.hook.call import MARKS
from ramshelf.core.hook.script import HookScript, render
from support.process import wait_until

PLAIN = "<domain type='kvm'>\n  <name>guest</name>\n</domain>\n"
SHELLS = pytest.mark.parametrize("shell", ["dash", "bash"])


def xml(mark: str) -> str:
    return PLAIN.replace("</domain>", f"  {mark}\n</domain>")


FILES = xml("<memoryBacking>\n    <source type='file'/>\n  </memoryBacking>")


class Script:
    """The script, with all that it touches below one directory.

    It is called by what it takes for root.
    """

    def __init__(self, directory: Path, shell: str, program: str) -> None:
        """``program`` is the shell program that is called as Python; '' leaves nothing there."""
        self.run, self._shell = directory / "run", shell
        self.calls = directory / "calls"
        python = directory / "python"
        if program:
            python.write_text(f'#!/bin/sh\necho "$@" >>{self.calls}\n{program}\n')
            python.chmod(0o755)
        tools = directory / "tools"
        tools.mkdir()
        self.user("0", tools)
        self._tool(tools / "logger", f'printf "%s\\n" "$*" >>{directory}/syslog')
        text = render(
            HookScript(python=str(python), main="/lib/main.py", config_files=("/etc/a b.conf",))
        )
        for path, instead in (
            ("/run/ramshelf", self.run),
            ("/var/log/libvirt/qemu", directory / "logs"),
            ("PATH=", f"PATH={tools}:"),
        ):
            assert path in text
            text = text.replace(path, str(instead))
        self._text = text
        (self.run / "guests").mkdir(parents=True)

    def user(self, uid: str, tools: Path) -> None:
        self._tool(tools / "id", f"echo {uid}")

    def __call__(self, *words: str, stdin: str | bytes = FILES) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [self._shell, "-c", self._text, "ramshelf", *words],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        out, err = (text.decode(errors="surrogateescape") for text in (ended.stdout, ended.stderr))
        return subprocess.CompletedProcess(words, ended.returncode, out, err)

    def log(self) -> list[dict[str, object]]:
        path = self.run / "hook.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> list[object]:
        return [line["event"] for line in self.log()]

    def note(self, name: str) -> Path:
        path = self.run / "guests" / name
        path.touch()
        return path

    def bypass(self, text: str) -> None:
        (self.run / "bypass").write_text(text)

    @staticmethod
    def _tool(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


def since_boot() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))


@SHELLS
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("guest start begin -", True),
        ("guest started begin -", True),
        ("guest prepare begin -", False),
        ("ramshelf-probe-1 prepare begin -", True),
        ("guest stopped end -", False),
        ("guest release end -", False),
        ("guest migrate begin -", True),
        ("guest restore begin -", False),
        ("guest reconnect begin -", False),
        ("guest attach begin -", False),
    ],
)
def test_python_is_called_for_what_matters_only(
    tmp_path: Path, call: str, shell: str, *, expected: bool
) -> None:
    script = Script(tmp_path, shell, "exit 0")
    assert script(*call.split()).returncode == 0
    if expected:
        wait_until(lambda: script.calls.exists() and script.calls.read_text() != "", "it is called")
        assert script.calls.read_text() == f"-IS /lib/main.py /etc/a b.conf -- {call}\n"
    else:
        assert not script.calls.exists()
    assert script.log() == []


@SHELLS
def test_a_started_guest_is_waited_for_only_where_something_is_left_to_be_refused(
    tmp_path: Path, shell: str
) -> None:
    script = Script(tmp_path, shell, f"cat >{tmp_path}/stdin; echo x; echo y >&2; exit 10")
    ended = script("guest", "started", "begin", "-")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    wait_until((tmp_path / "stdin").exists, "it runs in the background")
    assert (tmp_path / "stdin").read_text() == ""
    script.note("guest.wait")
    ended = script("guest", "started", "begin", "-")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "y\n")


@SHELLS
def test_a_started_guest_is_never_ended_by_a_hook_that_is_broken(
    tmp_path: Path, shell: str
) -> None:
    script = Script(tmp_path, shell, "kill -KILL $$")
    assert script("guest", "started", "begin", "-").returncode == 0
    wait_until(lambda: script.events() == ["broken"], "it is on record")
    script.note("guest.wait")
    assert script("guest", "started", "begin", "-").returncode == 0
    for line in script.log():
        assert (line["operation"], line["status"], line["vetoed"]) == ("started", 137, 0)
    assert len(script.log()) == 2


READ = {
    "before": "",
    "after": "cat >/dev/null",
    "said": "read -r line; echo {word}; cat >/dev/null",
}
"""What the hook has done before it breaks.

It has read nothing, has read all and said nothing, or has said its answer.
"""


@SHELLS
@pytest.mark.parametrize("operation", ["start", "migrate"])
@pytest.mark.parametrize("end", ["exit 70", "exit 1", "kill -KILL $$", "kill -ALRM $$"])
@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("concerned", [False, True], ids=["plain", "files"])
def test_a_broken_hook_refuses_only_what_concerns_it(
    tmp_path: Path, shell: str, operation: str, end: str, read: str, *, concerned: bool
) -> None:
    word = "concerned" if concerned else "unconcerned"
    script = Script(tmp_path, shell, f"{READ[read].format(word=word)}\n{end}")
    ended = script("guest", operation, "begin", "-", stdin=FILES if concerned else PLAIN)
    refused = concerned or read == "after"  # the text is gone, and nobody has said what was in it
    assert (ended.returncode, ended.stdout) == (int(refused), "")
    assert ("[hook.broken]" in ended.stderr) is refused
    assert ("hint: " in ended.stderr) is refused
    [line] = script.log()
    assert (line["event"], line["guest"], line["operation"]) == ("broken", "guest", operation)
    assert line["vetoed"] == int(refused)
    assert f"(status {line['status']})" in (tmp_path / "syslog").read_text()


@SHELLS
@pytest.mark.parametrize("mark", MARKS)
def test_each_mark_is_found_where_there_is_no_python(tmp_path: Path, shell: str, mark: str) -> None:
    script = Script(tmp_path, shell, "")
    assert script("guest", "start", "begin", "-", stdin=PLAIN).returncode == 0
    ended = script("guest", "start", "begin", "-", stdin=xml(mark))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "(status 127)" in ended.stderr
    assert [line["vetoed"] for line in script.log()] == [0, 1]


@SHELLS
def test_a_text_that_is_not_whole_is_in_doubt(tmp_path: Path, shell: str) -> None:
    script = Script(tmp_path, shell, "")
    for text in ("", PLAIN[1:], "<other/>"):
        assert script("guest", "start", "begin", "-", stdin=text).returncode == 1


@SHELLS
def test_a_user_of_their_own_libvirt_is_never_refused(tmp_path: Path, shell: str) -> None:
    script = Script(tmp_path, shell, "")
    script.user("1000", tmp_path / "tools")
    assert script("guest", "start", "begin", "-").returncode == 0
    assert script.log() == []


@SHELLS
def test_a_refusal_is_passed_on(tmp_path: Path, shell: str) -> None:
    script = Script(tmp_path, shell, "cat >/dev/null; echo concerned; echo reason >&2; exit 10")
    for operation in ("start", "migrate"):
        ended = script("guest", operation, "begin", "-")
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "reason\n")
    assert script.log() == []


@SHELLS
def test_a_guest_that_comes_becomes_what_a_hook_that_ends_well_has_printed(
    tmp_path: Path, shell: str
) -> None:
    """Any bytes: shells have marks of their own among those from 0x80 on."""
    every = bytes(range(0x80, 0x100)) + "ä€😀".encode()
    lines = b"  <description> \\n %s $(x) `y` " + every + b"</description>\n"
    text = b"<domain>\n" + lines * 2000 + b"</domain>"
    script = Script(tmp_path, shell, "echo unconcerned; exec cat")
    ended = script("guest", "migrate", "begin", "-", stdin=text)
    assert ended.returncode == 0
    assert ended.stdout.encode(errors="surrogateescape") == text
    (tmp_path / "second").mkdir()
    silent = Script(tmp_path / "second", shell, "cat >/dev/null; echo concerned")
    assert silent("guest", "migrate", "begin", "-").stdout == ""


NAMES = [
    'a "guest"',
    "back\\slash",
    "..",
    ".",
    "-n",
    "ä €",
    "a'b $(x) `y`",
    "tab\tand\x7f",
    '"',
    "%s\\n",
]


@SHELLS
@pytest.mark.parametrize("name", NAMES)
def test_an_ended_guest_leaves_no_note_whatever_its_name(
    tmp_path: Path, shell: str, name: str
) -> None:
    script = Script(tmp_path, shell, "exit 0")
    for note in (f"{name}.guest", f"{name}.wait"):
        script.note(note)
    script.note("other.guest")
    ended = script(name, "release", "end", "-")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert os.listdir(script.run / "guests") == ["other.guest"]
    wait_until(lambda: script.log() != [], "it is on record")
    [line] = script.log()
    assert (line["event"], line["guest"]) == ("ended", name)
    assert (script.run / "hook.log").stat().st_mode & 0o777 == 0o640
    assert script(name, "release", "end", "-").returncode == 0
    assert not script.calls.exists()
    assert len(script.log()) == 1  # nothing was noted of it


@SHELLS
def test_a_probe_leaves_no_log_of_libvirts(tmp_path: Path, shell: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("ramshelf-probe-1", "guest"):
        (logs / f"{name}.log").touch()
    script = Script(tmp_path, shell, "exit 10")
    for name in ("ramshelf-probe-1", "guest"):
        assert script(name, "release", "end", "-").returncode == 0
    assert os.listdir(logs) == ["guest.log"]


@SHELLS
def test_a_probe_is_refused_whether_the_hook_answers_or_is_broken(
    tmp_path: Path, shell: str
) -> None:
    for number, (program, said) in enumerate(
        (("echo hello >&2; exit 10", "hello\n"), ("exit 70", ""))
    ):
        (tmp_path / str(number)).mkdir()
        script = Script(tmp_path / str(number), shell, program)
        script.bypass(f"{since_boot() + 600}\n")
        ended = script("ramshelf-probe-1", "prepare", "begin", "-")
        assert ended.returncode == 1
        assert ended.stderr == said or "(status 70) [hook.broken]" in ended.stderr
        assert script.log() == []


@SHELLS
@pytest.mark.parametrize("operation", ["start", "migrate", "started"])
@pytest.mark.parametrize("end", ["exit 10", "exit 70"])
def test_while_the_bypass_lasts_guests_pass(
    tmp_path: Path, shell: str, operation: str, end: str
) -> None:
    script = Script(tmp_path, shell, f"cat >/dev/null; echo concerned; echo '<other/>'; {end}")
    script.note("guest.wait")
    script.bypass(f"{since_boot() + 600}\n")
    ended = script("guest", operation, "begin", "-")
    assert (ended.returncode, ended.stdout) == (0, "")
    [line] = script.log()
    if (operation, end) == ("started", "exit 70"):
        assert line["event"] == "broken"
    else:
        assert (line["event"], line["guest"], line["operation"]) == ("bypassed", "guest", operation)
        assert line["status"] == int(end.split()[1])
        assert "bypass' is in force" in ended.stderr


@SHELLS
@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "\n",
            "{past}\n",
            "{now}\n",
            "{far}\n",
            "0{soon}\n",
            "{soon}",
            "{soon}x\n",
            "-{soon}\n",
        ),
        *("{soon} 1\n", "9{soon}\n", "1e9\n", "$(({soon}))\n", "99999999999999999999\n"),
    ],
)
def test_what_is_no_bypass(tmp_path: Path, shell: str, text: str) -> None:
    now = since_boot()
    script = Script(tmp_path, shell, "exit 10")
    times = {"past": max(1, now - 1), "now": now, "far": now + LONGEST + 600, "soon": now + 600}
    script.bypass(text.format(**times))
    assert script("guest", "start", "begin", "-").returncode == 1
    assert script.log() == []


@SHELLS
def test_the_log_of_a_broken_hook_does_not_grow_without_end(tmp_path: Path, shell: str) -> None:
    script = Script(tmp_path, shell, "exit 70")
    log = script.run / "hook.log"
    log.write_text("x" * ((1 << 20) + 1))
    script("guest", "start", "begin", "-")
    assert len(script.log()) == 1
    assert Path(f"{log}.1").stat().st_size > 1 << 20
