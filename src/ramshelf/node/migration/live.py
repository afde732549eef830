"""Moving a guest to another host, live.

The move is judged first; then libvirt migrates the guest, and is watched until the end.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ramshelf.core.config import Config
from ramshelf.core.errors import InterruptedByUserError, RamshelfError, RefusedError
from ramshelf.core.findings import Finding
from ramshelf.core.migration.live import LiveOptions, Progress
from ramshelf.core.migration.verdict import Way
from ramshelf.core.store.find import Store
from ramshelf.node.guest.aftercare import leave
from ramshelf.node.migration.claim import moved_claim
from ramshelf.node.migration.destination import Move
from ramshelf.system.backingstore import observe_store
from ramshelf.system.hypervisor import Hypervisor, Request

_POLL = 0.5
"""Seconds between two looks at how far the migration is."""

_PRECOPY = 1
"""Passes over memory before a guest that may use postcopy runs on the other host."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A guest that has moved.

    ``figures`` are libvirt's of a live migration; None of another one, or where libvirt does not
    tell.
    """

    name: str
    host: str
    way: Way
    seconds: float
    figures: Progress | None = None
    notes: tuple[Finding, ...] = ()


def require_movable(move: Move, way: Way) -> None:
    """Raise RefusedError ``migration.refused`` where a guest cannot move in this way.

    The error gives every reason.
    """
    against = move.verdict.against(way)
    if not against:
        return
    hints = [reason.hint for reason in against if reason.hint]
    raise RefusedError(
        "migration.refused",
        f"Guest {move.domain.name} cannot move {way.value} to {move.there.name}: "
        f"{' '.join(f'{reason.sentence} [{reason.code}]' for reason in against)}",
        hint=" ".join(dict.fromkeys(hints)),
        facts={
            "guest": move.domain.name,
            "host": move.there.name,
            "way": way.value,
            "reasons": [{"code": reason.code, "message": reason.sentence} for reason in against],
        },
    )


def migrate(
    here: Hypervisor,
    there: Hypervisor,
    config: Config,
    move: Move,
    live_options: LiveOptions,
    *,
    progress: Callable[[Progress], None] = lambda _figures: None,
) -> Moved:
    """Move a running guest; it runs on here where that fails, or where Ctrl-C ends it.

    ``there.uri`` is where this host's libvirt finds the other's. Raises RefusedError
    ``migration.refused`` and what libvirt or the other host's hook says; RamshelfError
    ``cli.interrupted`` after Ctrl-C.
    """
    require_movable(move, Way.POSTCOPY if live_options.postcopy else Way.LIVE)
    name, begin = move.domain.name, time.monotonic()
    claimed = moved_claim(here, there, config, uuid=move.domain.uuid, guest=move.guest)
    with claimed as claim, Hypervisor(here.uri) as mover:
        migration = mover.migrate(name, there.uri, live_options)
        try:
            try:
                _watch(here, name, migration, live_options, progress)
            except KeyboardInterrupt:
                _abort(here, name, migration)
        except RamshelfError:
            _give_back(move)
            raise
    seconds, figures = time.monotonic() - begin, None
    with suppress(RamshelfError):  # it has moved, even if libvirt cannot be asked
        figures = there.progress(name, completed=True)
    return Moved(
        name=name,
        host=move.there.name,
        way=Way.LIVE,
        seconds=seconds,
        figures=figures,
        notes=claim.notes,
    )


def _give_back(move: Move) -> None:
    """Have the guest that stays here trimmed.

    What was read of its memory is allocated on a tmpfs.
    """
    store = observe_store().store
    if move.guest.file_backed and isinstance(store, Store) and store.kind.tmpfs:
        leave(move.domain.name, move.domain.domain_id or 0, "trim")


def _watch(
    here: Hypervisor,
    name: str,
    migration: Request,
    live_options: LiveOptions,
    progress: Callable[[Progress], None],
) -> None:
    postcopy = live_options.postcopy
    while not migration.ended(_POLL):
        figures = here.progress(name)
        if figures is None:
            continue
        progress(figures)
        if postcopy and figures.iteration > _PRECOPY:
            with suppress(RefusedError):  # then it is done without postcopy
                here.start_postcopy(name)
                postcopy = False


def _abort(here: Hypervisor, name: str, migration: Request) -> None:
    """Give the migration up; return where it was too late for that, and the guest has moved.

    Raises RamshelfError ``cli.interrupted`` where the migration was given up.
    """
    while True:
        with suppress(RamshelfError):  # it has not begun, or has just ended
            here.abort_job(name)
        try:
            if migration.ended(_POLL):
                return
        except RamshelfError as error:
            raise InterruptedByUserError(
                f"Interrupted: guest {name} stays here.",
                facts={"guest": name, "libvirt": error.sentence},
            ) from error
