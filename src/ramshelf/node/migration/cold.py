"""Moving a guest to another host by stopping it.

The guest is converted to what that host wants, and started there.
"""

import time
from collections.abc import Callable

from ramshelf.core.config import Config
from ramshelf.core.errors import InterruptedByUserError, RamshelfError, RefusedError, ServiceError
from ramshelf.core.migration.verdict import Way
from ramshelf.node.guard import IDLE, Guard
from ramshelf.node.guest.stop import end_guest
from ramshelf.node.migration.claim import moved_claim
from ramshelf.node.migration.cold_guard import MOVING, leave, start_again, take_back
from ramshelf.node.migration.destination import Move
from ramshelf.node.migration.live import Moved, require_movable
from ramshelf.system.hypervisor import Domain, Hypervisor


def move_cold(
    here: Hypervisor,
    there: Hypervisor,
    config: Config,
    move: Move,
    *,
    timeout: float,
    progress: Callable[[float], None] = lambda _seconds: None,
    after_step: Callable[[str], None] = lambda _step: None,
) -> Moved:
    """Stop a guest (see ``end_guest``), and start it on the other host.

    A guest that does not run is only defined there. The guest is undefined here once it runs there.
    Where it does not start there it is started here again, and the error from there is raised. A
    guard sees to that where this process is killed, where Ctrl-C ends the wait for a guest that was
    asked to stop, or where the outcome cannot be known (``migration.unknown``). ``after_step`` is
    told each step that has been done.
    """
    require_movable(move, Way.COLD)
    assert move.converted is not None  # noqa: S101 - else it would not be possible
    name, begin = move.domain.name, time.monotonic()
    with (
        moved_claim(
            here, there, config, uuid=move.domain.uuid, guest=move.converted.guest
        ) as claim,
        Guard(
            "ramshelf.node.migration.cold_guard", here.uri, there.uri, name, str(timeout)
        ) as guard,
    ):

        def stopping(step: str) -> None:
            guard.tell(MOVING)  # before the guest is asked
            after_step(step)

        if move.domain.active:
            _stop(here, move.domain, timeout=timeout, progress=progress, after_step=stopping)
        try:
            claim.again()
            _arrive(there, move, after_step)
        except BaseException as error:
            _come_back(here, there, move, guard, error)
            raise
        notes = leave(here, name)
        guard.tell(IDLE)
    return Moved(
        name=name,
        host=move.there.name,
        way=Way.COLD,
        seconds=time.monotonic() - begin,
        notes=(*claim.notes, *move.converted.notes, *notes),
    )


def _stop(
    here: Hypervisor,
    domain: Domain,
    *,
    timeout: float,
    progress: Callable[[float], None],
    after_step: Callable[[str], None],
) -> None:
    try:
        end_guest(here, domain, timeout=timeout, progress=progress, after_step=after_step)
    except KeyboardInterrupt:
        raise InterruptedByUserError(
            f"Interrupted: guest {domain.name} stays here.",
            hint=(
                f"It was asked to shut down; if it does so within {timeout:g} s it is started here "
                "again."
            ),
            facts={"guest": domain.name},
        ) from None
    after_step("stop")


def _arrive(there: Hypervisor, move: Move, after_step: Callable[[str], None]) -> None:
    assert move.converted is not None  # noqa: S101 - move_cold
    there.define(move.converted.xml)
    after_step("define")
    if move.domain.active:
        there.start(move.domain.name)
        after_step("start")


def _come_back(
    here: Hypervisor, there: Hypervisor, move: Move, guard: Guard, error: BaseException
) -> None:
    """Remove what there is of the guest there, and start it here again if it ran.

    Raises ServiceError ``migration.unknown`` or RefusedError ``migration.stranded`` where that
    cannot be done.
    """
    name, active = move.domain.name, move.domain.active
    try:
        take_back(there, move.domain)
    except RamshelfError as unknown:
        by_itself = (
            "If it answers within 15 minutes this is put right by itself. " if active else ""
        )
        raise ServiceError(
            "migration.unknown",
            f"It is not known whether guest {name} runs on {move.there.name}, which does not "
            f"answer: {unknown.sentence}",
            hint=(
                f"{by_itself}See there. If it does not run: 'virsh undefine {name}' there, and "
                f"'ramshelf guest start {name}' here."
            ),
            facts={"guest": name, "host": move.there.name, "cause": str(error)},
        ) from error
    if not active:
        return
    try:
        start_again(here, name, None if move.persistent else move.definition)
    except RamshelfError as second:
        guard.tell(IDLE)
        raise RefusedError(
            "migration.stranded",
            f"Guest {name} has started neither on {move.there.name} nor here again: "
            f"{second.sentence}",
            hint=(
                f"Once that is put right: 'ramshelf guest start {name}' here. There it was: {error}"
            ),
            facts={"guest": name, "host": move.there.name, "there": str(error)},
        ) from error
    guard.tell(IDLE)
