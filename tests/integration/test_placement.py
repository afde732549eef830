"""The real Placement, inside this process and as a service, says what agrees with the host."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest

from ramshelf.core.config import Config
from ramshelf.core.errors import RefusedError, ServiceError
from ramshelf.core.placement import TRAIT, Claim, Truth, host_trait, provider_uuid
from ramshelf.core.store.kind import Kind
from ramshelf.node.placement import reconcile
from ramshelf.system.claims import being_made, in_the_making
from ramshelf.system.placement import Placement
from ramshelf.system.placementapi import PlacementApi
from ramshelf.system.settings import load_config
from support.placement_service import PlacementService, placement_service
from support.process import run

HOST = "compute1.example.org"
OWN = provider_uuid(HOST)
PROVIDER = f"/resource_providers/{OWN}"
OTHER = str(UUID(int=7))

# Libraries that Placement is made of warn of their own future.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("host")]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PlacementService]:
    with placement_service(tmp_path) as service:
        yield service


@pytest.fixture(params=["embedded", "service"])
def config(request: pytest.FixtureRequest, embedded_file: Path, tmp_path: Path) -> Config:
    """The configuration of an empty Placement, either way, whose provider ramshelf is to own."""
    if request.param == "embedded":
        embedded_file.unlink(missing_ok=True)
        return Config(
            placement_mode="embedded", placement_database=str(embedded_file), placement_owner=True
        )
    service: PlacementService = request.getfixturevalue("service")
    return remote(tmp_path, service.configuration())


def remote(directory: Path, section: str, *, owner: bool = True) -> Config:
    path = directory / "ramshelf.conf"
    path.write_text(f"[ramshelf]\nplacement_owner = {owner}\n{section}")
    config = load_config([str(path)])
    assert config.placement_mode == "remote"
    return config


@pytest.fixture
def placement(config: Config) -> Iterator[Placement]:
    with Placement(config, HOST) as placement:
        yield placement


@pytest.fixture
def others(config: Config, placement: Placement) -> Iterator[Callable[..., Any]]:
    """Somebody else who uses the same Placement: ``others(METHOD, PATH, body)`` is the answer."""
    # The interception that serves an embedded Placement exists once in a process.
    own = PlacementApi(config) if config.placement_mode == "remote" else None
    api = own or placement._api  # noqa: SLF001 - see above

    def ask(method: str, path: str, body: object = None) -> Any:
        answer = api.ask(method, path, body)
        assert answer.ok, answer
        return answer.document

    yield ask
    if own is not None:
        own.close()


def guest(number: int, memory_mib: int = 100) -> Claim:
    return Claim(
        uuid=str(uuid5(UUID(OWN), str(number))), name=f"guest{number}", memory_mib=memory_mib
    )


def truth(*guests: Claim, capacity_mib: int = 1000, **more: Any) -> Truth:
    facts = {"kind": Kind.SWAP, "unowned_mib": 0, "nova": "", **more}
    return Truth(capacity_mib=capacity_mib, guests=guests, **facts)


def codes(report: Any) -> set[str]:
    return {finding.code for finding in report.findings}


def allocations(others: Callable[..., Any]) -> dict[str, int]:
    found = others("GET", f"{PROVIDER}/allocations")["allocations"]
    return {uuid: held["resources"]["MEMORY_MB"] for uuid, held in found.items()}


def consumer(
    memory_mib: int, provider: str = OWN, generation: int | None = None
) -> dict[str, object]:
    return {
        "allocations": {provider: {"resources": {"MEMORY_MB": memory_mib}}},
        "project_id": "somebody",
        "user_id": "else",
        "consumer_generation": generation,
    }


def test_a_host_is_reported_and_followed(placement: Placement, others: Callable[..., Any]) -> None:
    report = reconcile(placement, lambda: truth(guest(1), guest(2, 50), unowned_mib=10))
    assert (report.code, report.owned, report.provider) == ("placement.reported", True, OWN)
    assert codes(report) == {"placement.ok"}
    assert (report.total_mib, report.reserved_mib, report.allocated_mib) == (1000, 10, 150)
    assert len(report.written) == 5
    inventory = others("GET", f"{PROVIDER}/inventories")["inventories"]
    assert inventory == {
        "MEMORY_MB": {
            "total": 1000,
            "reserved": 10,
            "min_unit": 1,
            "max_unit": 1000,
            "step_size": 1,
            "allocation_ratio": 1.0,
        }
    }
    assert set(others("GET", f"{PROVIDER}/traits")["traits"]) == {
        TRAIT,
        "CUSTOM_RAMSHELF_STORE_SWAP",
    }
    assert allocations(others) == {guest(1).uuid: 100, guest(2).uuid: 50}

    same = reconcile(placement, lambda: truth(guest(1), guest(2, 50), unowned_mib=10))
    assert (same.code, same.written) == ("placement.reported", ())

    later = reconcile(placement, lambda: truth(guest(2, 70), guest(3)))
    assert codes(later) == {"placement.ok"}
    assert allocations(others) == {guest(2).uuid: 70, guest(3).uuid: 100}

    gone = reconcile(placement, lambda: truth(kind=None, capacity_mib=0))
    assert (gone.total_mib, gone.reserved_mib, gone.allocated_mib) == (1, 1, 0)
    assert others("GET", f"{PROVIDER}/traits")["traits"] == []


def test_traits_and_inventories_of_others_stay(
    placement: Placement, others: Callable[..., Any]
) -> None:
    """OWNER_NOVA too: by its UUID the provider is ramshelf's, whatever others have set."""
    reconcile(placement, truth)
    foreign = {"CUSTOM_OF_OTHERS", "HW_NIC_VMDQ", "OWNER_NOVA"}
    others("PUT", "/traits/CUSTOM_OF_OTHERS")
    found = others("GET", f"{PROVIDER}/traits")
    others("PUT", f"{PROVIDER}/traits", {**found, "traits": [*found["traits"], *foreign]})
    found = others("GET", f"{PROVIDER}/inventories")
    found["inventories"]["VCPU"] = {"total": 4}
    others("PUT", f"{PROVIDER}/inventories", found)
    for kind, capacity_mib in ((Kind.DISK, 900), (None, 0), (Kind.RAM, 800)):
        host = truth(kind=kind, capacity_mib=capacity_mib)
        assert reconcile(placement, lambda: host).written  # noqa: B023
        own = {TRAIT, kind.trait} if kind else set()
        assert set(others("GET", f"{PROVIDER}/traits")["traits"]) == foreign | own
        assert "VCPU" in others("GET", f"{PROVIDER}/inventories")["inventories"]


