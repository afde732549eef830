"""The agent: CPU time of each thing that it does again and again, by the number of guests."""

# libvirt's own test driver holds the guests in this process: what libvirtd spends is not in the
# figures, nor what it costs the doctor to look at QEMU's processes. The memory files are real, each
# with some pages in RAM, and so is Placement, which is a process of its own.

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import libvirt
from prometheus_client import CollectorRegistry, generate_latest

from bench.stores import MEMORY, store
from ramshelf.agent.doctor import Checker
from ramshelf.agent.log import Log
from ramshelf.agent.look import Watcher
from ramshelf.agent.metrics import Exporter, Known
from ramshelf.agent.problems import Problems
from ramshelf.core.config import Config
from ramshelf.core.findings import Severity
from ramshelf.core.units import MIB
from ramshelf.node.placement import look_at_host, reconcile
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.placement import Placement
from ramshelf.system.settings import load_config
from support.libvirtd import Libvirtd
from support.placement_service import placement_service

GUESTS = (10, 100, 500, 1000)
_PAGES = 64 * 4096
_URI = "test:///default"
INTERVALS = {
    "look": Config.look_interval,
    "scrape": 15,
    "report": Config.report_interval,
    "check": Config.check_interval,
}
"""The seconds from one to the next, by default; a scrape's are those usual with Prometheus."""

_XML = """\
<domain type='test'>
  <name>{name}</name>
  <memory unit='MiB'>1</memory>
  <os><type>hvm</type></os>
</domain>
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The CPU time that all threads of this process spent on ``what``.

    ``share`` is what that is in percent of one core, if it is done every ``interval`` seconds.
    """

    guests: int
    what: str
    interval: int
    milliseconds: float
    share: float


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:  # noqa: ARG001 - as all tables
    """Measure each number of guests; the first round of each warms up."""
    for guests in GUESTS[:2] if quick else GUESTS:
        with ExitStack() as open_:
            open_.enter_context(store("tmpfs", 2048))
            open_.enter_context(_guests(guests))
            open_.enter_context(patch.object(Hypervisor, "driver", "TEST"))
            hypervisor = open_.enter_context(Hypervisor(_URI))
            placement = open_.enter_context(_placement())
            for what, run in _measured(hypervisor, placement).items():
                for number in range(1 + (3 if quick else 20)):
                    seconds = _cpu(run)
                    if number:
                        interval = INTERVALS[what]
                        yield Sample(
                            guests=guests,
                            what=what,
                            interval=interval,
                            milliseconds=seconds * 1000,
                            share=seconds / interval * 100,
                        )


def _measured(hypervisor: Hypervisor, placement: Placement) -> dict[str, Callable[[], object]]:
    exporter, config = Exporter(), Config()
    registry = CollectorRegistry()
    registry.register(exporter)
    log = Log()
    problems = Problems(log, lambda: Severity.FAILURE)
    watcher = Watcher(problems, log)

    def turn() -> None:
        watcher.turn(hypervisor, config)
        problems.tell()
        exporter.publish(
            Known(
                config=config,
                connected=True,
                look=watcher.look,
                conditions=problems.now,
                counts=watcher.counts.copy(),
            )
        )

    def report() -> None:
        done = reconcile(placement, lambda: look_at_host(hypervisor, config))
        if not done.done:
            raise RuntimeError(done)

    checker = Checker()
    return {
        "look": turn,
        "scrape": lambda: generate_latest(registry),
        "report": report,
        "check": lambda: checker.checked(config, _URI, (), ()),
    }


@contextmanager
def _placement() -> Iterator[Placement]:
    """Run an empty Placement as a service, and yield the client that the agent has of it."""
    with TemporaryDirectory() as name, placement_service(Path(name)) as service:
        conf = Path(name, "ramshelf.conf")
        conf.write_text(f"[ramshelf]\nplacement_owner = true\n{service.configuration()}")
        with Placement(load_config([str(conf)]), "bench.example.org") as placement:
            yield placement


@contextmanager
def _guests(count: int) -> Iterator[None]:
    """Have guests that run, as far as libvirt's test driver and their memory files tell."""
    connection = libvirt.open(_URI)
    domains: list[Any] = []
    try:
        for number in range(count):
            domain = connection.createXML(_XML.format(name=f"bench{number}"))
            domains.append(domain)
            directory = MEMORY / f"{domain.ID()}-{domain.name()}"
            directory.mkdir(mode=0o700)
            with open(directory / "pc.ram", "wb") as file:
                file.write(bytes(_PAGES))
                file.truncate(MIB)
        yield
    finally:
        for domain in domains:
            directory = MEMORY / f"{domain.ID()}-{domain.name()}"
            domain.destroy()
            shutil.rmtree(directory, ignore_errors=True)
        connection.close()


def _cpu(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun
