"""The metrics: figures from what the agent has seen, which ``agent/endpoint.py`` serves."""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import ramshelf
from ramshelf.core.agent.conditions import Condition
from ramshelf.core.agent.counts import Counts
from ramshelf.core.agent.metrics import METRICS
from ramshelf.core.catalog import RULES
from ramshelf.core.config import Config
from ramshelf.core.findings import Severity
from ramshelf.core.store.write_errors import WriteErrors
from ramshelf.core.units import MIB
from ramshelf.node.agent.look import Look
from ramshelf.node.guest.look import StoreShares
from ramshelf.system.hypervisor import START_REASONS, STOP_REASONS


@dataclass(frozen=True, kw_only=True)
class Took:
    """When something was last done, in seconds since the epoch, and how long it took.

    Both are 0 before it ever was.
    """

    ended: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Whether the last pass over Placement was finished; the rest is of the last one that was.

    ``succeeded`` is when that was, in seconds since the epoch, 0 if never. The figures are in MiB,
    None where they are not known.
    """

    done: bool = False
    owned: bool = False
    succeeded: float = 0.0
    total_mib: int | None = None
    reserved_mib: int | None = None
    allocated_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that is given out, at one moment.

    ``reported`` is None where Placement is not used. ``bypass_left`` are the seconds for which the
    hook is bypassed. ``write_errors`` is None where they are not known.
    """

    config: Config = field(default_factory=Config)
    connected: bool = False
    look: Look | None = None
    looked: Took = Took()
    checked: Took = Took()
    conditions: tuple[Condition, ...] = ()
    counts: Counts = field(default_factory=Counts)
    reported: Reported | None = None
    bypass_left: int = 0
    write_errors: WriteErrors | None = None


Sample = tuple[tuple[str, ...], float]
"""The values of the labels, in the table's order, and the figure."""


def samples(known: Known) -> Iterator[tuple[str, Sample]]:
    """Yield every sample by its metric's name; a metric without any is left out."""
    yield from _agent(known)
    yield from _life(known)
    yield from _findings(known.conditions)
    if known.look is not None:
        yield from _store(known.look, known.config)
        for resource, pressure in known.look.pressure.items():
            yield "ramshelf_pressure_waiting_seconds_total", ((resource,), pressure.waiting)
            yield "ramshelf_pressure_stalled_seconds_total", ((resource,), pressure.stalled)
    if known.write_errors is not None:
        yield "ramshelf_store_write_errors_total", ((), float(known.write_errors.messages))
    if known.reported is not None:
        yield from _placement(known.reported)


def _agent(known: Known) -> Iterator[tuple[str, Sample]]:
    yield "libvirt_up", ((), float(known.connected))
    yield "ramshelf_look_timestamp_seconds", ((), known.looked.ended)
    yield "ramshelf_look_duration_seconds", ((), known.looked.seconds)
    yield "ramshelf_check_timestamp_seconds", ((), known.checked.ended)
    yield "ramshelf_check_duration_seconds", ((), known.checked.seconds)
    yield "ramshelf_build_info", ((ramshelf.__version__, platform.python_version()), 1.0)


def _life(known: Known) -> Iterator[tuple[str, Sample]]:
    counts = known.counts
    for name, counter, reasons in (
        ("ramshelf_guest_starts_total", counts.starts, START_REASONS),
        ("ramshelf_guest_stops_total", counts.stops, STOP_REASONS),
    ):
        for reason in dict.fromkeys((*reasons, *counter)):
            yield name, ((reason,), float(counter[reason]))
    for code, number in counts.refusals.items():
        yield "ramshelf_guest_refusals_total", ((code,), float(number))
    yield "ramshelf_hook_bypass_seconds", ((), float(known.bypass_left))
    yield "ramshelf_hook_bypassed_guests_total", ((), float(counts.bypassed))
    yield "ramshelf_guest_start_written_bytes_total", ((), counts.start_written)
    yield "ramshelf_guest_stop_written_bytes_total", ((), counts.stop_written)
    yield "ramshelf_late_reservations_total", ((), float(counts.late))
    yield "ramshelf_cleaned_directories_total", ((), float(counts.cleaned))