def test_a_restart_goes_on_with_the_same_provider(config: Config) -> None:
    for capacity_mib in (1000, 2000):
        with Placement(config, HOST) as placement:
            report = reconcile(placement, lambda: truth(capacity_mib=capacity_mib))  # noqa: B023
            assert (report.provider, report.total_mib) == (OWN, capacity_mib)


def test_a_change_by_others_in_the_middle_of_a_pass(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)
    looks = []

    def look() -> Truth:
        looks.append(1)
        if len(looks) == 1:  # after Placement was read
            found = others("GET", f"{PROVIDER}/traits")
            others("PUT", "/traits/CUSTOM_GOLD")
            others(
                "PUT", f"{PROVIDER}/traits", {**found, "traits": [*found["traits"], "CUSTOM_GOLD"]}
            )
        return truth(capacity_mib=2000)

    report = reconcile(placement, look)
    assert (report.code, report.total_mib, len(looks)) == ("placement.reported", 2000, 2)
    assert "CUSTOM_GOLD" in others("GET", f"{PROVIDER}/traits")["traits"]


def test_others_who_never_stop_end_the_pass(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)

    def look() -> Truth:
        found = others("GET", f"{PROVIDER}/inventories")
        found["inventories"]["MEMORY_MB"]["total"] += 1
        others("PUT", f"{PROVIDER}/inventories", found)
        return truth(capacity_mib=500)

    report = reconcile(placement, look)
    assert (report.code, report.done, report.written) == ("placement.conflict", False, ())
    assert codes(report) == {"placement.conflict"}
    assert reconcile(placement, truth).total_mib == 1000


