"""One call by libvirt: what it is about, and what is answered."""

from __future__ import annotations

import os
import sys

from ramshelf.core.hook.call import (
    COMING_PROBE,
    HOST_PROBE,
    MIGRATE,
    PASSED,
    PREPARE,
    PROBE,
    START,
    STARTED,
    VETOED,
    concerned,
    first_line,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
else:
    import _signal as signal  # the same functions without enumerations, whose import takes 4 ms

TIME = 20
"""Seconds for a decision.

libvirt waits for its hooks without end, and holds the guest meanwhile.
"""


def main(
    argv: Sequence[str], read: Callable[[], bytes], step: Callable[[str], None] = lambda _name: None
) -> int:
    """Answer ``FILE... -- GUEST OPERATION SUBOPERATION EXTRA``; FILEs are the configuration.

    ``step`` is told the name of each thing that has been done, for tests that stop there.
    """
    separator = argv.index("--")
    files, (guest, operation, suboperation, *_) = argv[:separator], argv[separator + 1 :]
    # A user's own libvirt (qemu:///session) calls the same hooks; it has no store.
    if os.geteuid() != 0:
        return PASSED
    call = f"{operation} {suboperation}"
    if call == START:
        return _start(files, guest, _told(read()), step)
    if call == STARTED:
        return _started(files, guest, step)
    if call == MIGRATE:
        return _arrive(files, guest, _told(read()))
    if call == PREPARE and guest.startswith(PROBE):
        return _probe(files, guest)
    return PASSED


def _told(xml: bytes) -> bytes:
    """Tell the script, before all else, what it needs if this process does not end well.

    Return the XML.
    """
    os.write(1, first_line(xml))
    return xml


def _start(files: Sequence[str], guest: str, xml: bytes, step: Callable[[str], None]) -> int:
    def decide() -> None:
        from ramshelf.hook.start import reserve  # noqa: PLC0415 - most calls end before this

        reserve(files, guest, xml, step)

    return _decided(decide, guest, "start", xml)


def _started(files: Sequence[str], guest: str, step: Callable[[str], None]) -> int:
    def decide() -> None:
        from ramshelf.hook.start import verify_started  # noqa: PLC0415 - most calls end before this

        verify_started(files, guest, step)

    return _decided(decide, guest, "started", b"")


def _arrive(files: Sequence[str], guest: str, xml: bytes) -> int:
    def decide() -> None:
        from ramshelf.hook.arrival import (  # noqa: PLC0415 - most calls do not come here
            apply_policy,
        )

        apply_policy(files, guest, xml)

    return _decided(decide, guest, "migrate", xml)


class _TimeOutError(Exception):
    """A decision takes too long."""


def _decided(decide: Callable[[], None], guest: str, operation: str, xml: bytes) -> int:
    """Refuse what is refused, and what cannot be decided where it may concern the store or RAM.

    Nothing that goes wrong here, nor time that runs out, lets such a guest pass, and nothing holds
    up others.
    """
    from ramshelf.core.errors import (  # noqa: PLC0415 - most calls end before this
        InputError,
        RamshelfError,
    )

    try:
        _within_time(decide)
    except InputError as error:
        return _undecided(guest, operation, xml, error.sentence, error.code)
    except RamshelfError as error:
        if (
            operation != "started"
            and not concerned(xml)
            and not error.code.startswith("migration.")
        ):
            return _undecided(guest, operation, xml, error.sentence, error.code)
        from ramshelf.system.hooklog import record  # noqa: PLC0415

        facts = {"guest": guest, **error.facts}
        record(
            "refused",
            code=error.code,
            reason=error.sentence,
            started=operation == "started",
            **facts,
        )
        _say(error.sentence, error.code, error.hint)
        return VETOED
    except _TimeOutError:
        return _undecided(
            guest, operation, xml, f"there was no decision after {TIME} s", "hook.time-out"
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, no guest passes because of it
        return _undecided(guest, operation, xml, f"{type(error).__name__}: {error}", "hook.broken")
    return PASSED


def _within_time(decide: Callable[[], None]) -> None:
    def ring(_number: int, _frame: object) -> None:
        raise _TimeOutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(TIME)
    try:
        decide()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _undecided(guest: str, operation: str, xml: bytes, reason: str, code: str) -> int:
    """Refuse what cannot be decided where the text of the XML may concern the store or RAM.

    A guest that runs is never refused.
    """
    from ramshelf.system.hooklog import record  # noqa: PLC0415

    vetoed = operation != "started" and concerned(xml)
    record("undecided", guest=guest, operation=operation, code=code, reason=reason, vetoed=vetoed)
    if vetoed:
        _say(
            f"Guest {guest} is refused, since what it needs could not be decided: "
            f"{reason.rstrip('.')}.",
            code,
            "Its memory is in files or pinned. 'ramshelf hook status' looks at the hook; in an "
            "emergency 'ramshelf hook bypass --for 30min' lets guests pass.",
        )
    return VETOED if vetoed else PASSED


def _say(sentence: str, code: str, hint: str) -> None:
    print(f"ramshelf: {sentence} [{code}]", file=sys.stderr)  # noqa: T201 - users see it
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201


def _probe(files: Sequence[str], guest: str) -> int:
    """Refuse a probe, which is no guest, and answer what was asked."""
    print(f"ramshelf: the hook answers {guest}.", file=sys.stderr)  # noqa: T201 - users see it
    if guest.startswith(HOST_PROBE):
        _tell_of_host(files)
    elif guest.startswith(COMING_PROBE):
        from ramshelf.system.claims import expect  # noqa: PLC0415

        expect(guest[len(COMING_PROBE) :])
    return VETOED


def _tell_of_host(files: Sequence[str]) -> None:
    from ramshelf.core.errors import RamshelfError  # noqa: PLC0415 - hardly ever asked
    from ramshelf.hook.answer import answer  # noqa: PLC0415

    try:
        said = answer(files).line()
    except (RamshelfError, OSError) as error:
        said = f"It cannot say what this host is: {error}"
    print(said, file=sys.stderr)  # noqa: T201
