"""What starts and ends cost that others ask for, on record in the hook's log."""

import os
import time
from typing import Any

from ramshelf.core.store import Store
from ramshelf.core.units import MIB
from ramshelf.system.counters import bytes_written
from ramshelf.system.hooklog import record, recorded


def now(store: Store) -> dict[str, float]:
    """Where clock and counter stand: seconds since boot, bytes written to the store's device."""
    return {"clock": round(_clock(), 3), "written": bytes_written(store)}


def since(entry: dict[str, Any], current: dict[str, float]) -> dict[str, float]:
    """What has passed since a record that holds ``now``."""
    return {
        "seconds": round(current["clock"] - entry["clock"], 3),
        "written_mib": round((current["written"] - entry["written"]) / MIB, 3),
    }


def ended(guest: str) -> None:
    """``release end``: libvirt has done with the guest, and there is nothing to be decided any more.

    Told is what the guest's whole run has cost; where its ending began no hook is told. A start that failed
    after the guest was reserved comes here as well.
    """
    from ramshelf.system.backingstore import observe_at  # noqa: PLC0415 - most calls end before this

    begun = next((entry for entry in recorded(guest) if entry["event"] in _RUNS), None)
    if begun is None or begun["event"] == "ended" or "clock" not in begun:
        return
    directory = str(begun["directory"])
    store, _ = observe_at(os.path.dirname(directory))
    if isinstance(store, Store):
        record(
            "ended",
            guest=guest,
            uuid=begun["uuid"],
            directory=directory,
            released_mib=begun["promised_mib"],
            left=os.path.exists(directory),
            ran=begun["event"] == "started",
            **since(begun, now(store)),
        )


_RUNS = frozenset({"reserved", "started", "ended"})


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
