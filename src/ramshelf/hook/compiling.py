"""The copied modules, compiled into one file: ``python -IS .../hook/compiling.py``, at installation.

To find, open and check forty files takes longer than all that they do at the start of a guest. The Python
that will run them compiles them, since another one's code is of no use; ``__main__`` reads the file, and
core/hookcopy.py says what it looks like.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def _main() -> None:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(root, f"modules.{sys.implementation.cache_tag}")
    content = MAGIC_NUMBER + marshal.dumps(dict(_modules(root)))
    with open(f"{path}.new", "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(hashlib.sha256(content).digest() + content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    directory = os.open(root, os.O_RDONLY)
    os.fsync(directory)


def _modules(root: str) -> Iterator[tuple[str, tuple[bool, bytes]]]:
    """Each module's code, marshalled by itself, by its name; and whether it is a package."""
    for parent, _, names in os.walk(os.path.join(root, "ramshelf")):
        package = os.path.relpath(parent, root).replace(os.sep, ".")
        for name in names:
            module, _, suffix = name.partition(".")
            if suffix != "py":
                continue
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec", dont_inherit=True, optimize=2)
            is_package = module == "__init__"
            yield package if is_package else f"{package}.{module}", (is_package, marshal.dumps(code))


if __name__ == "__main__":
    _main()