def test_an_overcommit_that_somebody_introduces_is_told_and_set_back(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)
    found = others("GET", f"{PROVIDER}/inventories")
    found["inventories"]["MEMORY_MB"]["allocation_ratio"] = 2.0
    found["inventories"]["VCPU"] = {**found["inventories"]["MEMORY_MB"], "total": 8, "max_unit": 8}
    others("PUT", f"{PROVIDER}/inventories", found)
    report = reconcile(placement, truth)
    assert codes(report) == {"placement.allocation-ratio", "placement.ok"}
    inventories = others("GET", f"{PROVIDER}/inventories")["inventories"]
    assert inventories["MEMORY_MB"]["allocation_ratio"] == 1.0
    assert inventories["VCPU"]["total"] == 8
    assert codes(reconcile(placement, truth)) == {"placement.ok"}


def test_an_overcommit_through_an_aggregate(tmp_path: Path, service: PlacementService) -> None:
    """As Nova's guide has it set for a host aggregate (osc-placement's --aggregate)."""
    aggregate = str(UUID(int=1))

    def client(*args: str) -> None:
        service.openstack("resource", "provider", *args)

    with Placement(remote(tmp_path, service.configuration()), HOST) as placement:
        reconcile(placement, truth)
        generation = str(placement.observe().generation)
        client("aggregate", "set", OWN, "--aggregate", aggregate, "--generation", generation)
        ratio = "MEMORY_MB:allocation_ratio=16.0"
        client("inventory", "set", aggregate, "--aggregate", "--amend", "--resource", ratio)
        assert codes(reconcile(placement, truth)) == {"placement.allocation-ratio", "placement.ok"}
        inventory = placement.observe().inventory
        assert inventory is not None
        assert inventory.allocation_ratio == 1.0
        assert codes(reconcile(placement, truth)) == {"placement.ok"}


def test_leftovers_go_and_claims_in_the_making_stay(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)
    for number in (1, 2):
        others("PUT", f"/allocations/{guest(number).uuid}", consumer(100))
    with being_made(guest(2).uuid):
        assert in_the_making() == {guest(2).uuid}
        report = reconcile(placement, truth)
        assert codes(report) == {"placement.ok"}
        assert allocations(others) == {guest(2).uuid: 100}
    assert in_the_making() == set()
    reconcile(placement, truth)
    assert allocations(others) == {}


def test_a_guest_that_was_claimed_while_the_host_was_looked_at_keeps_its_allocation(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)
    others("PUT", f"/allocations/{guest(1).uuid}", consumer(100))

    def look() -> Truth:
        held = others("GET", f"/allocations/{guest(1).uuid}")
        others(
            "PUT",
            f"/allocations/{guest(1).uuid}",
            consumer(90, generation=held["consumer_generation"]),
        )
        return truth()

    reconcile(placement, look)
    assert allocations(others) == {guest(1).uuid: 90}


def test_what_a_guest_holds_elsewhere_stays(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)
    others("POST", "/resource_providers", {"uuid": OTHER, "name": "elsewhere"})
    inventory = {"resource_provider_generation": 0, "inventories": {"MEMORY_MB": {"total": 1000}}}
    others("PUT", f"/resource_providers/{OTHER}/inventories", inventory)
    others("PUT", f"/allocations/{guest(1).uuid}", consumer(30, OTHER))
    reconcile(placement, lambda: truth(guest(1), guest(2)))
    held = others("GET", f"/allocations/{guest(1).uuid}")
    assert {
        uuid: share["resources"]["MEMORY_MB"] for uuid, share in held["allocations"].items()
    } == {
        OTHER: 30,
        OWN: 100,
    }
    assert (held["project_id"], held["user_id"]) == ("somebody", "else")
    reconcile(placement, truth)
    assert list(others("GET", f"/allocations/{guest(1).uuid}")["allocations"]) == [OTHER]


