"""The scheduler filter, which puts servers only on hosts whose memory backing suits them."""

import threading
from collections.abc import Iterable

from nova.objects.aggregate import Aggregate
from nova.objects.request_spec import RequestSpec
from nova.scheduler import filters, utils
from nova.scheduler.host_manager import HostState
from oslo_log import log as logging

from ramshelf_nova.backing import Backing, Backings, BackingUnknown
from ramshelf_nova.conf import CONF
from ramshelf_nova.demands import Demand, demands_of, left_by_live_migration, same_as_source

LOG = logging.getLogger(__name__)

_RATIO = "ram_allocation_ratio"


def all_filters() -> list[type[filters.BaseHostFilter]]:
    """Return Nova's filters and this one.

    So [filter_scheduler] available_filters is one line.
    """
    return [*filters.all_filters(), FileBackedMemoryFilter]


class FileBackedMemoryFilter(filters.BaseHostFilter):
    """Passes the hosts whose backing of memory a server's flavor, image and devices allow.

    Pages of a size that is asked for and locked memory need anonymous memory; encrypted memory and
    passed-through devices need memory that can be pinned; a live migration needs the same backing
    as on its source. Most requests ask for nothing of the kind, and pass without a look at the
    hosts.
    """

    RUN_ON_REBUILD = True  # as filter_all does: another image may ask for what the host cannot give
    # What is asked for and the hosts' backing do not change within a request.
    run_filter_once_per_request = True

    def __init__(self, backings: Backings | None = None) -> None:
        self._backings = backings or Backings()
        self._warned: set[tuple[str, str, str]] = set()
        self._warned_lock = threading.Lock()

    def host_passes(self, host_state: HostState, spec_obj: RequestSpec) -> bool:
        """Tell whether this one host passes."""
        return bool(self.filter_all([host_state], spec_obj))

    def filter_all(
        self, filter_obj_list: Iterable[HostState], spec_obj: RequestSpec
    ) -> list[HostState]:
        """Return the hosts that pass.

        Nova's handler asks for all of them at once, and what is asked for is read once.
        """
        hosts = list(filter_obj_list)
        demands = demands_of(spec_obj)
        source = left_by_live_migration(spec_obj)
        if demands or source:
            hosts = self._suitable(hosts, demands, source)
        if not utils.request_is_rebuild(spec_obj):  # a server that is there stays there
            hosts = self._not_overcommitted(hosts)
        return hosts

    def _suitable(
        self, hosts: list[HostState], demands: tuple[Demand, ...], source: str | None
    ) -> list[HostState]:
        """Return the hosts that can give what is demanded, and the same backing as the source's.

        The latter counts where there is a source.
        """
        try:
            file_backed = self._backings.file_backed()
            if source:
                demands = (*demands, same_as_source(file_backed=source in file_backed))
            refusals = {backing: _refusal(demands, backing) for backing in Backing}
            kinds_matter = refusals[Backing.FILE] != refusals[Backing.PINNABLE_FILE]
            pinnable = self._backings.pinnable() if kinds_matter else frozenset()
        except BackingUnknown as error:
            return [] if _reject(error) else hosts

        passing = []
        for host in hosts:
            if host.uuid not in file_backed:
                backing = Backing.ANONYMOUS
            else:
                backing = Backing.PINNABLE_FILE if host.uuid in pinnable else Backing.FILE
            reason = refusals[backing]
            if reason is None:
                passing.append(host)
            else:
                LOG.debug(
                    "%(host_state)s has %(backing)s memory: %(reason)s",
                    {"host_state": host, "backing": backing.value, "reason": reason},
                )
        return passing

    def _not_overcommitted(self, hosts: list[HostState]) -> list[HostState]:
        """Return the hosts of which no aggregate asks to overcommit file-backed memory.

        Unless [filter_scheduler] file_backed_memory_require_aggregate_ratio is set, return all.
        """
        overcommitting = {
            aggregate for aggregate in _all_aggregates(hosts) if _overcommits(aggregate)
        }
        if not overcommitting:
            return hosts
        required = CONF.filter_scheduler.file_backed_memory_require_aggregate_ratio
        try:
            file_backed = self._backings.file_backed()
        except BackingUnknown as error:
            if not required or not _reject(error):
                return hosts
            return [host for host in hosts if overcommitting.isdisjoint(host.aggregates)]

        passing = []
        for host in hosts:
            wrong = overcommitting.intersection(host.aggregates) if host.uuid in file_backed else ()
            for aggregate in wrong:
                self._warn_once(host, aggregate)
            if wrong and required:
                LOG.debug("%s has file-backed memory in an aggregate that overcommits it", host)
            else:
                passing.append(host)
        return passing

    def _warn_once(self, host: HostState, aggregate: Aggregate) -> None:
        ratio = aggregate.metadata[_RATIO]
        case = (host.uuid, aggregate.name, ratio)
        with self._warned_lock:  # the scheduler serves several requests at once
            if case in self._warned:
                return
            self._warned.add(case)
        LOG.warning(
            "Host %(host)s has file-backed memory, which cannot be overcommitted, and is in "
            "aggregate %(aggregate)s with ram_allocation_ratio %(ratio)s: set it to 1.0.",
            {"host": host.host, "aggregate": aggregate.name, "ratio": ratio},
        )


def _refusal(demands: tuple[Demand, ...], backing: Backing) -> str | None:
    """Return why a host of this backing does not suit; None where it does."""
    return next((demand.reason for demand in demands if backing not in demand.backings), None)


def _reject(error: BackingUnknown) -> bool:
    """Tell whether hosts that may not suit are rejected, and warn of what comes of it."""
    reject: bool = CONF.filter_scheduler.file_backed_memory_when_unknown == "reject"
    LOG.warning(
        "%(error)s; hosts that may not suit are %(verdict)s",
        {"error": error, "verdict": "rejected" if reject else "accepted"},
    )
    return reject


def _all_aggregates(hosts: list[HostState]) -> set[Aggregate]:
    """Return each aggregate once.

    Hosts share the objects, and an object's own hash is its identity.
    """
    return {aggregate for host in hosts for aggregate in host.aggregates}


def _overcommits(aggregate: Aggregate) -> bool:
    """Tell whether the aggregate asks for another ratio of RAM than 1.0, or an unreadable one."""
    ratio = aggregate.metadata.get(_RATIO)
    try:
        return ratio is not None and float(ratio) != 1.0
    except ValueError:
        return True
