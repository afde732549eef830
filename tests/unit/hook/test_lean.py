"""What the hook imports at the start of a guest costs nearly nothing, and runs on an old Python."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"

ENTRIES = ("ramshelf.hook.call", "ramshelf.hook.start")
"""What the hook imports when a guest starts; all else follows from these."""

MOST = 46
"""Modules of ramshelf's own that a start may import: each costs a fifth of a millisecond."""

HEAVY = frozenset(
    {
        "collections",
        "contextlib",
        "ctypes",
        "dataclasses",
        "enum",
        "functools",
        "json",
        "logging",
        "mmap",
    }
    | {"re", "shutil", "struct", "subprocess", "tempfile", "types", "typing", "xml"}
)
"""Modules of the standard library that cost milliseconds, by themselves or by what they import."""

FLOOR = (3, 9)
"""The oldest Python that the hook runs on."""


def imported() -> set[str]:
    """All modules that the entries import, isolated and without site-packages, as the hook runs."""
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); before = set(sys.modules)\n"
    program += "".join(f"import {name}\n" for name in ENTRIES)
    program += "print(*(set(sys.modules) - before))"
    argv = [sys.executable, "-IS", "-c", program]
    return set(
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    )


def test_a_start_imports_nothing_heavy_and_no_more_than_it_must() -> None:
    names = imported()
    assert set(ENTRIES) <= names
    assert HEAVY.isdisjoint(names)
    assert len([name for name in names if name.startswith("ramshelf")]) <= MOST


def test_it_is_written_for_the_oldest_python() -> None:
    """Its grammar; what it calls is seen where an old Python is."""
    for name in sorted(name for name in imported() if name.startswith("ramshelf.")):
        path = SOURCE.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(path.read_text(), feature_version=FLOOR)
        froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        future = any(node.module == "__future__" for node in froms)
        assert future or not froms, (
            f"{name}: annotations must not be computed: int | None is Python 3.10's"
        )


def test_os_has_all_that_it_has_elsewhere_for_those_who_ask() -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from ramshelf.hook.loading import provide
for name in [name for name in sys.modules if name == "os" or name.startswith("_collections_abc")]:
    del sys.modules[name]
provide((), {})
import os
import os.path
from os import O_CLOEXEC, stat
assert os.path.join("a", "b") == "a/b"
assert os.stat("/").st_ino == stat("/").st_ino
assert "_collections_abc" not in sys.modules
light = os
assert light.environ["PATH"].startswith("/")
assert isinstance("", str) and not isinstance("", os.PathLike)
import os
assert os is not light
assert vars(os).keys() <= vars(light).keys()
assert light.fsencode("a") == b"a"
assert not hasattr(light, "__path__")
try:
    light.no_such_thing
except AttributeError as error:
    print(error)
"""
    argv = [sys.executable, "-IS", "-c", program, str(SOURCE)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert "no_such_thing" in done.stdout
