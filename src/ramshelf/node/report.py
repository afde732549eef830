"""Placement and this host brought to agree: the pass that the agent repeats, and the claim around a start."""

from collections.abc import Callable
from dataclasses import dataclass

from ramshelf.core.config import Config
from ramshelf.core.findings import Finding
from ramshelf.core.placement import Claim, Truth
from ramshelf.node.guests import StoreShares
from ramshelf.system.placement import Placement


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one pass found and did.

    ``code`` is stable: ``placement.reported`` (the provider is ours and agrees now), ``placement.compared``
    (it is nova-compute's, nothing was written), else why the pass could not be finished
    (``placement.unreachable``, ``placement.timeout``, ``placement.unauthorized``, ``placement.error``,
    ``placement.conflict``, ...); ``sentence`` and ``hint`` say it to a person. ``written`` holds a sentence
    for each change that was made, also where the pass was not finished. The figures are Placement's after
    the pass, None where they are not known.
    """

    code: str
    sentence: str
    hint: str = ""
    owned: bool
    provider: str | None = None
    total_mib: int | None = None
    reserved_mib: int | None = None
    allocated_mib: int | None = None
    written: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the pass was finished; findings may be left all the same."""
        return self.code in {"placement.reported", "placement.compared"}


def truth(host: str, shares: StoreShares | None, *, nova: str) -> Truth:
    """This host as Placement is to have it; ``shares`` is None where there is no store.

    ``host``: ``Hypervisor.host_name()``; ``nova``: ``nova_owns()``.
    """
    raise NotImplementedError


def nova_owns(config: Config) -> str:
    """Why this host is nova-compute's: it runs here, or its configuration is read; '' where it is not."""
    raise NotImplementedError


def reconcile(placement: Placement, look: Callable[[], Truth]) -> Report:
    """One pass that makes Placement agree with this host; never raises for a Placement that does not serve.

    ``look`` is called after Placement was read (and again where somebody else changed it meanwhile), and
    must look anew: an allocation whose guest is not among the guests is taken for a leftover and
    removed. What it raises goes through. The number of writes is bounded; what is left is the next pass's.
    """
    raise NotImplementedError


def claim(placement: Placement | None, config: Config, wanted: Claim) -> tuple[Finding, ...]:
    """Before a guest starts: Placement is asked for its memory.

    Raises RefusedError ``placement.full`` where Placement has no room. Where Placement does not serve, and
    ``placement_required`` is set, ServiceError ``placement.*``; else a finding that says so. Nothing is
    done (and nothing said) where ``placement`` is None or the provider is not ours.
    """
    raise NotImplementedError


def release(placement: Placement | None, host: str, uuid: str) -> tuple[Finding, ...]:
    """After a guest's end, or a start that failed: its allocation is given back; findings where not."""
    raise NotImplementedError
