"""node/placement: the host as Placement is to see it."""

import pytest

from ramshelf.core.config import Config
from ramshelf.core.files.qemuconf import MemoryDirectory
from ramshelf.core.placement import Claim, Truth
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.holdings import holdings
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB
from ramshelf.node.placement import nova_owns, truth
from ramshelf.system.backingstore import ObservedStore
from ramshelf.system.hypervisor import Domain
from support.good_host import MEMORY_DIR, MOUNT, NOVA_CONF

NOTES = tuple(
    Note(
        name=name,
        uuid=f"uuid-{name}",
        domain_id=number,
        directory=f"{MEMORY_DIR}/{number}-{name}",
        promised=promised,
    )
    for number, name, promised in (
        (1, "web", 100 * MIB),
        (2, "db", 200 * MIB + 1),
        (7, "starting", 50 * MIB),
    )
)
STORE = ObservedStore(
    directory=MemoryDirectory(configured=MEMORY_DIR, path=MEMORY_DIR, explicit=False),
    store=Store(kind=Kind.RAM, mount=MOUNT, memory_dir=MEMORY_DIR, marked=True),
    usage=StoreUsage(
        kind=Kind.RAM, size=1000 * MIB, used=0, swap=0, beyond_swap=False, notes=NOTES
    ),
)
DOMAINS = {
    name: Domain(name=name, uuid=f"uuid-{name}", domain_id=number, state="running")
    for number, name in enumerate(("web", "db", "anonymous"), start=1)
}
USAGE = STORE.usage
assert USAGE is not None
HELD = holdings(USAGE, {"1-web": "web", "2-db": "db"})


def seen(config: Config, *, nova: str = "") -> Truth:
    return truth(STORE, DOMAINS, HELD, config, nova=nova)


def test_who_runs_from_the_store_needs_what_it_is_promised() -> None:
    host = seen(Config())
    assert set(host.guests) == {
        Claim(uuid="uuid-web", name="web", memory_mib=100),
        Claim(uuid="uuid-db", name="db", memory_mib=201),
    }
    assert (host.kind, host.capacity_mib, host.unowned_mib) == (Kind.RAM, 1000, 50)


def test_no_more_is_reported_than_is_configured() -> None:
    assert seen(Config(file_backed_memory_mib=600)).capacity_mib == 600


def test_what_nova_reports_is_held_against_all_that_the_store_can_hold() -> None:
    assert (
        seen(Config(file_backed_memory_mib=600), nova="nova-compute runs here").capacity_mib == 1000
    )


def test_no_store() -> None:
    none = replace(
        STORE, store=NoStore(code="store.not-mounted", sentence="No.", hint=""), usage=None
    )
    host = truth(none, DOMAINS, HELD, Config(), nova="")
    assert host == Truth(kind=None, capacity_mib=0, unowned_mib=0, guests=(), nova="")


@pytest.mark.parametrize(("files", "whose"), [((), ""), ((NOVA_CONF,), NOVA_CONF)])
def test_a_host_with_a_nova_conf_is_novas(files: tuple[str, ...], whose: str) -> None:
    assert whose in nova_owns(Config(nova_files=files))
    assert bool(nova_owns(Config(nova_files=files))) == bool(whose)
