"""The one place that runs another program."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import Protocol

from ramshelf.core.errors import ToolError
from ramshelf.core.record import dataclass
from ramshelf.system.steps import log_step

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ENVIRONMENT = {
    "PATH": SEARCH_PATH,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
}


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A program that has ended."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """A function that runs programs, handed to whoever needs one."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60,
        ok: Sequence[int] = (0,),
    ) -> Completed:
        """Run ``argv`` (no shell), and return it ended with a status in ``ok``.

        Raises ToolError ``tool.missing``, ``tool.timeout`` or ``tool.failed``.
        """


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 60,
    ok: Sequence[int] = (0,),
) -> Completed:
    """Run a program; this is the real Runner.

    The input is /dev/null unless given, the environment is a fixed one, and ``timeout`` is in
    seconds.
    """
    line = shlex.join(argv)
    facts: dict[str, object] = {"argv": list(argv)}
    log_step(line)
    try:
        ended = subprocess.run(  # noqa: S603 - argv lists only, never a shell
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=_ENVIRONMENT,
            cwd="/",
        )
    except FileNotFoundError as error:
        raise ToolError(
            "tool.missing", f"The command {argv[0]} is not installed.", facts=facts
        ) from error
    except OSError as error:
        raise ToolError(
            "tool.failed", f"{line}: {os.strerror(error.errno or 0)}.", facts=facts
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            "tool.timeout", f"{line} did not end within {timeout:g} s.", facts=facts
        ) from error
    completed = Completed(
        argv=tuple(argv), status=ended.returncode, stdout=ended.stdout, stderr=ended.stderr
    )
    if ended.returncode not in ok:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or ["no message"]
        raise ToolError(
            "tool.failed",
            f"{line} failed with status {ended.returncode}: {last[0]}",
            facts={**facts, "status": ended.returncode, "stderr": ended.stderr},
        )
    return completed
