"""The doctor beside a real nova-compute, whose report to Placement is compared with the store."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.cli import ramshelf
from support.libvirtd import Libvirtd
from support.nova.cloud import Cloud, cloud
from support.nova.conf import NOVA_CONF, Settings
from support.stores import store

TRAIT = "COMPUTE_MEM_BACKING_FILE"


def findings() -> dict[str, dict[str, Any]]:
    """The doctor's findings about configuration and Placement, by code."""
    document = json.loads(ramshelf("doctor", "--json", ok=(0, 1, 2)).stdout)
    found = {finding["code"]: finding for finding in document["findings"]}
    return {code: found[code] for code in found if code.startswith(("config.", "placement."))}


def told(mib: int) -> Settings:
    return {"libvirt": {"file_backed_memory": mib}}


@pytest.fixture(scope="module")
def prepared(libvirtd: Libvirtd) -> Iterator[Cloud]:  # noqa: ARG001
    with store("tmpfs", 512), cloud(told(512)) as running:
        ramshelf("hook", "install")
        yield running


@pytest.fixture
def beside(prepared: Cloud) -> Iterator[Cloud]:
    yield prepared
    prepared.clear()


def test_they_agree(beside: Cloud) -> None:
    server = beside.boot()
    found = findings()
    assert set(found) == {"config.ok", "placement.no-kind-trait"}
    provider_config = NOVA_CONF.parent / "provider_config"
    provider_config.mkdir()
    (provider_config / "ramshelf.yaml").write_text(ramshelf("placement", "provider-config").stdout)
    beside.restart()
    found = findings()
    assert set(found) == {"config.ok", "placement.ok"}
    assert found["placement.ok"]["facts"]["total_mib"] == 512
    assert found["placement.ok"]["facts"]["allocated_mib"] == 128
    assert found["placement.ok"]["facts"]["provider"] == beside.placement.provider(beside.node)
    beside.compute.delete(server)


@pytest.mark.parametrize(("mib", "word"), [(1024, "exceeds"), (256, "below")])
def test_nova_was_told_another_size(beside: Cloud, mib: int, word: str) -> None:
    beside.configure(told(mib))
    try:
        beside.restart()
        found = findings()
        assert {f"config.{word}-store", f"placement.{word}-store"} <= set(found)
        assert found[f"placement.{word}-store"]["facts"]["total_mib"] == mib
        assert found[f"placement.{word}-store"]["facts"]["capacity_mib"] == 512
    finally:
        beside.configure(told(512))
        beside.restart()


def test_somebody_has_changed_what_placement_has(beside: Cloud) -> None:
    """A ratio and a trait; nova-compute's next report puts them right."""
    path = f"/resource_providers/{beside.placement.provider(beside.node)}"
    traits = beside.placement.ask("GET", f"{path}/traits")
    traits["traits"].remove(TRAIT)
    beside.placement.ask("PUT", f"{path}/traits", traits)
    found = beside.placement.ask("GET", f"{path}/inventories")
    found["inventories"]["MEMORY_MB"]["allocation_ratio"] = 2.0
    beside.placement.ask("PUT", f"{path}/inventories", found)
    assert {"placement.no-trait", "placement.allocation-ratio"} <= set(findings())
    beside.restart()
    assert not {"placement.no-trait", "placement.allocation-ratio"} & set(findings())


def test_ramshelf_leaves_nova_s_provider_alone(beside: Cloud) -> None:
    before = beside.placement.ask(
        "GET", f"/resource_providers/{beside.placement.provider(beside.node)}"
    )
    reported = json.loads(ramshelf("placement", "report", "--json").stdout)
    assert (reported["owned"], reported["written"]) == (False, [])
    after = beside.placement.ask(
        "GET", f"/resource_providers/{beside.placement.provider(beside.node)}"
    )
    assert before == after
