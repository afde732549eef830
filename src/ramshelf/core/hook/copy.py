"""The copy of ramshelf's modules that libvirt's hook runs.

It lies apart from the installation that made it. libvirtd's AppArmor profile lets hooks execute the
distribution's own Python, and no other: a virtual environment's is denied with status 126. What
that Python reads is not confined. So the hook needs modules that outlive the virtual environment,
and nothing else of it.
"""

import hashlib
import re
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

_IMPORT = re.compile(
    r"^[ \t]*(?:from +(?P<dots>\.*)(?P<base>[\w.]*) +import +(?P<names>\([^)]*\)|.+)"
    r"|import +(?P<modules>.+))$",
    re.MULTILINE,
)
"""A statement that imports.

To parse the modules would take ten times as long, and whoever looks at the hook does this. A line
of a docstring that reads like one adds at most a file that is not needed.
"""


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
    for found in _IMPORT.finditer(modules[name]):
        if found["modules"]:
            for each in re.findall(r"[\w.]+", found["modules"]):
                yield from _files(each.split("."), modules)
            continue
        level = len(found["dots"])
        base = package[: len(package) - level + 1] if level else []
        parts = [*base, *(found["base"].split(".") if found["base"] else [])]
        yield from _files(parts, modules)
        for each in re.findall(r"\w+", found["names"]):  # `from package import module`
            yield from _files([*parts, each], modules)


def _files(parts: list[str], modules: Mapping[str, str]) -> Iterator[str]:
    """Yield the file of a module, and those of its packages; none for what is not ramshelf's."""
    if f"{parts[0]}/__init__.py" not in modules:
        return
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        yield from (name for name in (f"{path}.py", f"{path}/__init__.py") if name in modules)
