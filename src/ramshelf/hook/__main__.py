"""Where the script in libvirt's hook directory enters: ``python -IS .../hook/__main__.py FILE... -- ARG...``.

Isolated from the environment and without site-packages, so that nothing on the host changes what it does;
it finds its own package by its place. Whatever goes wrong ends with status 70: Python's own 1 would be taken
for something that was decided.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # what importlib.machinery and importlib.util have, without them
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class _Compiled:
    """Finds modules in the file that hook/compiling.py has made."""

    def __init__(self, modules: dict[str, tuple[bool, bytes]]) -> None:
        self._modules = modules

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name not in self._modules:
            return None
        loader: Any = self
        return ModuleSpec(name, loader, is_package=self._modules[name][0])

    def create_module(self, _spec: ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        code = marshal.loads(self._modules[module.__name__][1])  # noqa: S302 - root's own, as the texts are
        module.__file__ = code.co_filename
        exec(code, module.__dict__)  # noqa: S102


def _compiled(path: str) -> dict[str, tuple[bool, bytes]] | None:
    """The modules that were compiled for this Python; a digest comes first, for those who have the time."""
    try:
        with open(path, "rb") as file:
            content = memoryview(file.read())[32:]
    except FileNotFoundError:
        return None
    if content[: len(MAGIC_NUMBER)] != MAGIC_NUMBER:
        return None
    return marshal.loads(content[len(MAGIC_NUMBER) :])  # type: ignore[no-any-return]  # noqa: S302


def _run() -> int:
    os.umask(0o022)  # libvirt's may be any
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    modules = _compiled(f"{place}/modules.{sys.implementation.cache_tag}")
    if modules is not None:
        sys.meta_path.insert(0, _Compiled(modules))
    else:  # as after an upgrade to another Python: the texts are there
        sys.path.append(place)
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
