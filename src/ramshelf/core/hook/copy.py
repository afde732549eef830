"""The copy of ramshelf's modules that libvirt's hook runs.

It lies apart from the installation that made it. libvirtd's AppArmor profile lets hooks execute the
distribution's own Python, and no other: a virtual environment's is denied with status 126. What
that Python reads is not confined. So the hook needs modules that outlive the virtual environment,
and nothing else of it.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ramshelf.core.hook.call import AFTERCARE

PYTHON = "/usr/bin/python3"
FLOOR = (3, 9, 0)
"""The oldest Python that the copied modules run on."""

DIRECTORY = "/usr/local/lib/ramshelf/hook"
"""The directory below which each copy has a directory of its own.

That is named by what is in it, so a copy that is in use never changes.
"""

MAIN = "ramshelf/hook/__main__.py"
_CARER = "ramshelf/hook/carer.py"
_COMPILING = "ramshelf/hook/compiling.py"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The files of a copy.

    ``files`` are texts by their paths in the copy; ``source`` is the directory that they come from.
    """

    source: str
    files: Mapping[str, str] = field(repr=False)

    @property
    def path(self) -> str:
        """The directory where the copy belongs."""
        digest = hashlib.sha256()
        for name, text in sorted(self.files.items()):
            digest.update(f"{name}\0{len(text)}\0{text}".encode(errors="surrogateescape"))
        return f"{DIRECTORY}/{digest.hexdigest()[:16]}"

    @property
    def main(self) -> str:
        """The file that the hook's script has Python run."""
        return f"{self.path}/{MAIN}"

    @property
    def compiling(self) -> str:
        """The file that Python is to run once, when all files are there: it makes ``compiled``."""
        return f"{self.path}/{_COMPILING}"

    @staticmethod
    def is_whole(compiled: bytes) -> bool:
        """Tell whether the file of compiled modules is as it was made.

        It consists of the SHA-256 of the rest, CPython's magic number, and the modules by name
        (marshal).
        """
        return hashlib.sha256(compiled[32:]).digest() == compiled[:32]

    def compiled(self, python: tuple[int, ...]) -> str:
        """Return the path of the file with all modules, compiled by this version of CPython.

        Its name is by sys.implementation.cache_tag.
        """
        return f"{self.path}/modules.cpython-{python[0]}{python[1]}"


def make_copy(source: str, modules: Mapping[str, str], interpreter: str) -> Copy:
    """Make the copy of what the hook needs of ``modules``.

    These are texts by path, such as ``ramshelf/core/units.py``.
    """
    files = {name: modules[name] for name in needed(modules)}
    return Copy(source=source, files={**files, AFTERCARE: f"{interpreter}\n"})


def needed(modules: Mapping[str, str]) -> frozenset[str]:
    """Return what is run and what that imports, with its packages.

    It may be imported directly or not, and also inside functions.
    """
    found: set[str] = set()
    waiting = [MAIN, _CARER, _COMPILING]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(name, modules)
    return frozenset(found)


def _imported(name: str, modules: Mapping[str, str]) -> Iterator[str]:
    package = name.split("/")[:-1]
    for node in ast.walk(ast.parse(modules[name])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name.split("."), modules)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module.split(".") if node.module else [])]
            yield from _files(parts, modules)
            for alias in node.names:  # `from package import module`
                yield from _files([*parts, alias.name], modules)


def _files(parts: list[str], modules: Mapping[str, str]) -> Iterator[str]:
    """Yield the file of a module, and those of its packages; none for what is not ramshelf's."""
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        yield from (name for name in (f"{path}.py", f"{path}/__init__.py") if name in modules)
