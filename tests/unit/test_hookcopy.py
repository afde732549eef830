"""Which modules the hook's copy has: what is imported, and nothing else."""

from pathlib import Path

from ramshelf.core.hookcall import AFTERCARE
from ramshelf.core.hookcopy import DIRECTORY, MAIN, Copy, make_copy, needed
from ramshelf.node.hook import wanted_hook

MODULES = {
    "ramshelf/__init__.py": "",
    MAIN: "import sys\ndef f():\n    from ramshelf.hook.call import main\n",
    "ramshelf/hook/__init__.py": "",
    "ramshelf/hook/call.py": "from ..core import units\nfrom ramshelf.core.a.b import c\n"
    "import ramshelf.system.x\n",
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
    assert make_copy("/elsewhere", MODULES, "/opt/python").path == copy.path
    assert make_copy("/site", MODULES, "/other/python").path != copy.path
    moved = Copy(source="/site", files={"a": "bc"})
    assert moved.path != Copy(source="/site", files={"ab": "c"}).path


def test_this_ramshelf_copies_the_hook_and_not_the_rest() -> None:
    files = wanted_hook().copy.files
    assert {MAIN, "ramshelf/hook/call.py", "ramshelf/system/hooklog.py", AFTERCARE} <= set(files)
    layers = {Path(name).parts[1] for name in files if name.startswith("ramshelf/")}
    assert layers == {"__init__.py", "core", "system", "hook"}
    assert "ramshelf/system/hypervisor.py" not in files
    assert "ramshelf/core/storeplan.py" not in files
