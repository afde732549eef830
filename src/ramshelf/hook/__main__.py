"""Where the script in libvirt's hook directory enters.

The call is ``python -IS .../hook/__main__.py FILE... -- ARG...``. It is isolated from the
environment and without site-packages, so that nothing on the host changes what it does; it finds
its own package by its place. Whatever goes wrong ends with status 70, since Python's own 1 would be
taken for something that was decided. Python compiles this file at each call, so it is short.
"""

from __future__ import annotations

import gc
import marshal
import posix  # what os is made of: hook/loading.py
import sys
from _frozen_importlib_external import MAGIC_NUMBER  # what importlib.util has, without it


def _find_modules() -> None:
    """Find the modules in the file that hook/compiling.py has made for this Python.

    Where there is none, as after an upgrade of Python, the texts are used.
    """
    place = __file__[: -len("/ramshelf/hook/__main__.py")]
    try:
        with open(f"{place}/modules.{sys.implementation.cache_tag}", "rb") as file:
            # A digest comes first, for those who have the time.
            content = memoryview(file.read())[32:]
    except FileNotFoundError:
        content = memoryview(b"")
    if content[: len(MAGIC_NUMBER)] != MAGIC_NUMBER:
        sys.path.append(place)
        return
    code, first, others = marshal.loads(content[len(MAGIC_NUMBER) :])  # noqa: S302 - root's own
    loading: dict[str, object] = {}
    exec(code, loading)  # noqa: S102
    loading["provide"](first, others)  # type: ignore[operator]


if __name__ == "__main__":
    gc.disable()  # it ends within milliseconds
    try:
        posix.umask(0o022)  # libvirt's may be any
        _find_modules()
        from ramshelf.hook.call import main

        status = main(sys.argv[1:], sys.stdin.buffer.read)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - the script decides what a broken hook means
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - it is logged
        status = 70
    posix._exit(status)  # noqa: SLF001 - to tidy up takes 2 ms, and the kernel does the same
