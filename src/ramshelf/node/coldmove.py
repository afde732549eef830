"""Moving a guest to another host by stopping it: converted to what that host wants, and started there."""

import time
from collections.abc import Callable

from ramshelf.core.config import Config
from ramshelf.core.errors import RamshelfError, RefusedError, ServiceError
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.migration import Way
from ramshelf.node.destination import Move
from ramshelf.node.migrate import Moved, require
from ramshelf.node.movedclaim import moved_claim
from ramshelf.node.stopping import end_guest
from ramshelf.system.hypervisor import Hypervisor


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
    """Stop a guest (see ``end_guest``), and start it there; one that does not run is only defined there.

    It is undefined here once it runs there. Where it does not start there it is started here again, and what
    was the matter there is raised. ``after_step`` is told each step that has been done.
    """
    require(move, Way.COLD)
    assert move.converted is not None  # noqa: S101 - else it would not be possible
    name, begin = move.domain.name, time.monotonic()
    with moved_claim(here, there, config, uuid=move.domain.uuid, guest=move.converted.guest) as claim:
        if move.domain.active:
            end_guest(here, move.domain, timeout=timeout, progress=progress)
            after_step("stop")
        try:
            claim.again()
            _arrive(there, move, after_step)
        except BaseException as error:
            _come_back(here, there, move, error)
            raise
        notes = _leave(here, move)
    return Moved(
        name=name,
        host=move.there.name,
        way=Way.COLD,
        seconds=time.monotonic() - begin,
        notes=(*claim.notes, *move.converted.notes, *notes),
    )


def _arrive(there: Hypervisor, move: Move, after_step: Callable[[str], None]) -> None:
    assert move.converted is not None  # noqa: S101 - move_cold
    there.define(move.converted.xml)
    after_step("define")
    if move.domain.active:
        there.start(move.domain.name)
        after_step("start")


def _come_back(here: Hypervisor, there: Hypervisor, move: Move, error: BaseException) -> None:
    """Start it here again, unless it runs there after all; raises where it then runs nowhere."""
    name = move.domain.name
    try:
        _take_back(there, move)
    except RamshelfError as unknown:
        raise ServiceError(
            "migration.unknown",
            f"It is not known whether guest {name} runs on {move.there.name}, which does not answer: "
            f"{unknown.sentence}",
            hint=f"See there. If it does not run: 'virsh undefine {name}' there, and "
            f"'ramshelf guest start {name}' here.",
            facts={"guest": name, "host": move.there.name, "cause": str(error)},
        ) from error
    if not move.domain.active:
        return
    try:
        if not move.persistent:
            here.define(move.definition)
        here.start(name)
    except RamshelfError as second:
        raise RefusedError(
            "migration.stranded",
            f"Guest {name} has started neither on {move.there.name} nor here again: {second.sentence}",
            hint=f"Once that is put right: 'ramshelf guest start {name}' here. There it was: {error}",
            facts={"guest": name, "host": move.there.name, "there": str(error)},
        ) from error


def _take_back(there: Hypervisor, move: Move) -> None:
    """Have nothing of it there any more."""
    name = move.domain.name
    if name not in there.names() or (domain := there.find(name)).uuid != move.domain.uuid:
        return  # it has not come that far, or somebody else was quicker to define a guest of that name
    if domain.active:
        there.destroy(name)
    there.undefine(name)


def _leave(here: Hypervisor, move: Move) -> tuple[Finding, ...]:
    """Undefine it here; a note where libvirt does not, as with a guest that has snapshots."""
    if not move.persistent:
        return ()
    try:
        here.undefine(move.domain.name)
    except RamshelfError as error:
        return (
            Finding(
                code="migration.still-defined",
                severity=Severity.WARNING,
                sentence=f"Guest {move.domain.name} is still defined here, too: {error.sentence}",
                hint=f"Do not start it here: 'virsh undefine {move.domain.name}', with what that asks for.",
            ),
        )
    return ()
