"""What is asked of Placement, and how long an answer counts.

The requests are counted here, and the real Placement answers them as well.
"""

import functools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nova.scheduler.client.report import SchedulerReportClient
from os_traits import COMPUTE_MEM_BACKING_FILE
from oslo_config import cfg
from placement import conf as placement_conf
from placement import db_api
from placement.direct import PlacementDirect

from ramshelf_nova.backing import Backings, BackingUnknown
from ramshelf_nova.core.store.kind import Kind
from support.placement_answers import Placement, Response


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_counts_for_its_time() -> None:
    placement, clock = Placement({"one": [COMPUTE_MEM_BACKING_FILE]}), Clock()
    backings = Backings(placement.get, clock)
    before = backings.file_backed()
    placement.hosts = {}
    clock.now += 59.9
    assert backings.file_backed() == before
    assert len(placement.asked) == 1
    clock.now += 0.2
    assert backings.file_backed() == frozenset()
    assert len(placement.asked) == 2


def test_none_counts_where_configured(option: Callable[[str, Any], None]) -> None:
    option("file_backed_memory_cache_seconds", 0)
    placement = Placement()
    backings = Backings(placement.get, Clock())
    backings.file_backed()
    backings.file_backed()
    assert len(placement.asked) == 2


def test_an_old_answer_does_not_stand_in_for_a_failure() -> None:
    placement, clock = Placement(), Clock()
    backings = Backings(placement.get, clock)
    backings.file_backed()
    placement.away = True
    backings.file_backed()
    clock.now += 61
    with pytest.raises(BackingUnknown, match="it is away"):
        backings.file_backed()


def test_an_error_of_placement_is_no_answer() -> None:
    backings = Backings(lambda _url: Response({}, status_code=503, text="Service Unavailable"))
    with pytest.raises(BackingUnknown, match="503 Service Unavailable"):
        backings.file_backed()
    with pytest.raises(BackingUnknown, match="503 Service Unavailable"):
        backings.pinnable()


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A Placement of the newest release in this process, and Nova's own client to it."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    conf = cfg.ConfigOpts()
    placement_conf.register_opts(conf)
    conf.set_override(
        "connection", f"sqlite:///{tmp_path}/placement.sqlite", group="placement_database"
    )
    conf.set_override("sync_on_startup", True, group="placement_database")
    conf([], project="placement", default_config_files=[], default_config_dirs=[])
    db_api.configure(conf)
    direct = PlacementDirect(conf)
    direct.app = functools.cache(direct.app)  # one for all requests
    with direct as adapter:
        monkeypatch.setattr(
            "nova.scheduler.client.report.PLACEMENTCLIENT", SchedulerReportClient(adapter)
        )
        yield adapter
    db_api.get_placement_engine().dispose()


def test_what_placement_understands(real: Any) -> None:
    def provide(*traits: str) -> str:
        provider = str(uuid.uuid4())
        real.post(
            "/resource_providers", json={"name": provider, "uuid": provider}, microversion="1.39"
        )
        for trait in traits:
            real.put(f"/traits/{trait}", microversion="1.39")
        body = {"traits": list(traits), "resource_provider_generation": 0}
        answer = real.put(f"/resource_providers/{provider}/traits", json=body, microversion="1.39")
        assert answer.status_code == 200, answer.text
        return provider

    plain, file_backed = provide(), provide(COMPUTE_MEM_BACKING_FILE)
    assert Backings().file_backed() == {file_backed}
    assert Backings().pinnable() == frozenset()  # nobody has named a kind yet
    disk = provide(COMPUTE_MEM_BACKING_FILE, Kind.DISK.trait)
    assert Backings().pinnable() == frozenset()
    swap = provide(COMPUTE_MEM_BACKING_FILE, Kind.SWAP.trait)
    assert Backings().pinnable() == {swap}
    ram = provide(COMPUTE_MEM_BACKING_FILE, Kind.RAM.trait)
    assert Backings().pinnable() == {swap, ram}
    assert Backings().file_backed() == {file_backed, disk, swap, ram}
    assert plain not in Backings().file_backed()
