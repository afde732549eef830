"""Where the script in libvirt's hook directory enters: ``python -IS .../hook/__main__.py FILE... -- ARG...``.

Isolated from the environment and without site-packages, so that nothing on the host changes what it does;
it finds its own package by its place. Whatever goes wrong ends with status 70: Python's own 1 would be taken
for something that was decided.
"""

from __future__ import annotations

import gc
import os
import sys


def _run() -> int:
    os.umask(0o022)  # libvirt's may be any
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from ramshelf.hook.call import main  # noqa: PLC0415 - found by the line above

    return main(sys.argv[1:], sys.stdin.buffer.read)


if __name__ == "__main__":
    gc.disable()  # it ends within milliseconds
    try:
        status = _run()
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - the script decides what a broken hook means
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - the script logs it
        status = 70
    os._exit(status)  # what the interpreter tidies up at its end takes 2 ms, and the kernel does the same
