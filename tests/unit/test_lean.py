"""What the hook imports at the start of a guest costs nearly nothing, and runs on an old Python."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

LEAN = (
    "ramshelf.core.domainxml",
    "ramshelf.core.errors",
    "ramshelf.core.fstab",
    "ramshelf.core.guest",
    "ramshelf.core.hookcall",
    "ramshelf.core.inifile",
    "ramshelf.core.kind",
    "ramshelf.core.mounts",
    "ramshelf.core.pinning",
    "ramshelf.core.qemuconf",
    "ramshelf.core.record",
    "ramshelf.core.requirements",
    "ramshelf.core.setting",
    "ramshelf.core.store",
    "ramshelf.core.units",
    "ramshelf.system.configfiles",
)
"""Modules that the hook imports at ``start begin``."""

HEAVY = frozenset(
    {"collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "json", "logging", "mmap"}
    | {"re", "shutil", "struct", "subprocess", "tempfile", "types", "typing", "xml"}
)
"""Modules of the standard library that cost milliseconds, by themselves or by what they import."""

FLOOR = (3, 9)
"""The oldest Python that the hook runs on."""


def test_importing_them_imports_nothing_heavy() -> None:
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); before = set(sys.modules)\n"
    program += "".join(f"import {name}\n" for name in LEAN)
    program += "print(*(set(sys.modules) - before))"
    # Isolated and without site-packages, as the hook runs.
    argv = [sys.executable, "-IS", "-c", program]
    imported = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert set(LEAN) <= set(imported)
    assert HEAVY.isdisjoint(imported)


@pytest.mark.parametrize("name", LEAN)
def test_it_is_written_for_the_oldest_python(name: str) -> None:
    """Its grammar; what it calls is seen where an old Python is."""
    tree = ast.parse(SOURCE.joinpath(*name.split(".")).with_suffix(".py").read_text(), feature_version=FLOOR)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert imports, "annotations must not be computed: int | None is Python 3.10's"
