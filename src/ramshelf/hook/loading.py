"""Where the hook has its modules from once they are compiled (hook/compiling.py).

Python's import system takes as long to find and set up forty modules as they take for all that they
decide. So those that nearly every call needs are executed one after another, and the import system
finds only the others. Of ``os`` they get what is cheap.
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec  # what importlib.machinery has, without it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, ModuleType
    from typing import Any


class Compiled:
    """A finder of modules in ``modules``: by name whether it is a package, and its code (marshal).

    ``executed`` has the names of those that were found, each after those that it imports.
    """

    def __init__(self, modules: dict[str, tuple[bool, bytes]]) -> None:
        self._modules = modules
        self.executed: list[str] = []

    def find_spec(
        self, name: str, _path: object = None, _target: object = None
    ) -> ModuleSpec | None:
        """Return how the module is made, or None where somebody else has it."""
        if name not in self._modules:
            return None
        loader: Any = self
        return ModuleSpec(name, loader, is_package=self._modules[name][0])

    def create_module(self, _spec: ModuleSpec) -> None:
        """Have the module made as usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module by its code."""
        _fill(module, marshal.loads(self._modules[module.__name__][1]))  # noqa: S302 - root's own
        self.executed.append(module.__name__)


def provide(
    first: Iterable[tuple[str, bool, CodeType]], others: dict[str, tuple[bool, bytes]]
) -> None:
    """Execute the ``first`` modules, packages before what is in them, and have all others found.

    Each of the first is its name, whether it is a package, and its code.
    """
    _provide_os()
    sys.meta_path.insert(0, Compiled(others))
    for name, is_package, code in first:
        package, _, last = name.rpartition(".")
        module = sys.modules[name] = type(sys)(name)
        if is_package:
            module.__path__ = []
        _fill(module, code)
        if package:
            setattr(sys.modules[package], last, module)


def _provide_os() -> None:
    """Provide ``os`` as far as it is the kernel's calls (posix).

    Whoever asks it for more has the rest imported. What takes the time in the real one are abstract
    classes that the hook has no use for: half a millisecond.
    """
    light = type(sys)("os")

    def rest(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        del sys.modules["os"]
        import os  # noqa: PLC0415 - the real one

        del light.__dict__["__getattr__"]
        light.__dict__.update(os.__dict__)
        return getattr(os, name)

    calls = {name: each for name, each in posix.__dict__.items() if not name.startswith("__")}
    del calls["environ"]  # in posix it is bytes
    light.__dict__.update(calls, __getattr__=rest)
    sys.modules["os"] = light
    import posixpath  # noqa: PLC0415 - it imports os

    light.__dict__["path"] = sys.modules["os.path"] = posixpath


def _fill(module: ModuleType, code: CodeType) -> None:
    module.__file__ = code.co_filename
    exec(code, module.__dict__)  # noqa: S102
