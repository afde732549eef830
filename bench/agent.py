"""The agent: CPU time of one look at the host, and of one scrape, by the number of guests.

libvirt is its own test driver, which holds the guests in this process; their memory files are real, each with
some pages in RAM.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt
from prometheus_client import CollectorRegistry, generate_latest

from bench.stores import MEMORY, store
from ramshelf.agent.metrics import Exporter, Known
from ramshelf.agent.residency import Residency
from ramshelf.core.config import Config
from ramshelf.core.units import MIB
from ramshelf.node.watching import look
from ramshelf.system.hypervisor import Hypervisor
from support.libvirtd import Libvirtd

GUESTS = (10, 100, 500, 1000)
_PAGES = 64 * 4096
_URI = "test:///default"
_BUDGET = 0.05
"""Seconds in which the agent may look for what of the memory files is in RAM, at its default interval."""

_XML = """\
<domain type='test'>
  <name>{name}</name>
  <memory unit='MiB'>1</memory>
  <os><type>hvm</type></os>
</domain>
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """CPU time of this process, all its threads; ``share``: percent of one core at an interval of 10 s."""

    guests: int
    what: str
    milliseconds: float
    share: float


class _TestDriver(Hypervisor):
    driver = "TEST"


def measure(daemon: Libvirtd, *, quick: bool) -> Iterator[Sample]:  # noqa: ARG001 - every table has it
    """Each number of guests; the first round of each warms up."""
    for guests in GUESTS[:2] if quick else GUESTS:
        with store("tmpfs", 2048), _guests(guests), _TestDriver(_URI) as hypervisor:
            for what, run in _measured(hypervisor).items():
                for number in range(1 + (3 if quick else 20)):
                    seconds = _cpu(run)
                    if number:
                        yield Sample(
                            guests=guests, what=what, milliseconds=seconds * 1000, share=seconds / 10 * 100
                        )


def _measured(hypervisor: Hypervisor) -> dict[str, Callable[[], object]]:
    residency, exporter, config = Residency(), Exporter(), Config()
    registry = CollectorRegistry()
    registry.register(exporter)

    def once() -> None:
        residency.begin(_BUDGET)
        exporter.publish(
            Known(config=config, connected=True, look=look(hypervisor, config, measure=residency))
        )

    return {"look": once, "scrape": lambda: generate_latest(registry)}


@contextmanager
def _guests(count: int) -> Iterator[None]:
    """Guests that run, as far as libvirt's test driver and their memory files tell."""
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
