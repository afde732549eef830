"""Which hosts are preferred: real host states through Nova's own handler."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nova.scheduler.weights import HostWeightHandler

from ramshelf_nova import figures
from ramshelf_nova.weigher import StoreHeadroomWeigher, headroom
from support.nova_objects import aggregate, host, request


def stats(
    total: int = 10000, promised: int = 0, ram: int = 1000, resident: int = 0
) -> dict[str, int]:
    return {
        figures.STORE_TOTAL_MIB: total,
        figures.STORE_PROMISED_MIB: promised,
        figures.RAM_MIB: ram,
        figures.RESIDENT_MIB: resident,
    }


def weights(hosts: list[Any]) -> dict[str, float]:
    weighed = HostWeightHandler().get_weighed_objects([StoreHeadroomWeigher()], hosts, request())
    return {each.obj.host: each.weight for each in weighed}


def test_the_scarcer_of_store_and_ram_counts() -> None:
    hosts = [
        host("full store", stats=stats(promised=9000), total_mib=10000, used_mib=9000),
        host("full RAM", stats=stats(promised=5000, resident=800), total_mib=10000, used_mib=5000),
        host("both free", stats=stats(promised=5000, resident=300), total_mib=10000, used_mib=5000),
    ]
    found = weights(hosts)
    assert list(found) == ["both free", "full RAM", "full store"]
    assert list(found.values()) == pytest.approx([0.5, 0.2, 0.1])


def test_what_nova_has_given_away_since_counts() -> None:
    state = host("one", stats=stats(promised=2000), total_mib=10000, used_mib=2000)
    assert headroom(state) == pytest.approx(0.8)
    spec = request()
    spec.flavor.memory_mb = 3000
    state.consume_from_request(spec)
    assert headroom(state) == pytest.approx(0.5)


def test_servers_of_one_request_are_spread() -> None:
    hosts = [host(name, stats=stats(), total_mib=10000) for name in ("one", "two", "three")]
    spec = request()
    for _ in range(6):
        best = HostWeightHandler().get_weighed_objects([StoreHeadroomWeigher()], hosts, spec)[0].obj
        best.consume_from_request(spec)
    assert [each.num_instances for each in hosts] == [2, 2, 2]


def test_without_figures_it_is_neutral() -> None:
    assert len(set(weights([host("one"), host("two", stats={"io_workload": 3})]).values())) == 1


def test_a_host_without_figures_is_neither_sought_nor_avoided() -> None:
    hosts = [
        host("busy", stats=stats(resident=800)),
        host("stock"),
        host("idle", stats=stats(resident=200)),
    ]
    assert list(weights(hosts)) == ["idle", "stock", "busy"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({figures.RAM_MIB: 100, figures.RESIDENT_MIB: 25}, 0.75),
        ({figures.STORE_TOTAL_MIB: 100, figures.STORE_PROMISED_MIB: 25}, 0.75),
        ({figures.STORE_TOTAL_MIB: 100}, None),
        ({figures.STORE_TOTAL_MIB: 0, figures.STORE_PROMISED_MIB: 0}, None),
        ({figures.RAM_MIB: "much", figures.RESIDENT_MIB: 25}, None),
        ({figures.RAM_MIB: 100, figures.RESIDENT_MIB: 250}, 0.0),
    ],
)
def test_figures_that_are_missing_or_odd(given: dict[str, Any], expected: float | None) -> None:
    assert headroom(host("one", stats=given)) == expected


sizes = st.integers(min_value=0, max_value=1 << 22)


@given(sizes, sizes, sizes, sizes, sizes)
def test_a_weight_is_a_share(total: int, promised: int, ram: int, resident: int, used: int) -> None:
    share = headroom(host("one", stats=stats(total, promised, ram, resident), used_mib=used))
    assert share is None or 0 <= share <= 1
    more = headroom(host("one", stats=stats(total, promised + 1, ram, resident + 1), used_mib=used))
    assert (share is None) == (more is None)
    assert share is None or more is None or more <= share


def test_multipliers(option: Callable[[str, Any], None]) -> None:
    hosts = [host("busy", stats=stats(resident=750)), host("idle", stats=stats())]
    assert weights(hosts) == {"idle": 1.0, "busy": 0.25}
    option("store_headroom_weight_multiplier", -2.0)
    assert weights(hosts) == {"busy": -0.5, "idle": -2.0}
    hosts[1].aggregates = [aggregate("few", store_headroom_weight_multiplier="0")]
    assert weights(hosts) == {"idle": 0.0, "busy": -0.5}
