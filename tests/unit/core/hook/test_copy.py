"""Which modules the hook's copy has: what is imported, and nothing else."""

import ast
from pathlib import Path

import pytest

import ramshelf
from ramshelf.core.hook.call import AFTERCARE
from ramshelf.core.hook.copy import DIRECTORY, FLOOR, MAIN, Copy, make_copy, needed
from ramshelf.node.hook.manage import wanted_hook

FILES = wanted_hook().copy.files

MODULES = {
    "ramshelf/__init__.py": "",
    MAIN: "import sys\ndef f():\n    from ramshelf.hook.call import main\n",
    "ramshelf/hook/__init__.py": "",
    "ramshelf/hook/carer.py": "",
    "ramshelf/hook/compiling.py": "",
    "ramshelf/hook/call.py": (
        "from ..core import units\nfrom ramshelf.core.a.b import c\nimport ramshelf.system.x\n"
    ),
    "ramshelf/core/__init__.py": "from .early import *\n",
    "ramshelf/core/units.py": "import re\n",
    "ramshelf/core/early.py": "",
    "ramshelf/core/a/__init__.py": "",
    "ramshelf/core/a/b.py": "from .b2 import x\n",
    "ramshelf/core/a/b2.py": "from . import b\n",
    "ramshelf/system/x.py": "",
    "ramshelf/core/unneeded.py": "import ramshelf.core.units\n",
}


def test_needed_is_what_is_imported_anywhere() -> None:
    assert needed(MODULES) == set(MODULES) - {"ramshelf/core/unneeded.py"}


def test_the_place_tells_what_is_in_it() -> None:
    copy = make_copy("/site", MODULES, "/opt/python")
    assert copy.files[AFTERCARE] == "/opt/python\n"
    assert copy.path.startswith(f"{DIRECTORY}/")
    assert copy.main == f"{copy.path}/{MAIN}"
    assert copy.compiled((3, 11, 2)) == f"{copy.path}/modules.cpython-311"
    assert make_copy("/elsewhere", MODULES, "/opt/python").path == copy.path
    assert make_copy("/site", MODULES, "/other/python").path != copy.path
    moved = Copy(source="/site", files={"a": "bc"})
    assert moved.path != Copy(source="/site", files={"ab": "c"}).path


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".py")))
def test_whatever_a_copied_module_imports_is_copied(name: str) -> None:
    """What is needed is read from lines of text; here the module is parsed."""
    package = name.split("/")[:-1]
    modules = {path.removesuffix(".py").replace("/", ".") for path in _all_modules()}
    imported: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name])):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imported |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    copied = {path.removesuffix(".py").replace("/", ".") for path in FILES}
    assert imported & modules <= copied


def _all_modules() -> list[str]:
    source = Path(ramshelf.__file__).parents[1]
    return [str(path.relative_to(source)) for path in source.rglob("ramshelf/**/*.py")]


def test_this_ramshelf_copies_the_hook_and_not_the_rest() -> None:
    files = FILES
    assert {
        MAIN,
        "ramshelf/hook/call.py",
        "ramshelf/hook/carer.py",
        "ramshelf/system/hooklog.py",
        AFTERCARE,
    } <= set(files)
    layers = {Path(name).parts[1] for name in files if name.startswith("ramshelf/")}
    assert layers == {"__init__.py", "core", "system", "hook"}
    assert "ramshelf/system/hypervisor.py" not in files
    assert "ramshelf/core/store/plan.py" not in files


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".py")))
def test_the_copied_modules_are_understood_by_the_oldest_python_that_will_do(name: str) -> None:
    """This is tested as far as the text tells.

    It looks at syntax, and at unions of types that are made when the module is imported.
    """
    tree = ast.parse(FILES[name], feature_version=FLOOR[:2])
    annotated = any(
        isinstance(node, ast.AnnAssign)
        or (isinstance(node, ast.FunctionDef) and node.returns is not None)
        for node in ast.walk(tree)
    )
    assert "from __future__ import annotations\n" in FILES[name] or not annotated
    real = any(
        isinstance(node, ast.ImportFrom) and node.module == "dataclasses" for node in tree.body
    )
    assert not (real and "kw_only" in FILES[name])
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            unions = call.func.id == "isinstance" and isinstance(call.args[1], ast.BinOp)
            assert not unions
            assert call.func.id != "zip" or not call.keywords
