"""Guests on this host, and what they hold on the store; see start.py and stop.py for the rest."""

import os
from collections.abc import Callable, Iterable, Mapping

from ramshelf.core.config import Config
from ramshelf.core.domain.memory import Guest, parse_guest
from ramshelf.core.domain.own_backends import OwnBackend, own_backends
from ramshelf.core.errors import HostError
from ramshelf.core.ram import Balance, balance
from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.capacity import Capacity, capacity
from ramshelf.core.store.directory import FileUsage
from ramshelf.core.store.earlier import EarlierPromise, refused_anew
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.holdings import Holding
from ramshelf.core.units import MIB
from ramshelf.node.store.earlier import promises
from ramshelf.node.store.holdings import observe_holdings
from ramshelf.system.backingstore import ObservedStore, observe_store
from ramshelf.system.hypervisor import Domain, Hypervisor
from ramshelf.system.pagecache import resident
from ramshelf.system.procfs import host_ram


def measure_resident(file: FileUsage) -> int:
    """Return the bytes of the file that are in RAM; 0 for a file that has gone meanwhile.

    The kernel looks at each page that is in RAM: the more there are, the longer it takes.
    """
    try:
        return resident(file)
    except FileNotFoundError:
        return 0


@dataclass(frozen=True, kw_only=True)
class ObservedFile:
    """A memory file on the store; sizes in bytes."""

    path: str
    size: int
    allocated: int
    resident: int


@dataclass(frozen=True, kw_only=True)
class RunningGuest:
    """A running guest and what it holds on the store; sizes in bytes."""

    domain: Domain
    promised: int
    files: tuple[ObservedFile, ...]

    @property
    def size(self) -> int:
        """The size of the guest's memory files."""
        return sum(file.size for file in self.files)

    @property
    def allocated(self) -> int:
        """The space that the guest's memory files occupy."""
        return sum(file.allocated for file in self.files)

    @property
    def resident(self) -> int:
        """What of the guest's memory files is in RAM."""
        return sum(file.resident for file in self.files)


@dataclass(frozen=True, kw_only=True)
class StoreShares:
    """The store, what it can hold, and who holds it.

    ``guests`` are the running guests, ``unknown`` the directories that are nobody's. ``ram`` is RAM
    held against what cannot go to the store. ``earlier`` are the promises from before an upgrade,
    and ``refused_anew`` the guests for which there would be no room after a reboot; both are empty
    where nobody looked.
    """

    store: Store
    capacity: Capacity
    ram: Balance
    guests: tuple[RunningGuest, ...]
    unknown: tuple[Holding, ...]
    earlier: tuple[EarlierPromise, ...] = ()
    refused_anew: tuple[str, ...] = ()


def observe_shares(hypervisor: Hypervisor | None, config: Config) -> StoreShares:
    """Return who holds what on the store; without a hypervisor nobody can be named.

    Raises HostError ``store.*`` where there is no store to look at.
    """
    observed = observe_store()
    store, current = _require_store(observed, config)
    domains, held = observe_holdings(hypervisor, observed)
    assert observed.usage is not None  # noqa: S101 - of a store
    earlier = promises(hypervisor)
    limit = config.limit.mib
    return replace(
        shares(store, current, domains, held, ram=observe_ram(observed, store, config)),
        earlier=earlier,
        refused_anew=refused_anew(observed.usage, earlier, configured_mib=limit),
    )


def observe_ram(observed: ObservedStore, store: Store, config: Config) -> Balance:
    """Hold RAM against what the host, and the guests that were seen, need of it."""
    return balance(observed.notes, host_ram(store, reserved=config.host_reserved_mib * MIB))


def shares(
    store: Store,
    current: Capacity,
    domains: Mapping[str, Domain],
    held: Iterable[Holding],
    *,
    ram: Balance,
    measure: Callable[[FileUsage], int] = measure_resident,
) -> StoreShares:
    """Return the holdings by the guests that hold them.

    ``measure`` gives how many bytes of a file are in RAM.
    """
    held = tuple(held)
    guests = [
        RunningGuest(
            domain=domains[holding.guest],
            promised=holding.promised,
            files=_memory_files(holding.files, measure),
        )
        for holding in held
        if holding.guest is not None
    ]
    return StoreShares(
        store=store,
        capacity=current,
        ram=ram,
        guests=tuple(sorted(guests, key=lambda guest: guest.domain.domain_id or 0)),
        unknown=tuple(holding for holding in held if holding.guest is None),
    )


@dataclass(frozen=True, kw_only=True)
class GuestDetails:
    """One guest; ``running`` is None where it does not run from the store.

    ``own`` is the memory in files that its qemu:commandline has QEMU map besides.
    """

    domain: Domain
    description: Guest
    running: RunningGuest | None
    own: tuple[OwnBackend, ...]


def show_guest(hypervisor: Hypervisor, name: str) -> GuestDetails:
    """Return the details of a guest, running or not.

    Raises RefusedError ``guest.not-found``.
    """
    domain = hypervisor.find(name)
    xml = hypervisor.live_xml(name)
    description = described(xml, name)
    running = None
    if domain.active and description.file_backed:
        _, held = observe_holdings(hypervisor, observe_store())
        running = next(
            (
                RunningGuest(
                    domain=domain, promised=holding.promised, files=_memory_files(holding.files)
                )
                for holding in held
                if holding.guest == name
            ),
            None,
        )
    return GuestDetails(
        domain=domain, description=description, running=running, own=own_backends(xml)
    )


def _require_store(observed: ObservedStore, config: Config) -> tuple[Store, Capacity]:
    if isinstance(observed.store, NoStore) or observed.usage is None:
        reason = observed.store
        assert isinstance(reason, NoStore)  # noqa: S101 - a store has its usage
        raise HostError(reason.code, reason.sentence, hint=reason.hint)
    # Where file backing is off, other tools' guests still hold what they hold.
    return observed.store, capacity(observed.usage, configured_mib=config.limit.mib)


def _memory_files(
    files: Iterable[FileUsage], measure: Callable[[FileUsage], int] = measure_resident
) -> tuple[ObservedFile, ...]:
    return tuple(
        ObservedFile(
            path=file.path, size=file.apparent, allocated=file.allocated, resident=measure(file)
        )
        for file in files
    )


def described(xml: str, name: str) -> Guest:
    """Return a guest by the XML that libvirt has of it, and the name that libvirt has for it.

    libvirt writes a carriage return in a name as it is, which no XML parser gives back.
    """
    return replace(parse_guest(xml, page_size=os.sysconf("SC_PAGE_SIZE")), name=name)
