"""The agent as a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ramshelf.core.agent.unit import units
from support.cli import RAMSHELF
from support.process import HANG, run, wait_until

CONF = Path("/etc/ramshelf/ramshelf.conf")
_LOG = Path("/run/agent.log")
_METRICS = "http://127.0.0.1:10177/metrics"


class Agent:
    """One run of ``ramshelf agent run``, which logs to a file.

    ``door`` is the Unix socket of a listener that serves its metrics.
    """

    def __init__(
        self, *options: str, door: str = "", wrapper: tuple[str, ...] = (), **environment: str
    ) -> None:
        lent = ("--metrics-socket", door) if door else ()
        self._begin = _LOG.stat().st_size if _LOG.exists() else 0
        with _LOG.open("ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, RAMSHELF, *options, "agent", "run", *lent],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def log(self) -> list[dict[str, Any]]:
        """Return the lines that it has written so far."""
        text = _LOG.read_bytes()[self._begin :].decode()
        return [json.loads(line) for line in text.splitlines()]

    def wait_log(self, event: str, **facts: object) -> dict[str, Any]:
        """Wait for a line about ``event`` with these facts, and return the first one."""
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            assert self.process.poll() is None, self.log()
            found[:] = [
                line
                for line in self.log()
                if line["event"] == event and facts.items() <= line.items()
            ]
            return bool(found)

        self.wait(seen, f"the agent logs {event} {facts}")
        return found[0]

    def events(self) -> list[str]:
        """Return the event of each line that it has logged, for conditions with their code."""
        return [f"{line['event']} {line.get('code', '')}".strip() for line in self.log()]

    def scrape(self) -> Mapping[str, float]:
        """Return every sample by its name and labels, as the text has them.

        There are none while it does not serve.
        """
        lines = (
            line.rpartition(" ") for line in self.scraped().splitlines() if not line.startswith("#")
        )
        return {name: float(value) for name, _, value in lines}

    def scraped(self) -> str:
        """Return the text of a scrape as it comes; '' while it does not serve."""
        try:
            with urllib.request.urlopen(_METRICS, timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def wait_metric(self, name: str, ready: Callable[[float], bool]) -> None:
        """Wait until a sample is there and ``ready`` accepts its value."""

        def seen() -> bool:
            figures = self.scrape()
            return name in figures and ready(figures[name])

        self.wait(seen, f"the metric {name} is as expected")

    def wait_closed(self) -> None:
        """Wait until nobody listens for scrapes."""

        def closed() -> bool:
            try:
                socket.create_connection(("127.0.0.1", 10177), timeout=HANG).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(closed, "nobody listens for scrapes")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Send it SIGTERM, and return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=HANG)

    def kill(self) -> None:
        """Send it SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait(timeout=HANG)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until ``ready`` says so; a TimeoutError tells what the agent has logged."""
        try:
            wait_until(ready, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it logged {self.log()}") from None


@contextmanager
def agent(
    *options: str,
    wait: bool = True,
    conf: str = "",
    door: str = "",
    wrapper: tuple[str, ...] = (),
) -> Iterator[Agent]:
    """Run an agent that looks each second and checks every ten; ``wait``: until it has looked once.

    At the end it must still run, end well when it is told to, and have met no bug.
    """
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(f"[ramshelf]\nlook_interval = 1\ncheck_interval = 10\n{conf}")
    running = Agent(*options, door=door, wrapper=wrapper)
    try:
        if wait:
            running.wait_metric("ramshelf_check_timestamp_seconds", lambda value: value > 0)
        yield running
        assert running.process.poll() is None, running.log()
        assert running.stop() == 0
        assert "began internal.bug" not in running.events(), running.log()
    finally:
        if running.process.poll() is None:
            running.kill()


_CONFINE = """
mkdir -p /run/ramshelf
mount --bind /run/ramshelf /run/ramshelf
findmnt --raw --noheadings --output TARGET | while read -r at; do
  case $at in /proc* | /dev* | /sys/fs/cgroup* | /run/ramshelf | /var/lib/libvirt/qemu*) \
continue ;; esac
  mount -o remount,bind,ro "$at"
done
exec "$@"
"""


def confined() -> tuple[str, ...]:
    """Return the command that confines the agent as its unit does.

    It goes as far as that is possible without systemd. It limits the capabilities, forbids new
    privileges, and makes everything read-only except what the agent has to write.
    """
    *_, unit = units(("/bin/true",), (), ())
    kept = re.findall(r"^CapabilityBoundingSet=CAP_(\w+)$", unit.text, re.MULTILINE)
    bounds = ",".join(("-all", *(f"+{name.lower()}" for name in kept)))
    unshared = ("unshare", "--mount", "--propagation", "slave", "bash", "-ec", _CONFINE, "confined")
    return (*unshared, "setpriv", "--bounding-set", bounds, "--inh-caps=-all", "--no-new-privs")


def promtool(text: str) -> str:
    """Return what promtool complains of in a scrape."""
    ended = run("promtool", "check", "metrics", stdin=text, ok=(0, 1, 3))
    return ended.stdout + ended.stderr