def test_the_inventory_of_a_store_that_shrinks_falls_as_its_guests_go(
    placement: Placement, others: Callable[..., Any]
) -> None:
    guests = [guest(number) for number in range(5)]

    def reported(*running: Claim) -> tuple[str, int, int, set[str]]:
        report = reconcile(placement, lambda: truth(*running, capacity_mib=250))
        inventory = others("GET", f"{PROVIDER}/inventories")["inventories"]["MEMORY_MB"]
        assert inventory["max_unit"] == inventory["total"]
        return report.code, inventory["total"], sum(allocations(others).values()), codes(report)

    reconcile(placement, lambda: truth(*guests))
    shrunk = {"placement.shrunk"}
    assert reported(*guests) == ("placement.reported", 500, 500, shrunk)
    with pytest.raises(RefusedError) as refused:
        placement.claim(guest(9, 1))
    assert refused.value.code == "placement.full"
    # If all allocations are lost, all come back.
    for held in guests:
        placement.release(held.uuid)
    assert allocations(others) == {}
    assert reported(*guests) == ("placement.reported", 500, 500, shrunk)
    assert reported(*guests[:3]) == ("placement.reported", 300, 300, shrunk)
    with being_made(guests[2].uuid):  # it starts again
        assert reported(*guests[:2]) == ("placement.reported", 300, 300, {"placement.ok"})
    assert reported(*guests[:2]) == ("placement.reported", 250, 200, {"placement.ok"})


@pytest.mark.parametrize("sizes", [(300,), (150, 150)])
def test_a_guest_of_a_store_that_has_shrunk_can_be_moved_to_another_host(
    placement: Placement, others: Callable[..., Any], sizes: tuple[int, ...]
) -> None:
    """As Nova does first: the guest's allocation becomes the migration's, all at once."""
    guests = [guest(number, size) for number, size in enumerate(sizes)]
    for capacity_mib in (1000, 250):
        reconcile(placement, lambda: truth(*guests, capacity_mib=capacity_mib))  # noqa: B023
    moved, migration = guests[0].uuid, str(uuid4())
    generation = others("GET", f"/allocations/{moved}")["consumer_generation"]
    emptied = {**consumer(0, generation=generation), "allocations": {}}
    others("POST", "/allocations", {moved: emptied, migration: consumer(sizes[0])})
    assert allocations(others)[migration] == sizes[0]


def test_many_guests_at_once(placement: Placement, others: Callable[..., Any]) -> None:
    guests = [guest(number, 1) for number in range(120)]
    others("POST", "/resource_providers", {"uuid": OTHER, "name": "elsewhere"})
    inventory = {"resource_provider_generation": 0, "inventories": {"MEMORY_MB": {"total": 1000}}}
    others("PUT", f"/resource_providers/{OTHER}/inventories", inventory)
    # A request for many consumers at once fails because of this one.
    others("PUT", f"/allocations/{guest(60).uuid}", consumer(30, OTHER))
    report = reconcile(placement, lambda: truth(*guests))
    assert codes(report) == {"placement.ok"}
    assert allocations(others) == {each.uuid: 1 for each in guests}


def test_a_consumer_that_was_left_holding_nothing_ends_no_report(
    placement: Placement, others: Callable[..., Any]
) -> None:
    """A claim that came before the provider leaves a consumer behind.

    Placement names its generation nowhere.
    """
    left = guest(1).uuid
    refused = placement._api.ask("PUT", f"/allocations/{left}", consumer(100))  # noqa: SLF001 - as 0.1
    assert (refused.status, "does not exist" in refused.detail) == (400, True)
    report = reconcile(placement, lambda: truth(guest(1), guest(2)))
    assert (report.code, codes(report)) == ("placement.reported", {"placement.ok"})
    assert allocations(others) == {left: 100, guest(2).uuid: 100}
    reconcile(placement, truth)
    assert allocations(others) == {}


def test_a_consumer_that_was_left_is_claimed_for(
    placement: Placement, others: Callable[..., Any]
) -> None:
    placement._api.ask("PUT", f"/allocations/{guest(1).uuid}", consumer(100))  # noqa: SLF001 - as 0.1
    reconcile(placement, truth)
    placement.claim(guest(1))
    assert allocations(others) == {guest(1).uuid: 100}


