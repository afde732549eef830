"""The weigher, which prefers hosts whose store and RAM have headroom by what guests use."""

from nova.objects.request_spec import RequestSpec
from nova.scheduler import utils, weights
from nova.scheduler.host_manager import HostState
from nova.weights import WeighedObject

from ramshelf_nova import figures
from ramshelf_nova.conf import CONF


class StoreHeadroomWeigher(weights.BaseHostWeigher):
    """Weighs a host by the scarcer of its store and its RAM.

    Its weight is the share of it that guests leave, 0 to 1. A host without figures weighs what the
    others do on average, so that it is neither sought nor avoided.
    """

    # With both bounds the handler takes weights as they are, rather than stretch a small difference
    # between hosts to the whole range.
    minval = 0.0
    maxval = 1.0

    def weight_multiplier(self, host_state: HostState) -> float:
        """Return the configured multiplier, or that of the host's aggregates."""
        return float(
            utils.get_weight_multiplier(
                host_state,
                "store_headroom_weight_multiplier",
                CONF.filter_scheduler.store_headroom_weight_multiplier,
            )
        )

    def weigh_objects(
        self,
        weighed_obj_list: list[WeighedObject],
        weight_properties: RequestSpec,  # noqa: ARG002 - Nova's signature
    ) -> list[float]:
        """Return the weights of all hosts."""
        headrooms = [headroom(weighed.obj) for weighed in weighed_obj_list]
        known = [share for share in headrooms if share is not None]
        average = sum(known) / len(known) if known else 0.0
        return [average if share is None else share for share in headrooms]

    def _weigh_object(self, obj: HostState, weight_properties: RequestSpec) -> float:
        return self.weigh_objects([WeighedObject(obj, 0.0)], weight_properties)[0]


def headroom(host: HostState) -> float | None:
    """Return the share that guests leave of the store or of RAM, whichever is scarcer.

    Return None without figures.
    """
    promised = _figure(host, figures.STORE_PROMISED_MIB)
    if promised is not None:
        # The stats are some time old; what Nova has given away since is known here.
        promised = max(promised, host.total_usable_ram_mb - host.free_ram_mb)
    shares = [
        share
        for share in (
            _left(_figure(host, figures.STORE_TOTAL_MIB), promised),
            _left(_figure(host, figures.RAM_MIB), _figure(host, figures.RESIDENT_MIB)),
        )
        if share is not None
    ]
    return min(shares, default=None)


def _left(total: int | None, used: int | None) -> float | None:
    """Return the share of ``total`` that ``used`` leaves, 0 to 1; None where one is not known."""
    if not total or used is None:
        return None
    return min(1.0, max(0.0, 1 - used / total))


def _figure(host: HostState, name: str) -> int | None:
    """Return one of the host's figures; None where it is missing or not a number."""
    try:
        return int(host.stats[name])
    except (AttributeError, KeyError, ValueError):  # no stats before the host has reported once
        return None
