"""What Placement says of how hosts back guests' memory.

It is asked in few calls, and their answers are kept for a time.
"""

import enum
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import os_traits
from keystoneauth1 import exceptions as ks_exc
from nova import exception
from nova.scheduler.client import report

from ramshelf_nova.conf import CONF
from ramshelf_nova.core.store.kind import TRAIT_PREFIX, Kind

Get = Callable[[str], Any]
"""Asks Placement: takes a path with its query, and returns keystoneauth's response."""

_MICROVERSION = "1.39"
"""Placement's microversion in Yoga: it lets a query name traits of which a provider has any."""

_PINNABLE = frozenset(kind.trait for kind in Kind if kind.tmpfs)
"""The traits of the kinds of store whose pages the kernel pins for a device."""


class Backing(enum.Enum):
    """What a host makes of a guest's memory."""

    ANONYMOUS = "anonymous"
    FILE = "file"
    """A file on a store whose pages cannot be pinned, or which does not say of what kind it is."""
    PINNABLE_FILE = "pinnable file"


class BackingUnknown(exception.NovaException):
    """Placement does not say what hosts make of guests' memory."""

    msg_fmt = "Placement does not say which hosts have file-backed memory: %(reason)s"


class Backings:
    """The hosts by their backing.

    They are named by the UUIDs of compute nodes, which are those of their resource providers.
    """

    def __init__(self, get: Get | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._get = get or _get
        self._file_backed = _Kept(self._ask_file_backed, clock)
        self._pinnable = _Kept(self._ask_pinnable, clock)

    def file_backed(self) -> frozenset[str]:
        """Return the hosts with file-backed memory; all others have anonymous memory.

        Raises BackingUnknown.
        """
        return self._file_backed()

    def pinnable(self) -> frozenset[str]:
        """Return those of them that say their store is one whose pages can be pinned.

        Raises BackingUnknown.
        """
        return self._pinnable()

    def _ask_file_backed(self) -> frozenset[str]:
        return self._providers(os_traits.COMPUTE_MEM_BACKING_FILE)

    def _ask_pinnable(self) -> frozenset[str]:
        # Placement refuses a query that names an unknown trait: then nobody has such a store.
        known = self._answer("/traits", name=f"startswith:{TRAIT_PREFIX}")["traits"]
        traits = sorted(_PINNABLE.intersection(known))
        return self._providers(f"in:{','.join(traits)}") if traits else frozenset()

    def _providers(self, required: str) -> frozenset[str]:
        answer = self._answer("/resource_providers", required=required)
        return frozenset(provider["uuid"] for provider in answer["resource_providers"])

    def _answer(self, path: str, **query: str) -> Any:
        try:
            response = self._get(f"{path}?{urlencode(query)}")
        except ks_exc.ClientException as error:
            raise BackingUnknown(reason=error) from error
        if response.status_code != 200:
            raise BackingUnknown(reason=f"{response.status_code} {response.text}")
        return response.json()


class _Kept:
    """An answer, which is asked for anew when it is too old.

    It is kept for [filter_scheduler] file_backed_memory_cache_seconds.
    """

    def __init__(self, ask: Callable[[], frozenset[str]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: frozenset[str] = frozenset()
        self._until = float("-inf")

    def __call__(self) -> frozenset[str]:
        with self._lock:  # requests that come meanwhile wait for the one answer
            now = self._clock()
            if now >= self._until:
                self._answer = self._ask()
                self._until = now + CONF.filter_scheduler.file_backed_memory_cache_seconds
            return self._answer


def _get(url: str) -> Any:
    return report.report_client_singleton().get(url, version=_MICROVERSION)