def test_a_consumer_that_never_settles_ends_nothing_for_the_others(
    tmp_path: Path, service: PlacementService
) -> None:
    contended, odd = guest(1), Claim(uuid="none", name="odd", memory_mib=100)
    with Placement(remote(tmp_path, service.configuration()), HOST) as placement:
        reconcile(placement, lambda: truth(contended))
        with service.contended(contended.uuid):
            report = reconcile(placement, lambda: truth(guest(1, 200), guest(2), odd, guest(3)))
            assert report.code == "placement.reported"
            assert codes(report) == {"placement.consumer", "placement.unallocated"}
            refused = [
                finding.facts["consumer"]
                for finding in report.findings
                if finding.code == "placement.consumer"
            ]
            assert refused == [contended.uuid, "none"]
            held = {
                uuid: share.memory_mib for uuid, share in placement.observe().allocations.items()
            }
            assert held == {contended.uuid: 100, guest(2).uuid: 100, guest(3).uuid: 100}
        assert codes(reconcile(placement, lambda: truth(guest(1, 200)))) == {"placement.ok"}


def test_a_host_finds_the_provider_that_it_had_under_another_name(
    placement: Placement, others: Callable[..., Any]
) -> None:
    own, another = (host_trait(digit * 32) for digit in "ab")
    # One Placement is served in a process, under all these names.
    placement._identity = own  # noqa: SLF001
    assert codes(reconcile(placement, lambda: truth(guest(1)))) == {"placement.ok"}
    assert own in others("GET", f"{PROVIDER}/traits")["traits"]

    def seen(name: str, identity: str) -> list[tuple[str, Any]]:
        placement.host, placement._identity, placement._last = (  # noqa: SLF001 - see above
            name,
            identity,
            None,
        )
        report = reconcile(placement, truth)
        assert report.done
        return [(finding.code, finding.facts.get("name")) for finding in report.findings]

    assert seen("another.example.org", another) == [("placement.ok", None)]
    renamed = "renamed.example.org"
    assert seen(renamed, own) == [("placement.renamed", HOST)]
    # For all that is known, the provider is another machine's.
    assert allocations(others) == {guest(1).uuid: 100}
    others("PUT", f"/allocations/{guest(1).uuid}", empty(others))
    others("DELETE", PROVIDER)
    assert codes(reconcile(placement, truth)) == {"placement.ok"}


def empty(others: Callable[..., Any]) -> dict[str, object]:
    """What takes all from the guest."""
    held = others("GET", f"/allocations/{guest(1).uuid}")
    return {**consumer(0, generation=held["consumer_generation"]), "allocations": {}}


def test_beside_nova_nothing_is_written(tmp_path: Path, service: PlacementService) -> None:
    config = remote(tmp_path, service.configuration())
    nova = PlacementApi(config)
    assert nova.ask("POST", "/resource_providers", {"uuid": OTHER, "name": HOST}).ok
    body = {"resource_provider_generation": 0, "inventories": {"MEMORY_MB": {"total": 2000}}}
    assert nova.ask("PUT", f"/resource_providers/{OTHER}/inventories", body).ok
    body = {"resource_provider_generation": 1, "traits": ["OWNER_NOVA"]}
    assert nova.ask("PUT", f"/resource_providers/{OTHER}/traits", body).ok
    assert nova.ask("PUT", f"/allocations/{guest(1).uuid}", consumer(100, OTHER)).ok
    before = service.writes()
    for nova_runs in ("", "nova-compute runs here, process 7"):
        with Placement(config, HOST) as placement:
            report = reconcile(placement, lambda: truth(guest(2), nova=nova_runs))  # noqa: B023
        assert (report.code, report.owned, report.written) == ("placement.compared", False, ())
        assert {
            "placement.not-ours",
            "placement.exceeds-store",
            "placement.no-trait",
            "placement.unallocated",
        } <= codes(report)
    with Placement(
        config, "new.example.org"
    ) as placement:  # nova-compute runs, and has not reported yet
        report = reconcile(placement, lambda: truth(nova="nova-compute runs here"))
    assert codes(report) == {"placement.not-ours", "placement.no-provider"}
    with Placement(
        replace(config, placement_owner=False), "new.example.org"
    ) as placement:  # not asked for
        assert codes(reconcile(placement, truth)) == {"placement.no-provider"}
    assert service.writes() == before
    assert (
        json.loads(service.openstack("resource", "provider", "show", OTHER, "-f", "json"))[
            "generation"
        ]
        == 3
    )


