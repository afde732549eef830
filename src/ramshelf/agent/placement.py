"""Passes over Placement, in a thread of their own.

So a Placement that is slow to answer keeps nothing else waiting.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from ramshelf.core.config import Config
from ramshelf.core.errors import RamshelfError
from ramshelf.node.placement import Report, look_at_host, reconcile
from ramshelf.system.hypervisor import Hypervisor
from ramshelf.system.placement import Placement, connect
from ramshelf.system.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass: what came of it, or the error that ended it.

    ``begun`` is what the caller said.
    """

    begun: float
    outcome: Report | Exception


class Reporter:
    """Makes one pass at a time; ``tell`` gets what came of it, in the passes' thread."""

    def __init__(self, tell: Callable[[Pass], None]) -> None:
        self._tell = tell
        self._worker: Worker | None = None
        self._open = ExitStack()
        self._placement: Placement | None = None
        self._for: object = None
        self.busy = False

    def ask(self, hypervisor: Hypervisor, config: Config, *, begun: float) -> None:
        """Begin a pass; none must be under way.

        ``busy`` is set until the caller unsets it, when it has been told.
        """
        self.busy = True
        self._worker = self._worker or Worker()
        self._worker.post(lambda: self._pass(hypervisor, config, begun))

    def _pass(self, hypervisor: Hypervisor, config: Config, begun: float) -> None:
        try:
            outcome: Report | Exception = self._reported(hypervisor, config)
        except Exception as error:  # noqa: BLE001 - whoever asked decides what it means
            outcome = error
        self._tell(Pass(begun=begun, outcome=outcome))

    def _reported(self, hypervisor: Hypervisor, config: Config) -> Report:
        # A host may get another name while it runs.
        wanted = (hypervisor.host_name(), _settings(config))
        if self._placement is None or self._for != wanted:
            self._close()
            placement = connect(config, wanted[0])
            assert placement is not None  # noqa: S101 - else no pass is asked for
            self._placement, self._for = self._open.enter_context(placement), wanted
        try:
            report = reconcile(self._placement, lambda: look_at_host(hypervisor, config))
        except RamshelfError:
            raise
        except Exception:
            self._close()  # what it has kept may be what is wrong
            raise
        return report

    def _close(self) -> None:
        self._placement = None
        self._open.close()


def _settings(config: Config) -> object:
    """Return what of the configuration a connection depends on.

    An embedded Placement is not opened anew for anything else.
    """
    if config.placement_mode == "embedded":
        return config.placement_mode, config.placement_database, config.placement_owner
    return config
