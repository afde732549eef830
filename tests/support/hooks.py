"""The hook as it is installed, except for one thing that goes wrong on purpose."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ramshelf
from ramshelf.core.hook.script import SCRIPT, HookScript, render
from support.process import wait_until
from support.stores import MEMORY

_BYPASS = Path("/run/ramshelf/bypass")


@contextmanager
def bypassed() -> Iterator[None]:
    """Let guests pass, whatever the hook says."""
    _BYPASS.parent.mkdir(exist_ok=True)
    _BYPASS.write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME) + 600:.0f}\n")
    try:
        yield
    finally:
        _BYPASS.unlink()


_DRIVER = '''\
"""hook/__main__.py with a fault."""
import json, os, shutil, signal, sys
fault = json.load(open({fault!r}))
sys.path.append({library!r})
from ramshelf.core.domain import memory as guest
from ramshelf.hook.call import main
if fault["memory_ids"] is not None:
    guest.MEMORY_IDS = tuple(map(tuple, fault["memory_ids"]))
operation = sys.argv[sys.argv.index("--") + 2]
def step(name):
    name = operation + " " + name
    with open({steps!r}, "a") as log:
        log.write(name + chr(10))
    if name == fault["copy_at"]:
        shutil.copytree({memory!r}, fault["copy_to"], ignore=shutil.ignore_patterns("lost+found"))
    if name == fault["kill_at"]:
        if fault["script_too"]:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
if operation == fault["broken_at"]:
    sys.exit(70)
step("begun")
status = main(sys.argv[1:], sys.stdin.buffer.read, step)
step("decided")
sys.exit(status)
'''


class FaultyHook:
    """An installed script that runs the hook with a fault and records the ``steps`` it reached."""

    def __init__(self, directory: Path) -> None:
        self._fault = directory / "fault.json"
        self._steps = directory / "steps"
        driver = directory / "driver.py"
        library = str(Path(ramshelf.__file__).parents[1])
        driver.write_text(
            _DRIVER.format(
                fault=str(self._fault), steps=str(self._steps), library=library, memory=str(MEMORY)
            )
        )
        self.set()
        script = HookScript(python="/usr/bin/python3", main=str(driver), config_files=())
        path = Path(SCRIPT)
        path.parent.mkdir(exist_ok=True)
        path.write_text(render(script))
        path.chmod(0o755)

    def set(
        self,
        *,
        kill_at: str = "",
        script_too: bool = False,
        broken_at: str = "",
        copy_at: str = "",
        copy_to: Path | None = None,
        memory_ids: list[tuple[str, str, str]] | None = None,
    ) -> None:
        """Choose the fault: a step to be killed after, an operation that fails, other memory ids.

        The hook is killed with SIGKILL, with ``script_too`` its script first. ``copy_to`` is made
        after the step ``copy_at``, with all that lies on the store then.
        """
        self._steps.unlink(missing_ok=True)
        self._fault.write_text(
            json.dumps(
                {
                    "kill_at": kill_at,
                    "script_too": script_too,
                    "broken_at": broken_at,
                    "copy_at": copy_at,
                    "copy_to": str(copy_to),
                    "memory_ids": memory_ids,
                }
            )
        )

    def wait(self, step: str) -> None:
        """Wait until this step was reached: libvirt does not wait for all that the hook does."""
        wait_until(lambda: step in self.steps, f"the hook has come to {step!r}")

    @property
    def steps(self) -> list[str]:
        """The steps reached since ``set``, in order, each as ``OPERATION STEP``."""
        return self._steps.read_text().splitlines() if self._steps.exists() else []