def _findings(conditions: Iterable[Condition]) -> Iterator[tuple[str, Sample]]:
    counts = {
        (rule.code, rule.severity.value): 0
        for rule in RULES.values()
        if rule.severity is not Severity.OK
    }
    for condition in conditions:
        key = condition.code, condition.severity.value
        counts[key] = counts.get(key, 0) + 1
    for key, number in counts.items():
        yield "ramshelf_findings", (key, float(number))


def _store(look: Look, config: Config) -> Iterator[tuple[str, Sample]]:
    shares = look.shares
    on_store = len(shares.guests) if shares is not None else 0
    yield "ramshelf_guests", (("store",), float(on_store))
    yield "ramshelf_guests", (("elsewhere",), float(len(look.active) - on_store))
    yield "ramshelf_store_mounted", ((), float(shares is not None))
    if shares is None or look.usage is None:
        return
    mount = shares.store.mount
    yield "ramshelf_store_info", ((shares.store.kind.value, mount.fstype, mount.mount_point), 1.0)
    reserved = config.reserved_host_memory_mib * MIB if config.nova_files else 0
    for name, figure in (
        ("size", look.usage.size),
        ("capacity", shares.capacity.total),
        ("reserved", reserved),
        ("promised", shares.capacity.promised),
        ("free", shares.capacity.free),
        ("allocated", shares.capacity.allocated),
        ("resident", sum(guest.resident for guest in shares.guests)),
        (
            "nonresident",
            sum(_nonresident(guest.allocated, guest.resident) for guest in shares.guests),
        ),
        ("unowned", sum(holding.promised for holding in shares.unknown)),
    ):
        yield f"ramshelf_store_{name}_bytes", ((), float(figure))
    yield "ramshelf_store_device_read_bytes_total", ((), float(look.read))
    yield "ramshelf_store_device_written_bytes_total", ((), float(look.written))
    yield "ramshelf_ram_size_bytes", ((), float(shares.ram.size))
    yield "ramshelf_ram_free_bytes", ((), float(shares.ram.free))
    for part, size in shares.ram.demand.parts.items():
        yield "ramshelf_ram_needed_bytes", ((part,), float(size))
    yield "ramshelf_ram_anonymous_alone", ((), float(shares.ram.anonymous_alone))
    yield from _guests(shares)


def _guests(shares: StoreShares) -> Iterator[tuple[str, Sample]]:
    for guest in shares.guests:
        domain, allocated, resident = guest.domain.name, guest.allocated, guest.resident
        for name, figure in (
            ("size", guest.size),
            ("promised", guest.promised),
            ("allocated", allocated),
            ("resident", resident),
            ("nonresident", _nonresident(allocated, resident)),
        ):
            yield f"libvirt_domain_memory_backing_{name}_bytes", ((domain,), float(figure))


def _nonresident(allocated: int, resident: int) -> int:
    """Return what is allocated but not in RAM, which is never less than 0.

    The two are looked at one after the other, or the second some rounds ago.
    """
    return max(0, allocated - resident)


def _placement(reported: Reported) -> Iterator[tuple[str, Sample]]:
    yield "ramshelf_placement_up", ((), float(reported.done))
    yield "ramshelf_placement_owned", ((), float(reported.owned))
    yield "ramshelf_placement_report_timestamp_seconds", ((), reported.succeeded)
    for name, mib in (
        ("capacity", reported.total_mib),
        ("reserved", reported.reserved_mib),
        ("allocated", reported.allocated_mib),
    ):
        if mib is not None:
            yield f"ramshelf_placement_{name}_bytes", ((), float(mib * MIB))


class Exporter(Collector):
    """Gives out what was published last, in other threads too.

    So a scrape costs the agent's loop nothing. ``registry`` has it and the figures of this process.
    """

    def __init__(self) -> None:
        self._known = Known()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def publish(self, known: Known) -> None:
        """Give this out from now on."""
        self._known = known

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, for a scrape."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, (labels, value) in samples(self._known):
            family = families.get(name)
            if family is None:
                metric = METRICS[name]
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = families[name] = kind(name, metric.help, labels=metric.labels)
            family.add_metric(labels, value)
        yield from families.values()
