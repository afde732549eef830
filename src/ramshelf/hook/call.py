"""One call by libvirt: what it is about, and what is answered."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from ramshelf.core.hookcall import COMING_PROBE, HOST_PROBE, PASSED, PROBE, VETOED, first_line


def main(
    argv: Sequence[str], read: Callable[[], bytes], step: Callable[[str], None] = lambda _name: None
) -> int:
    """Answer ``FILE... -- GUEST OPERATION SUBOPERATION EXTRA``; FILEs are the configuration.

    ``step`` is told the name of each thing that has been done, for tests that stop there. Raises whatever
    is not a decision: the hook is broken then.
    """
    separator = argv.index("--")
    files, (guest, operation, suboperation, *_) = argv[:separator], argv[separator + 1 :]
    if os.geteuid() != 0:  # a user's own libvirt (qemu:///session) calls the same hooks; it has no store
        return PASSED
    match operation, suboperation:
        case (("start" | "started"), "begin"):
            return _start(files, _told(read()), started=operation == "started", step=step)
        case "prepare", "begin" if guest.startswith(PROBE):
            return _probe(files, guest)
        case "migrate", "begin":
            return _arrive(files, _told(read()))
        case "release", "end":
            _ended(guest)
    return PASSED


def _told(xml: bytes) -> bytes:
    """Tell the script what it needs to know if this process does not end well, before anything else."""
    os.write(1, first_line(xml))
    return xml


def _probe(files: Sequence[str], guest: str) -> int:
    """Refuse what is no guest, with what was asked."""
    print(f"ramshelf: the hook answers {guest}.", file=sys.stderr)  # noqa: T201 - what libvirt's user sees
    if guest.startswith(HOST_PROBE):
        _tell_of_host(files)
    elif guest.startswith(COMING_PROBE):
        from ramshelf.system.claims import expect  # noqa: PLC0415

        expect(guest.removeprefix(COMING_PROBE))
    return VETOED


def _tell_of_host(files: Sequence[str]) -> None:
    from ramshelf.core.errors import RamshelfError  # noqa: PLC0415 - hardly ever asked
    from ramshelf.hook.thishost import answer  # noqa: PLC0415

    try:
        said = answer(files).line()
    except (RamshelfError, OSError) as error:
        said = f"It cannot say what this host is: {error}"
    print(said, file=sys.stderr)  # noqa: T201


def _ended(guest: str) -> None:
    if guest.startswith(PROBE):  # libvirt has made a log for it, that others than this host cannot remove
        with suppress(OSError):
            os.unlink(f"/var/log/libvirt/qemu/{guest}.log")
        return
    from ramshelf.hook.figures import ended  # noqa: PLC0415 - most calls do not come here

    ended(guest)


def _start(files: Sequence[str], xml: bytes, *, started: bool, step: Callable[[str], None]) -> int:
    from ramshelf.hook.starting import reserve, verify_started  # noqa: PLC0415 - most calls end before this

    return _decide(lambda: (verify_started if started else reserve)(files, xml, step), started=started)


def _arrive(files: Sequence[str], xml: bytes) -> int:
    from ramshelf.hook.incoming import apply_policy  # noqa: PLC0415 - most calls do not come here

    return _decide(lambda: apply_policy(files, xml), started=False)


def _decide(decide: Callable[[], None], *, started: bool) -> int:
    """Refuse what is refused, with the reason for libvirt's user and on record."""
    from ramshelf.core.errors import InputError, RamshelfError  # noqa: PLC0415 - most calls end before this
    from ramshelf.system.hooklog import record  # noqa: PLC0415

    try:
        decide()
    except InputError:
        raise  # libvirt's own XML: it is ramshelf that does not understand
    except RamshelfError as error:
        record("refused", code=error.code, reason=error.sentence, started=started, **error.facts)
        print(f"ramshelf: {error.sentence} [{error.code}]", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return VETOED
    return PASSED
