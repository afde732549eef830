"""The hook as it is installed, but for one thing that goes wrong on purpose."""

import json
from pathlib import Path

import ramshelf
from ramshelf.core.hookscript import SCRIPT, HookScript, render
from support.cli import RAMSHELF
from support.stores import MEMORY

_DRIVER = '''\
"""hook/__main__.py with a fault."""
import json, os, shutil, signal, sys
fault = json.load(open({fault!r}))
sys.path.append({library!r})
from ramshelf.core import guest
from ramshelf.hook.call import main
if fault["memory_ids"] is not None:
    guest.MEMORY_IDS = tuple(map(tuple, fault["memory_ids"]))
operation = sys.argv[sys.argv.index("--") + 2]
in_background = operation == "release"  # its steps would come between those of the next start
def step(name):
    name = operation + " " + name
    if in_background and name != fault["kill_at"]:
        return
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
    """An installed script that runs the hook with a fault; ``steps`` are those that were reached."""

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
        script = HookScript(python=str(Path(RAMSHELF).with_name("python")), main=str(driver), config_files=())
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
        """SIGKILL the hook after this step (its script first), fail at this operation, use other names.

        ``copy_to`` is made after the step ``copy_at``, with all that lies on the store then.
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

    @property
    def steps(self) -> list[str]:
        """OPERATION STEP in the order reached since ``set``."""
        return self._steps.read_text().splitlines() if self._steps.exists() else []
