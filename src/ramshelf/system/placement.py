"""This host's resource provider in Placement: what it is, and each single change to it."""

import copy
import random
import re
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from ramshelf.core.config import Config
from ramshelf.core.errors import RefusedError, ServiceError
from ramshelf.core.placement import (
    RESOURCE_CLASS,
    TRAIT,
    Allocate,
    Allocation,
    Change,
    Claim,
    Former,
    Free,
    Inventory,
    MakeProvider,
    Observed,
    SetInventory,
    SetTraits,
    after,
    host_trait,
    provider_uuid,
    with_room,
)
from ramshelf.core.record import replace
from ramshelf.system.filesystem import read_text
from ramshelf.system.placementapi import Answer, PlacementApi

_GENERATION = "resource_provider_generation"
_CONFLICT = "placement.concurrent_update"
_TRIES = 10
"""How often a change is tried that others get in the way of.

Placement itself tries as often before it says so.
"""

_LEFT_OVER = 3
"""The refusals after which a consumer that holds nothing counts as left over.

Before that, its first allocation may just be being made.
"""

_MACHINE_ID = "/etc/machine-id"

_CONSUMER = {"project_id": "ramshelf", "user_id": "ramshelf"}
"""Whose a consumer is, which Placement wants to know.

A guest that Nova has started keeps what Nova said.
"""


