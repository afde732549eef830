"""The metrics: the table, and what comes out of what the agent knows."""

import re
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ramshelf.agent.metrics import Exporter, Known, Reported, Took, samples
from ramshelf.core.agent.conditions import Condition
from ramshelf.core.agent.counts import Counts
from ramshelf.core.agent.metrics import METRICS, SECTIONS
from ramshelf.core.config import Config
from ramshelf.core.findings import Severity
from ramshelf.core.ram import Balance, Demand
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import StoreUsage, capacity
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.write_errors import WriteErrors
from ramshelf.core.units import MIB
from ramshelf.node.agent.look import Look
from ramshelf.node.guest.look import ObservedFile, RunningGuest, StoreShares
from ramshelf.system.hypervisor import Domain
from ramshelf.system.procfs import Pressure
from support.good_host import NOVA_CONF, RAM_FILE, STORE

WEB = Domain(name="web", uuid="u", domain_id=3, state="running")
USAGE = STORE.usage
assert isinstance(STORE.store, Store)
assert isinstance(USAGE, StoreUsage)
SHARES = StoreShares(
    store=STORE.store,
    capacity=capacity(USAGE, configured_mib=None),
    ram=Balance(size=1000, demand=Demand(host=300, anonymous=900), anonymous_alone=True),
    guests=(
        RunningGuest(
            domain=WEB,
            promised=RAM_FILE.apparent,
            files=(
                ObservedFile(
                    path=RAM_FILE.path,
                    size=RAM_FILE.apparent,
                    allocated=512 * MIB,
                    resident=300 * MIB,
                ),
            ),
        ),
    ),
    unknown=(),
)
LOOK = Look(
    active={"web": WEB, "other": replace(WEB, name="other", uuid="v", domain_id=4)},
    shares=SHARES,
    usage=USAGE,
    problem=None,
    stale=(),
    read=1000,
    written=2000,
    pressure={"memory": Pressure(waiting=1.5, stalled=0.5)},
)
KNOWN = Known(
    config=Config(reserved_host_memory_mib=8, nova_files=(NOVA_CONF,)),
    connected=True,
    look=LOOK,
    looked=Took(ended=100.0, seconds=0.02),
    checked=Took(ended=90.0, seconds=0.2),
    conditions=(Condition(code="hook.missing", severity=Severity.FAILURE, sentence="It is."),),
    counts=Counts(refusals=Counter({"capacity.exceeded": 2})),
    reported=Reported(
        done=True, owned=True, succeeded=80.0, total_mib=65536, reserved_mib=0, allocated_mib=2048
    ),
    write_errors=WriteErrors(messages=4, last="It failed."),
)


def scraped(known: Known) -> dict[str, float]:
    """As Prometheus reads it."""
    exporter, registry = Exporter(), CollectorRegistry()
    registry.register(exporter)
    exporter.publish(known)
    text = generate_latest(registry).decode()
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_names_are_as_prometheus_wants_them() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"(ramshelf|libvirt)_[a-z_]+", metric.name)
        assert not re.search(r"_(mib|kib|milliseconds|gauge|counter)(_|$)", metric.name)
        assert metric.help.endswith(".")
        assert metric.section in SECTIONS
        assert ("domain" in metric.labels) == metric.name.startswith("libvirt_domain_")


def test_labels_tell_no_more_than_a_neighbour_may_know() -> None:
    """Labels hold guests' names, the store's place, and words of ramshelf's and libvirt's.

    They are listed in docs/reference/metrics.md.
    """
    assert {label for metric in METRICS.values() for label in metric.labels} == {
        "backing",
        "code",
        "domain",
        "file_system",
        "kind",
        "mount_point",
        "part",
        "python",
        "reason",
        "resource",
        "severity",
        "version",
    }


def test_every_metric_is_given_out_and_no_other() -> None:
    found = list(samples(KNOWN))
    assert {name for name, _ in found} == set(METRICS)
    for name, (labels, _) in found:
        assert len(labels) == len(METRICS[name].labels)


def test_no_series_comes_twice() -> None:
    found = Counter((name, labels) for name, (labels, _) in samples(KNOWN))
    assert set(found.values()) == {1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("libvirt_domain_memory_backing_resident_bytes{web}", 300 * MIB),
        ("ramshelf_store_write_errors_total", 4),
        ("libvirt_domain_memory_backing_nonresident_bytes{web}", 212 * MIB),
        ("ramshelf_store_reserved_bytes", 8 * MIB),
        ("ramshelf_guests{store}", 1),
        ("ramshelf_guests{elsewhere}", 1),
        ("ramshelf_store_device_written_bytes_total", 2000),
        ("ramshelf_pressure_waiting_seconds_total{memory}", 1.5),
        ("ramshelf_ram_size_bytes", 1000),
        ("ramshelf_ram_needed_bytes{host}", 300),
        ("ramshelf_ram_needed_bytes{pinned}", 0),
        ("ramshelf_ram_free_bytes", 0),
        ("ramshelf_ram_anonymous_alone", 1),
        ("ramshelf_findings{hook.missing}{failure}", 1),
        ("ramshelf_findings{hook.outdated}{warning}", 0),
        ("ramshelf_guest_refusals_total{capacity.exceeded}", 2),
        ("ramshelf_guest_stops_total{crashed}", 0),
        ("ramshelf_placement_allocated_bytes", 2048 * MIB),
        ("ramshelf_placement_report_timestamp_seconds", 80),
        ("libvirt_up", 1),
    ],
)
def test_figures(name: str, value: float) -> None:
    assert scraped(KNOWN)[name] == value


def test_before_the_first_look_there_are_no_figures_of_the_store() -> None:
    found = scraped(Known())
    assert found["libvirt_up"] == 0
    assert not any("store" in name.partition("{")[0] for name in found)
    assert not any("placement" in name.partition("{")[0] for name in found)


def test_without_a_store_only_that_is_told() -> None:
    problem = NoStore(code="store.not-mounted", sentence="It is not.", hint="Mount it.")
    found = scraped(replace(KNOWN, look=replace(LOOK, shares=None, usage=None, problem=problem)))
    assert found["ramshelf_store_mounted"] == 0
    assert "ramshelf_store_capacity_bytes" not in found
    assert found["ramshelf_guests{elsewhere}"] == 2


def test_more_may_be_in_ram_than_was_allocated_a_moment_before() -> None:
    guest = SHARES.guests[0]
    file = replace(guest.files[0], resident=600 * MIB)
    shares = replace(SHARES, guests=(replace(guest, files=(file,)),))
    found = scraped(replace(KNOWN, look=replace(LOOK, shares=shares)))
    assert found["libvirt_domain_memory_backing_nonresident_bytes{web}"] == 0


def test_what_placement_does_not_tell_is_left_out() -> None:
    found = scraped(replace(KNOWN, reported=Reported(done=False, owned=False, succeeded=0.0)))
    assert found["ramshelf_placement_up"] == 0
    assert "ramshelf_placement_capacity_bytes" not in found