def test_the_real_client_reads_what_was_written(tmp_path: Path, service: PlacementService) -> None:
    with Placement(remote(tmp_path, service.configuration()), HOST) as placement:
        reconcile(placement, lambda: truth(guest(1), guest(2, 50)))

    def client(*args: str) -> Any:
        return json.loads(service.openstack("resource", "provider", *args, OWN, "-f", "json"))

    assert client("inventory", "list") == [
        {
            "resource_class": "MEMORY_MB",
            "allocation_ratio": 1.0,
            "min_unit": 1,
            "max_unit": 1000,
            "reserved": 0,
            "step_size": 1,
            "total": 1000,
            "used": 150,
        }
    ]
    assert client("usage", "show") == [{"resource_class": "MEMORY_MB", "usage": 150}]
    assert {row["name"] for row in client("trait", "list")} == {TRAIT, "CUSTOM_RAMSHELF_STORE_SWAP"}


def test_placement_away_slow_failing_and_emptied(tmp_path: Path, service: PlacementService) -> None:
    with Placement(remote(tmp_path, service.configuration(timeout=5)), HOST) as placement:

        def report() -> Any:
            return reconcile(placement, lambda: truth(guest(1)))

        def outcome() -> tuple[str, set[str]]:
            seen = report()
            return seen.code, codes(seen)

        good = ("placement.reported", {"placement.ok"})
        assert outcome() == good
        with service.frozen():
            assert outcome() == ("placement.timeout", {"placement.timeout"})
        assert outcome() == good
        with service.failing():
            assert outcome() == ("placement.error", {"placement.error"})
        assert outcome() == good
        service.kill()
        assert outcome() == ("placement.unreachable", {"placement.unreachable"})
        service.start()
        assert outcome() == good
        service.empty()
        again = report()
        assert (again.code, len(again.written)) == ("placement.reported", 4)


def test_no_place_to_go(tmp_path: Path, service: PlacementService) -> None:
    def code(**changes: object) -> str:
        with Placement(
            remote(tmp_path, service.configuration(**{"timeout": 5, **changes})), HOST
        ) as placement:
            report = reconcile(placement, truth)
        assert "geheim" not in repr(report)
        assert codes(report) == {report.code}
        return report.code

    password = {
        "auth_type": "password",
        "username": "nova",
        "password": "geheim",
        "project_name": "service",
    }
    assert code(endpoint=f"{service.url}/wrong") == "placement.error"
    assert code(endpoint=service.url.replace("http:", "https:")) == "placement.tls"
    assert code(endpoint="http://127.0.0.1:1") == "placement.unreachable"
    assert code(auth_type="nonsense") == "placement.configuration"
    assert code(auth_type="password") == "placement.configuration"
    assert code(timeout="soon") == "placement.configuration"
    assert code(**password, auth_url="http://127.0.0.1:1/v3") == "placement.unreachable"
    assert code(**password, auth_url=f"{service.url}/nothing") == "placement.unauthorized"
    assert code(**password, auth_url=service.url) in {
        "placement.unreachable",
        "placement.unauthorized",
    }


def test_a_certificate_that_is_trusted_or_not(tmp_path: Path) -> None:
    service = PlacementService(tmp_path)
    service.trust()
    service.start()
    try:
        for options, code in (
            ({}, "placement.tls"),
            ({"cafile": service.certificate}, "placement.reported"),
            ({"insecure": "true"}, "placement.reported"),
        ):
            with Placement(remote(tmp_path, service.configuration(**options)), HOST) as placement:
                assert reconcile(placement, truth).code == code
    finally:
        service.kill()


def test_credentials_that_are_wrong(tmp_path: Path, service: PlacementService) -> None:
    """Those of plain HTTP are no token, and so answered 401."""
    credentials = {"auth_type": "http_basic", "username": "nova", "password": "geheim"}
    section = service.configuration(**credentials)
    with Placement(remote(tmp_path, section), HOST) as placement:
        report = reconcile(placement, truth)
    assert report.code == "placement.unauthorized"
    assert "geheim" not in repr(report)
    assert [line.rpartition(" ")[2] for line in service.requests()][-1] == "401"