class Placement:
    """Placement, as far as it concerns the provider of this host.

    This is a context manager, for one thread. Its methods raise ServiceError ``placement.*`` where
    Placement does not serve, and ``placement.conflict`` where somebody else has changed the
    provider since ``observe``: then observe anew. ``identity`` is this host's own trait
    (core/placement.host_trait).
    """

    def __init__(self, config: Config, host: str, *, identity: str = "") -> None:
        self.host = host
        self._identity = identity
        self.owner = config.placement_owner
        self._api = PlacementApi(config)
        self._last: Observed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api.close()

    def of(self, host: str) -> Self:
        """Return the same Placement as far as it concerns another host's provider."""
        other = copy.copy(self)
        other.host, other._identity = host, ""  # noqa: SLF001 - its own
        other._last = None  # noqa: SLF001 - its own
        return other

    def observe(self) -> Observed:
        """Return the provider of this host's name.

        This takes one request where only allocations have changed, else five.
        """
        for _ in range(_TRIES):
            last = self._last
            if last is None or last.provider is None or last.former:
                last = self._found()
            if last.provider is None:
                return last
            observed = self._with_allocations(last)
            if observed is not None:
                self._last = observed
                return observed
            self._last = None
        raise _conflict(f"Others change the provider {self.host} all the time")

    def apply(self, write: MakeProvider | SetInventory | SetTraits, observed: Observed) -> Observed:
        """Describe the provider, and return what it is then.

        A trait that Placement does not know is left out.
        """
        self._last = None
        path = f"/resource_providers/{observed.provider}"
        match write:
            case MakeProvider():
                made = self._api.ask(
                    "POST", "/resource_providers", {"uuid": write.uuid, "name": write.name}
                )
                return replace(after(observed, write), generation=self._said(made, "generation"))
            case SetInventory():
                path = f"{path}/inventories"
                others = self._said(self._api.ask("GET", path), "inventories")
                body: dict[str, object] = {
                    "inventories": {**others, RESOURCE_CLASS: {**vars(write.inventory)}}
                }
            case SetTraits():
                path = f"{path}/traits"
                write = SetTraits(
                    traits=frozenset(
                        trait for trait in write.traits if self._knows(trait, observed)
                    )
                )
                if write.traits == observed.traits:
                    return observed
                body = {"traits": sorted(write.traits)}
        body[_GENERATION] = observed.generation
        done = self._api.ask("PUT", path, body)
        return replace(after(observed, write), generation=self._said(done, _GENERATION))

    def allocate(self, claims: Sequence[Claim]) -> bool:
        """Give guests that hold nothing anywhere what they need: all of them, or none.

        Return whether they have it.
        """
        body = {
            claim.uuid: {
                "allocations": self._share(claim.memory_mib),
                "consumer_generation": None,
                **_CONSUMER,
            }
            for claim in claims
        }
        return self._api.ask("POST", "/allocations", body).ok

    def settle(self, write: Free | Change | Allocate) -> bool:
        """Set one allocation, if it is still as it was observed.

        Return False where it is not, or where there is no room. Raises ServiceError
        ``placement.consumer`` where it is this one consumer that Placement refuses.
        """
        match write:
            case Free():
                return self._set(write.uuid, 0, only=write.allocation.generation)
            case Change():
                return self._set(
                    write.claim.uuid, write.claim.memory_mib, only=write.allocation.generation
                )
            case Allocate():
                return self._set(write.claim.uuid, write.claim.memory_mib)

    def claim(self, wanted: Claim, *, promised: bool = False) -> None:
        """Ask for a guest's memory, whatever it holds now.

        A refusal that the figures do not bear out has met a change by others, so it is asked again.
        With ``promised`` the guest has the memory whatever the capacity is, so room is made where
        there is none. Raises RefusedError ``placement.full``.
        """
        self._require_inventory()
        for _ in range(_TRIES):
            if self._set(wanted.uuid, wanted.memory_mib):
                return
            observed = self.observe()
            held = observed.allocations.get(wanted.uuid)
            if wanted.memory_mib > observed.free_mib + (held.memory_mib if held else 0):
                if not promised or observed.inventory is None:
                    break
                self._make_room(observed, with_room(observed, observed.inventory, wanted))
        raise _full(wanted, observed)

    def _make_room(self, observed: Observed, inventory: Inventory) -> None:
        try:
            self.apply(SetInventory(inventory=inventory), observed)
        except ServiceError as error:
            if error.code != "placement.conflict":  # after a conflict the caller looks again
                raise

    def release(self, uuid: str) -> None:
        """Give back what a guest holds here; what it holds of other providers stays."""
        self._set(uuid, 0)

    def _require_inventory(self) -> None:
        """Raise ServiceError where nothing can be claimed yet.

        A claim for a provider that does not exist is refused, and yet leaves a consumer behind in
        Placement.
        """
        answer = self._api.ask("GET", f"/resource_providers/{provider_uuid(self.host)}/inventories")
        if answer.status == 404:
            raise _no_provider(self.host)
        if RESOURCE_CLASS not in self._said(answer, "inventories"):
            raise ServiceError(
                "placement.no-inventory",
                f"Placement has no memory of {self.host} yet.",
                hint=(
                    "The next report sets it: see that the agent runs, or 'ramshelf placement "
                    "report'."
                ),
                facts={"host": self.host},
            )

    def _found(self) -> Observed:
        """Return the provider with everything but its allocations."""
        answer = self._api.ask("GET", f"/resource_providers?name={quote(self.host, safe='')}")
        found = self._said(answer, "resource_providers")
        if not found:
            return Observed(host=self.host, identity=self._identity, former=self._former())
        path = f"/resource_providers/{found[0]['uuid']}"
        inventories = self._api.ask("GET", f"{path}/inventories")
        traits = self._api.ask("GET", f"{path}/traits")
        generation = self._said(traits, _GENERATION)
        same = self._said(inventories, _GENERATION) == generation
        record = self._said(inventories, "inventories").get(RESOURCE_CLASS)
        return Observed(
            host=self.host,
            identity=self._identity,
            former=self._former(),
            provider=found[0]["uuid"],
            generation=generation if same else -1,
            inventory=_read_inventory(record) if record else None,
            traits=frozenset(self._said(traits, "traits")),
        )

    def _former(self) -> tuple[Former, ...]:
        """Return the providers that this host has had under other names."""
        if not self._identity:
            return ()
        answer = self._api.ask("GET", f"/resource_providers?required={self._identity}")
        if answer.status == 400:  # nobody has had that trait yet
            return ()
        found = self._said(answer, "resource_providers")
        return tuple(
            Former(uuid=provider["uuid"], name=provider["name"])
            for provider in found
            if provider["name"] != self.host and provider["uuid"] == provider_uuid(provider["name"])
        )

    def _with_allocations(self, last: Observed) -> Observed | None:
        """Return the provider with its present allocations.

        Return None where it has changed otherwise, or is gone.
        """
        answer = self._api.ask("GET", f"/resource_providers/{last.provider}/allocations")
        if answer.status == 404 or self._said(answer, _GENERATION) != last.generation:
            return None
        return replace(
            last,
            allocations={
                consumer: Allocation(
                    held["resources"][RESOURCE_CLASS], held.get("consumer_generation")
                )
                for consumer, held in self._said(answer, "allocations").items()
                if RESOURCE_CLASS in held["resources"]
            },
        )

    def _knows(self, trait: str, observed: Observed) -> bool:
        """Tell whether Placement knows the trait; a custom one is made known."""
        if trait in observed.traits:
            return True
        return self._api.ask("GET" if trait == TRAIT else "PUT", f"/traits/{trait}").ok

    def _share(self, memory_mib: int) -> dict[str, object]:
        return {provider_uuid(self.host): {"resources": {RESOURCE_CLASS: memory_mib}}}

    def _set(self, uuid: str, memory_mib: int, *, only: int | None = None) -> bool:
        """Set what a consumer holds of this host's own provider; 0 is nothing.

        Return False where there is no room. With ``only`` this is done if the consumer is still of
        this generation; else nothing is done, and False returned.
        """
        path = f"/allocations/{uuid}"
        own = provider_uuid(self.host)
        left_over: int | None = None
        for attempt in range(1, _TRIES + 1):
            answer = self._api.ask("GET", path)
            held, shares = answer.document, _shares(self._said(answer, "allocations"))
            generation = held.get("consumer_generation", left_over)
            if only is not None and generation != only:
                return False
            mine = shares.setdefault(own, {"resources": {}})["resources"]
            if mine.get(RESOURCE_CLASS, 0) == memory_mib:
                return True
            mine[RESOURCE_CLASS] = memory_mib
            if not memory_mib:
                del mine[RESOURCE_CLASS]
            if not mine:
                del shares[own]
            answer = self._api.ask(
                "PUT",
                path,
                {
                    "allocations": shares,
                    "consumer_generation": generation,
                    **{key: held.get(key, value) for key, value in _CONSUMER.items()},
                },
            )
            if answer.ok:
                return True
            if answer.status == 409 and answer.code != _CONFLICT:
                return False
            if answer.status != 409:
                break
            left_over = _generation(answer) if attempt >= _LEFT_OVER else None
            if only is None:
                time.sleep(random.uniform(0, 0.05 * attempt))  # noqa: S311 - not for secrets
        raise self._refused(uuid, answer)

    def _refused(self, uuid: str, answer: Answer) -> ServiceError:
        """Return why a consumer's allocation was not made, where it is not for want of room."""
        if provider_uuid(self.host) in answer.detail:
            self._last = None
            return _no_provider(self.host)
        return ServiceError(
            "placement.consumer",
            f"Placement refuses what consumer {uuid} is to hold on {self.host}: {answer.detail}.",
            hint=(
                f"See what it holds: 'openstack resource provider allocation show {uuid}'. The next"
                " report tries again."
            ),
            facts={"consumer": uuid, "status": answer.status, "detail": answer.detail},
        )

    def _said(self, answer: Answer, key: str) -> Any:
        """Return what the answer says under this key.

        Raises ServiceError where it does not say it, or where Placement did not do what it was
        asked.
        """
        self._require_done(answer)
        if key not in answer.document:
            raise ServiceError(
                "placement.error",
                f"What answers as Placement does not say {key}: it is something else.",
                hint="Check what [placement] names.",
                facts={"answer": str(answer.document)[:200]},
            )
        return answer.document[key]

    def _require_done(self, answer: Answer) -> None:
        """Raise ServiceError where Placement did not do what it was asked."""
        if answer.ok:
            return
        if answer.status == 409 and answer.code == _CONFLICT:
            raise _conflict(f"Somebody else has changed {self.host} in Placement meanwhile")
        self._last = None
        if answer.status in {400, 404} and provider_uuid(self.host) in answer.detail:
            raise _no_provider(self.host)
        raise ServiceError(
            "placement.error",
            f"Placement refuses with {answer.status}: {answer.detail}.",
            hint="See Placement's log.",
            facts={"status": answer.status, "placement_code": answer.code, "detail": answer.detail},
        )


