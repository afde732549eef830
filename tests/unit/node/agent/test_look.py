"""What two looks tell together: whose reservation to verify, and whether Placement is to hear."""

import pytest

from ramshelf.core.ram import Balance, Demand
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import Capacity, StoreUsage
from ramshelf.core.store.find import Store
from ramshelf.core.units import MIB
from ramshelf.node.agent.look import Look, differ, to_verify
from ramshelf.node.guest.look import ObservedFile, RunningGuest, StoreShares
from ramshelf.system.hypervisor import Domain
from support.good_host import STORE

USAGE = STORE.usage
CAPACITY = Capacity(total=1024 * MIB, promised=0, allocated=0, limit_reason="store")


def guest(name: str, domain_id: int = 1, promised_mib: int = 128, **files: int) -> RunningGuest:
    return RunningGuest(
        domain=Domain(name=name, uuid=f"uuid of {name}", domain_id=domain_id, state="running"),
        promised=promised_mib * MIB,
        files=tuple(
            ObservedFile(
                path=f"/ram/{domain_id}-{name}/{file}", size=size * MIB, allocated=0, resident=0
            )
            for file, size in (files or {"pc": 128}).items()
        ),
    )


def seen(*guests: RunningGuest, total_mib: int = 1024) -> Look:
    assert isinstance(STORE.store, Store)
    assert isinstance(USAGE, StoreUsage)
    shares = StoreShares(
        store=STORE.store,
        capacity=replace(CAPACITY, total=total_mib * MIB),
        ram=Balance(size=0, demand=Demand(), anonymous_alone=False),
        guests=guests,
        unknown=(),
    )
    return Look(
        active={each.domain.name: each.domain for each in guests},
        shares=shares,
        usage=USAGE,
        problem=None,
        stale=(),
        read=0,
        written=0,
        pressure={},
    )


def test_at_first_every_guest_is_verified() -> None:
    assert to_verify(None, seen(guest("a"), guest("b", 2))) == {"a", "b"}


def test_then_new_ones_and_those_with_other_files() -> None:
    before = seen(guest("same"), guest("plugged", 2), guest("again", 3))
    now = seen(
        guest("same"), guest("plugged", 2, pc=128, dimm=64), guest("again", 9), guest("new", 4)
    )
    assert to_verify(before, now) == {"plugged", "again", "new"}


def test_what_a_guest_has_touched_is_no_reason() -> None:
    one = guest("a")
    touched = replace(one, files=(replace(one.files[0], allocated=64 * MIB, resident=64 * MIB),))
    assert to_verify(seen(one), seen(touched)) == frozenset()
    assert not differ(seen(one), seen(touched))


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(seen(), id="ended"),
        pytest.param(seen(guest("a"), guest("b", 2)), id="another"),
        pytest.param(seen(guest("a", promised_mib=256)), id="larger"),
        pytest.param(seen(guest("a"), total_mib=512), id="less capacity"),
        pytest.param(replace(seen(guest("a")), shares=None, usage=None), id="no store"),
    ],
)
def test_placement_hears_of_guests_and_capacity(now: Look) -> None:
    before = seen(guest("a"))
    assert differ(before, now)
    assert differ(None, before)
    assert not differ(now, now)
