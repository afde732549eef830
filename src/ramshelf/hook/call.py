"""One call by libvirt: what it is about, and what is answered."""

import os
import sys
from collections.abc import Callable, Sequence

from ramshelf.core.hookcall import PASSED, PROBE, VETOED


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
    if (operation, suboperation) == ("prepare", "begin"):
        return _probe(guest)
    if (operation, suboperation) == ("release", "end"):
        from ramshelf.hook.figures import ended  # noqa: PLC0415 - most calls do not come here

        ended(guest)
        return PASSED
    if suboperation != "begin" or operation not in {"start", "started"}:
        return PASSED
    return _start(files, read(), started=operation == "started", step=step)


def _probe(guest: str) -> int:
    if not guest.startswith(PROBE):
        return PASSED
    print(f"ramshelf: the hook answers {guest}.", file=sys.stderr)  # noqa: T201 - what libvirt's user sees
    return VETOED


def _start(files: Sequence[str], xml: bytes, *, started: bool, step: Callable[[str], None]) -> int:
    from ramshelf.core.errors import InputError, RamshelfError  # noqa: PLC0415 - most calls end before this
    from ramshelf.hook.starting import reserve, verify_started  # noqa: PLC0415
    from ramshelf.system.hooklog import record  # noqa: PLC0415

    try:
        (verify_started if started else reserve)(files, xml, step)
    except InputError:
        raise  # libvirt's own XML: it is ramshelf that does not understand
    except RamshelfError as error:
        record("refused", code=error.code, reason=error.sentence, started=started, **error.facts)
        print(f"ramshelf: {error.sentence} [{error.code}]", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return VETOED
    return PASSED