def connect(config: Config, host: str) -> Placement | None:
    """Return Placement as ``[ramshelf] placement`` says, or None where it is not used.

    Nothing is asked yet. ``host`` is what libvirt calls this host (``Hypervisor.host_name``), which
    is nova-compute's name for it.
    """
    if config.placement_mode == "none":
        return None
    return Placement(config, host, identity=host_trait(read_text(_MACHINE_ID, "").strip()))


def _conflict(sentence: str) -> ServiceError:
    return ServiceError("placement.conflict", f"{sentence}.", hint="Try again.")


def _no_provider(host: str) -> ServiceError:
    return ServiceError(
        "placement.no-provider",
        f"Placement has no resource provider {host} of ramshelf's.",
        hint="The next report makes it: see that the agent runs, or 'ramshelf placement report'.",
        facts={"host": host, "provider": provider_uuid(host)},
    )


def _full(wanted: Claim, observed: Observed) -> RefusedError:
    room, free = observed.room_mib, observed.free_mib
    sentence = (
        f"Placement has no {wanted.memory_mib} MiB for guest {wanted.name}: {free} of {room} MiB of"
        f" {observed.host} are free."
    )
    hint = (
        f"Others have claimed it: 'openstack resource provider usage show {observed.provider}'. "
        "Stop a guest, or give this one less memory."
    )
    if wanted.memory_mib <= free:
        sentence = (
            f"Placement refuses {wanted.memory_mib} MiB for guest {wanted.name}, though {free} of "
            f"{room} MiB of {observed.host} are free."
        )
        hint = (
            "Either the inventory gives no such amount at once ('openstack resource provider "
            f"inventory list {observed.provider}'), or the guest holds too much of another host "
            f"('openstack resource provider allocation show {wanted.uuid}')."
        )
    return RefusedError(
        "placement.full",
        sentence,
        hint=hint,
        facts={
            "guest": wanted.name,
            "wanted_mib": wanted.memory_mib,
            "free_mib": free,
            "room_mib": room,
        },
    )


def _generation(refusal: Answer) -> int | None:
    """Return the generation of a consumer that holds nothing, or None where it is not said.

    Only the words of a refusal name it. Placement makes a consumer before it looks at what it is to
    hold, and leaves it where the provider does not exist (placement/handlers/allocation.py,
    _set_allocations_for_consumer).
    """
    expected = re.search(r"expected (\d+) but got", refusal.detail)
    return int(expected[1]) if expected else None


def _shares(allocations: Mapping[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """Return a consumer's allocations by provider as they are written, without the generations."""
    return {
        provider: {"resources": dict(share["resources"])} for provider, share in allocations.items()
    }


def _read_inventory(record: Mapping[str, Any]) -> Inventory:
    return Inventory(
        total=record["total"],
        reserved=record["reserved"],
        min_unit=record["min_unit"],
        max_unit=record["max_unit"],
        step_size=record["step_size"],
        allocation_ratio=record["allocation_ratio"],
    )
