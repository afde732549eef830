"""The compute service of this host, which is disabled while the host can start no guest.

It is enabled again afterwards.
"""

import threading

import nova.context
from nova import exception, objects
from nova.virt.libvirt.driver import DISABLE_PREFIX
from oslo_log import log as logging

from ramshelf_nova.conf import CONF
from ramshelf_nova.core.migration.answer import HostAnswer
from ramshelf_nova.hook import Hook, trouble

LOG = logging.getLogger(__name__)

_PREFIX = f"{DISABLE_PREFIX}ramshelf: "
"""Begins with Nova's own mark of what was disabled automatically.

Nova's driver enables that when it starts.
"""

_REASON_MAX = 255
"""The length of the column disabled_reason."""


class ComputeService:
    """The service as it follows what the hook says."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._lock = threading.Lock()

    def follow(self) -> HostAnswer | None:
        """Ask the hook, bring the service into line with its answer, and return that.

        This is for the driver's get_available_resource: right after it Nova brings the provider's
        trait COMPUTE_STATUS_DISABLED into line
        (ResourceTracker._sync_compute_service_disabled_trait). Several threads call that, such as
        the end of a live migration beside the look of every minute
        (ComputeManager._post_live_migration). Raises HypervisorUnavailable.
        """
        with self._lock:  # else who asked before could write after whoever asked last
            answer = self._hook.answer()
            reflect(trouble(answer))
            return answer


def reflect(trouble: str | None) -> None:
    """Disable this host's service for its trouble, or enable it where that is over."""
    context = nova.context.get_admin_context()
    try:
        service = objects.Service.get_by_compute_host(context, CONF.host)
    except exception.ComputeHostNotFound:  # deleted by an operator
        return
    now = service.disabled, service.disabled_reason
    wanted = decide(*now, trouble)
    if wanted == now:
        return
    service.disabled, service.disabled_reason = wanted
    service.save()
    if service.disabled:
        LOG.warning("This host takes no servers: %s", trouble)
    else:
        LOG.info("This host takes servers again")


def decide(disabled: bool, reason: str | None, trouble: str | None) -> tuple[bool, str | None]:  # noqa: FBT001
    """Return whether the service is to be disabled and why, by what it is now.

    What somebody else has disabled stays as it is.
    """
    if disabled and not (reason or "").startswith(_PREFIX):
        return disabled, reason
    if trouble:
        return True, f"{_PREFIX}{trouble}"[:_REASON_MAX]
    return False, None if disabled else reason
