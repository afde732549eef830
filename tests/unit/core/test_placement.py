"""core/placement: what is written, and that writing it makes both sides agree."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.placement import (
    MOST_SINGLE,
    TRAIT,
    Allocate,
    Allocation,
    Change,
    Claim,
    Free,
    Inventory,
    MakeProvider,
    Observed,
    SetInventory,
    SetTraits,
    Truth,
    Write,
    after,
    host_trait,
    may_write,
    plan,
    provider_config,
    provider_uuid,
    wanted_inventory,
    with_room,
)
from ramshelf.core.record import replace
from ramshelf.core.store.kind import Kind

HOST = "compute1.example.org"
OWN = provider_uuid(HOST)
ALICE, BOB, CAROL = (
    Claim(uuid=f"uuid-{name}", name=name, memory_mib=100) for name in ("alice", "bob", "carol")
)
TRUTH = Truth(kind=Kind.SWAP, capacity_mib=1000, unowned_mib=0, guests=(ALICE, BOB), nova="")
TRAITS = frozenset({TRAIT, "CUSTOM_RAMSHELF_STORE_SWAP"})
AGREED = Observed(
    host=HOST,
    provider=OWN,
    generation=4,
    inventory=Inventory(total=1000, max_unit=1000),
    traits=TRAITS,
    allocations={ALICE.uuid: Allocation(100, 1), BOB.uuid: Allocation(100, 3)},
)

mib = st.integers(1, 3000)
uuids = st.sampled_from([f"uuid-{number}" for number in range(8)])
claims = st.dictionaries(uuids, mib).map(
    lambda found: tuple(
        Claim(uuid=uuid, name=uuid, memory_mib=size) for uuid, size in found.items()
    )
)
truths = st.builds(
    Truth,
    kind=st.sampled_from(list(Kind)),
    capacity_mib=st.integers(0, 10_000),
    unowned_mib=st.integers(0, 12_000),
    guests=claims,
    nova=st.just(""),
)
traits = st.frozensets(st.sampled_from([TRAIT, "CUSTOM_GOLD", *(kind.trait for kind in Kind)]))
inventories = st.builds(
    Inventory, total=mib, max_unit=mib, allocation_ratio=st.sampled_from([1.0, 2.0])
)
observations = st.builds(
    Observed,
    host=st.just(HOST),
    provider=st.sampled_from([None, OWN]),
    inventory=st.none()
    | st.builds(Inventory, total=mib, max_unit=mib, allocation_ratio=st.sampled_from([1.0, 2.0])),
    traits=traits,
    allocations=st.dictionaries(uuids, st.builds(Allocation, mib, st.integers(1, 9))),
)


def applied(observed: Observed, writes: tuple[Write, ...]) -> Observed:
    for write in writes:
        observed = after(observed, write)
    return observed


def test_the_provider_is_known_by_its_uuid_for_ever() -> None:
    assert provider_uuid("compute1.example.org") == "9e437c8f-a53a-5ca9-ba74-d6227a3636ab"
    assert provider_uuid("compute2.example.org") != OWN


def test_a_new_host_is_described_before_anybody_gets_memory_of_it() -> None:
    assert plan(TRUTH, Observed(host=HOST)) == (
        MakeProvider(uuid=OWN, name=HOST),
        SetInventory(inventory=Inventory(total=1000, max_unit=1000)),
        SetTraits(traits=TRAITS),
        Allocate(claim=ALICE),
        Allocate(claim=BOB),
    )


def test_where_both_agree_nothing_is_written() -> None:
    assert plan(TRUTH, AGREED) == ()


def test_room_is_made_before_it_is_taken() -> None:
    larger, smaller = replace(ALICE, memory_mib=200), replace(BOB, memory_mib=50)
    old = Allocation(500, 1)
    observed = replace(AGREED, allocations={**AGREED.allocations, "uuid-gone": old})
    assert plan(replace(TRUTH, guests=(larger, smaller, CAROL)), observed) == (
        Free(uuid="uuid-gone", allocation=old),
        Change(claim=smaller, allocation=Allocation(100, 3)),
        Change(claim=larger, allocation=Allocation(100, 1)),
        Allocate(claim=CAROL),
    )


def test_a_claim_that_is_being_made_is_no_leftover() -> None:
    assert plan(replace(TRUTH, guests=(ALICE,)), AGREED, {BOB.uuid}) == ()


def test_what_others_have_added_stays() -> None:
    observed = replace(AGREED, traits=frozenset({"CUSTOM_GOLD", Kind.DISK.trait}))
    assert plan(TRUTH, observed) == (SetTraits(traits=TRAITS | {"CUSTOM_GOLD"}),)


def test_a_host_has_a_trait_of_its_own_which_does_not_tell_its_machine_id() -> None:
    machine_id = "0123456789abcdef0123456789abcdef"
    own = host_trait(machine_id)
    assert own == "CUSTOM_RAMSHELF_HOST_FD794A0201365D0ABD61484DE9E1C948"
    assert host_trait(machine_id.replace("0", "1")) != own
    assert [
        host_trait(odd) for odd in ("", "uninitialized", machine_id.upper(), machine_id[1:])
    ] == [""] * 4


def test_the_trait_of_an_installation_that_is_no_more_is_replaced() -> None:
    own, former = (host_trait(digit * 32) for digit in "ab")
    observed = replace(AGREED, identity=own, traits=TRAITS | {former, "CUSTOM_GOLD"})
    assert plan(TRUTH, observed) == (SetTraits(traits=TRAITS | {own, "CUSTOM_GOLD"}),)
    assert plan(TRUTH, replace(observed, traits=TRAITS | {own})) == ()


@pytest.mark.parametrize(
    "changed",
    [
        Inventory(total=2000, max_unit=2000),
        Inventory(total=1000, max_unit=1000, allocation_ratio=1.5),
        Inventory(total=1000, max_unit=1000, reserved=1),
        Inventory(total=1000, max_unit=500),
        None,
    ],
)
def test_an_inventory_that_somebody_changed_is_set_back(changed: Inventory | None) -> None:
    writes = plan(TRUTH, replace(AGREED, inventory=changed))
    assert writes == (SetInventory(inventory=Inventory(total=1000, max_unit=1000)),)


def test_what_the_store_has_promised_to_nobody_is_reserved() -> None:
    assert wanted_inventory(replace(TRUTH, unowned_mib=300), AGREED) == Inventory(
        total=1000, max_unit=1000, reserved=300
    )


def test_an_inventory_is_never_less_than_guests_hold_and_leaves_no_room_for_more() -> None:
    shrunk = replace(TRUTH, capacity_mib=150, unowned_mib=30)
    assert wanted_inventory(shrunk, AGREED) == Inventory(total=230, max_unit=230, reserved=30)
    assert wanted_inventory(replace(shrunk, guests=(ALICE,)), AGREED, {BOB.uuid}).total == 230
    assert wanted_inventory(replace(shrunk, guests=(ALICE,)), AGREED).total == 150
    assert wanted_inventory(replace(shrunk, capacity_mib=0), AGREED).total == 230


def test_room_is_made_for_a_guest_that_was_promised_its_memory() -> None:
    full = Inventory(total=200, max_unit=200, reserved=30)
    assert with_room(AGREED, full, CAROL) == Inventory(total=330, max_unit=330, reserved=30)
    assert with_room(AGREED, full, replace(ALICE, memory_mib=150)).total == 280
    assert with_room(AGREED, replace(full, total=1000), CAROL).total == 1000


def test_without_a_store_nothing_may_be_placed_and_no_provider_is_made() -> None:
    gone = Truth(kind=None, capacity_mib=0, unowned_mib=0, guests=(), nova="")
    assert plan(gone, Observed(host=HOST)) == ()
    inventory = Inventory(total=1, max_unit=1, reserved=1)
    assert plan(gone, replace(AGREED, allocations={})) == (
        SetInventory(inventory=inventory),
        SetTraits(traits=frozenset()),
    )


def test_a_pass_is_bounded_and_the_next_one_goes_on() -> None:
    allocations = {f"uuid-{number}": Allocation(1, 1) for number in range(3 * MOST_SINGLE)}
    observed = replace(AGREED, allocations=allocations)
    truth = replace(TRUTH, guests=())
    for _ in range(3):
        writes = plan(truth, observed)
        assert len(writes) == MOST_SINGLE
        observed = applied(observed, writes)
    assert plan(truth, observed) == ()


@pytest.mark.parametrize(
    ("owner", "nova", "provider"),
    [
        (True, "", "somebody-elses"),
        (True, "nova-compute runs here", None),
        (True, "nova-compute runs here", OWN),
        (False, "", None),
        (False, "", OWN),
    ],
)
def test_what_is_not_ramshelfs_own_is_not_written(
    owner: object, nova: str, provider: str | None
) -> None:
    observed = replace(AGREED, provider=provider)
    assert not may_write(replace(TRUTH, nova=nova), observed, owner=bool(owner))


@pytest.mark.parametrize("provider", [None, OWN])
def test_what_is_its_own_or_nobodys_is_written_where_that_is_asked_for(
    provider: str | None,
) -> None:
    assert may_write(TRUTH, replace(AGREED, provider=provider), owner=True)


@given(truths, observations)
def test_one_plan_makes_both_agree(truth: Truth, observed: Observed) -> None:
    done = applied(observed, plan(truth, observed))
    assert plan(truth, done) == ()
    assert done.provider == OWN
    assert {uuid: held.memory_mib for uuid, held in done.allocations.items()} == {
        guest.uuid: guest.memory_mib for guest in truth.guests
    }
    assert done.inventory is not None
    assert done.inventory.allocation_ratio == 1.0
    held = sum(guest.memory_mib for guest in truth.guests)
    assert done.room_mib == max(0, truth.capacity_mib - truth.unowned_mib, held)
    assert ("CUSTOM_GOLD" in done.traits) == ("CUSTOM_GOLD" in observed.traits)


@given(truths, observations)
def test_no_step_allocates_more_than_both_ends_do(truth: Truth, observed: Observed) -> None:
    most = max(observed.allocated_mib, sum(guest.memory_mib for guest in truth.guests))
    for write in plan(truth, observed):
        observed = after(observed, write)
        assert observed.allocated_mib <= most


@given(truths, observations, st.frozensets(uuids))
def test_nobody_who_is_starting_loses_anything(
    truth: Truth, observed: Observed, starting: frozenset[str]
) -> None:
    assert not any(
        isinstance(write, Free) and write.uuid in starting
        for write in plan(truth, observed, starting)
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_what_nova_lets_others_add(kind: Kind) -> None:
    assert yaml.safe_load(provider_config("host: 'odd'", kind)) == {
        "meta": {"schema_version": "1.0"},
        "providers": [
            {
                "identification": {"name": "host: 'odd'"},
                "traits": {"additional": [f"CUSTOM_RAMSHELF_STORE_{kind.value.upper()}"]},
            }
        ],
    }
