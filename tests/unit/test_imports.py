"""The house's layers: cli, agent -> node -> system -> core; hook -> system -> core; never back."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted((SOURCE / "ramshelf").rglob("*.py"))

MAY_IMPORT = {
    "core": {"core"},
    "system": {"core", "system"},
    "node": {"core", "system", "node"},
    "hook": {"core", "system", "hook"},
    "agent": {"core", "system", "node", "agent"},
    "cli": {"core", "system", "node", "agent", "cli"},
}

# Pure functions reach neither the machine nor the clock; paths are text to them.
NOT_IN_CORE = {
    "ctypes",
    "datetime",
    "fcntl",
    "glob",
    "logging",
    "os",
    "random",
    "select",
    "shutil",
    "socket",
}
NOT_IN_CORE |= {"subprocess", "tempfile", "threading", "time"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_inward(path: Path) -> None:
    layer = _layer(_name(path))
    if layer is None:  # ramshelf itself and its __main__
        return
    assert layer in MAY_IMPORT, f"{layer} is not a layer of the design"
    layers = {_layer(name) for name in _imported(path) if name.startswith("ramshelf.")}
    assert layers - {None} <= MAY_IMPORT[layer]


@pytest.mark.parametrize("layer", ["core", "node"])
def test_the_rooms_of_a_layer_form_no_circle(layer: str) -> None:
    """A room is a package directly below the layer, or a module that stands alone there."""
    needs: dict[str, set[str]] = {}
    for path in MODULES:
        room = _room(_name(path), layer)
        if room:
            found = {_room(name, layer) for name in _imported(path)} - {room, ""}
            needs.setdefault(room, set()).update(found)
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    "path", sorted((SOURCE / "ramshelf/core").rglob("*.py")), ids=lambda path: path.stem
)
def test_core_is_pure(path: Path) -> None:
    outside = {name.partition(".")[0] for name in _imported(path)}
    assert not outside & NOT_IN_CORE
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "exec", "eval"}


def test_hook_needs_the_standard_library_only() -> None:
    """All that the hook's modules import, also in functions, imports without site-packages."""
    hook = [_name(path) for path in MODULES if _layer(_name(path)) == "hook"]
    needed = sorted(_closure(hook))
    foreign = {
        name
        for module in needed
        for name in _imported(_path(module))
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "ramshelf"}
    }
    assert foreign == set()
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n" + "".join(
        f"import {name}\n" for name in needed if not name.endswith("__main__")
    )
    subprocess.run([sys.executable, "-IS", "-c", program], check=True, timeout=30)


NOVA = SOURCE.parent / "nova"
COPIED = tomllib.loads((NOVA / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["force-include"]
"""What ramshelf-nova's wheel has of ramshelf, as paths from nova/ and the paths in the wheel."""


@pytest.mark.parametrize("source", COPIED)
def test_what_ramshelf_nova_copies_stands_by_itself(source: str) -> None:
    """Only the standard library, and one another by names that hold in the copy too."""
    path = (NOVA / source).resolve()
    assert COPIED[source] == f"ramshelf_nova/{path.relative_to(SOURCE / 'ramshelf')}"
    copied = {_name((NOVA / each).resolve()) for each in COPIED}
    names = set(_imported(path))
    assert {
        name for name in names if name.partition(".")[0] not in sys.stdlib_module_names
    } <= copied
    assert "ramshelf" not in {
        (node.module or "").partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level
    }


@pytest.mark.parametrize("path", sorted((NOVA / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_ramshelf_nova_needs_nothing_of_ramshelf_but_the_copies(path: Path) -> None:
    imports = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
    ]
    froms = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
    ]
    names = {alias.name for node in imports for alias in node.names} | {
        str(node.module) for node in froms
    }
    assert "ramshelf" not in {name.partition(".")[0] for name in names}
    there = {target.removesuffix(".py").replace("/", ".") for target in COPIED.values()}
    assert {name for name in names if name.startswith("ramshelf_nova.core.")} <= there


def _closure(names: list[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other in _imported(_path(name)) if other.startswith("ramshelf")]
    return found


def _imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name(
                "." * node.level + (node.module or ""), _package(path)
            )
            yield name
            if name.startswith("ramshelf"):  # `from package import module`
                yield from (full for alias in node.names if _exists(full := f"{name}.{alias.name}"))


def _room(name: str, layer: str) -> str:
    """The room that a module belongs to, "" where it is in no room of the layer."""
    parts = name.split(".")
    return parts[2] if parts[:2] == ["ramshelf", layer] and len(parts) > 2 else ""


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).parent.parts)


def _path(name: str) -> Path:
    package = SOURCE.joinpath(*name.split("."))
    return package / "__init__.py" if package.is_dir() else package.with_suffix(".py")


def _exists(name: str) -> bool:
    return _path(name).is_file()


def _layer(name: str) -> str | None:
    """The layer of a module ``ramshelf.LAYER...``; None for a module that belongs to none.

    Such are ramshelf itself and its __main__.
    """
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (SOURCE / "ramshelf" / parts[1]).is_dir() else None