def test_an_embedded_database_that_cannot_be_used(embedded_file: Path) -> None:
    embedded_file.write_text("This is no database.\n" * 100)
    config = Config(
        placement_mode="embedded", placement_database=str(embedded_file), placement_owner=True
    )
    with Placement(config, HOST) as placement:
        report = reconcile(placement, truth)
        assert (report.code, codes(report)) == ("placement.database", {"placement.database"})
        embedded_file.unlink()
        assert reconcile(placement, truth).code == "placement.reported"


def test_fifty_claims_for_the_last_ten_places(tmp_path: Path, service: PlacementService) -> None:
    config = remote(tmp_path, service.configuration(timeout=300))
    with Placement(config, HOST) as placement:
        reconcile(
            placement, lambda: truth(*(guest(number) for number in range(5)), capacity_mib=1500)
        )
        with ThreadPoolExecutor(50) as pool:
            got = list(pool.map(lambda number: _claimed(config, number), range(100, 150)))
        assert got.count(True) == 10
        observed = placement.observe()
    assert (observed.allocated_mib, len(observed.allocations)) == (1500, 15)


def test_claims_of_several_processes_on_an_embedded_placement(embedded_file: Path) -> None:
    embedded_file.unlink(missing_ok=True)
    config = Config(
        placement_mode="embedded", placement_database=str(embedded_file), placement_owner=True
    )
    with Placement(config, HOST) as placement:
        assert reconcile(placement, truth).done
        with ThreadPoolExecutor(5) as pool:
            argv = [sys.executable, "-W", "ignore", "-c", _CLAIMS, str(embedded_file), HOST]
            ended = pool.map(lambda number: run(*argv, str(number)), range(5))
        assert sum(int(each.stdout) for each in ended) == 10
        assert placement.observe().allocated_mib == 1000


_CLAIMS = """
import sys, uuid
from ramshelf.core.config import Config
from ramshelf.core.errors import RefusedError, ServiceError
from ramshelf.core.placement import Claim
from ramshelf.system.placement import Placement
config = Config(placement_mode="embedded", placement_database=sys.argv[1], placement_owner=True)
got = 0
with Placement(config, sys.argv[2]) as placement:
    for number in range(10):
        claim = Claim(uuid=str(uuid.UUID(int=10 * int(sys.argv[3]) + number)), \
name="guest", memory_mib=100)
        try:
            placement.claim(claim)
            got += 1
        except RefusedError as error:
            assert error.code == "placement.full"
print(got)
"""
"""Asks for ten places of 100 MiB and prints how many it got."""


def _claimed(config: Config, number: int) -> bool:
    """Whether this guest gets its place."""
    with Placement(config, HOST) as placement:
        try:
            placement.claim(guest(number))
        except RefusedError as error:
            assert error.code == "placement.full"  # noqa: PT017 - anything else fails by itself
            return False
        return True


def test_a_claim_before_the_first_report_is_not_for_want_of_room_and_leaves_nothing(
    placement: Placement, others: Callable[..., Any]
) -> None:
    early = Claim(uuid=str(uuid4()), name="early", memory_mib=1)

    def code() -> str:
        with pytest.raises(ServiceError) as refused:
            placement.claim(early)
        return refused.value.code

    assert code() == "placement.no-provider"
    others("POST", "/resource_providers", {"uuid": OWN, "name": HOST})
    assert code() == "placement.no-inventory"
    reconcile(placement, truth)
    others("PUT", f"/allocations/{early.uuid}", consumer(1))  # of a consumer that does not exist


def test_a_refusal_does_not_contradict_the_figures_that_it_tells(
    placement: Placement, others: Callable[..., Any]
) -> None:
    reconcile(placement, truth)
    found = others("GET", f"{PROVIDER}/inventories")
    found["inventories"]["MEMORY_MB"]["max_unit"] = 50
    others("PUT", f"{PROVIDER}/inventories", found)
    with pytest.raises(RefusedError, match="though 1000 of 1000 MiB") as refused:
        placement.claim(guest(1))
    assert refused.value.code == "placement.full"
    placement.claim(guest(2, 50))
