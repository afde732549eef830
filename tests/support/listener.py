"""The listener of the agent's metrics as a process of its own, as its units start it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNPRIVILEGED = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--no-new-privs",
)
_AS_SYSTEMD_DOES = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'


class Listener:
    """Who waits for the agent at a Unix socket, which stays when the process ends."""

    def __init__(self, door: socket.socket, wrapper: tuple[str, ...]) -> None:
        self._door = door
        self._wrapper = wrapper
        self.start()

    def start(self) -> None:
        """Start the process, as systemd does when somebody connects."""
        program = (sys.executable, "-I", "-m", "ramshelf.agent.listener")
        self.process = subprocess.Popen(
            ["bash", "-c", _AS_SYSTEMD_DOES, "listener", *self._wrapper, *program],
            stdin=self._door.fileno(),
        )

    def kill(self) -> None:
        """Send it SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()


@contextmanager
def listener(door: Path, wrapper: tuple[str, ...] = ()) -> Iterator[Listener]:
    """Have a listener wait at ``door``; ``wrapper`` is a command that starts it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        door.parent.mkdir(exist_ok=True)
        waiting.bind(str(door))
        door.chmod(0o600)
        waiting.listen()
        running = Listener(waiting, wrapper)
        try:
            yield running
            assert running.process.poll() is None
        finally:
            running.kill()
            door.unlink()
