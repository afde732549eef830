"""The copied modules, compiled into one file at installation.

``python -IS .../hook/compiling.py`` does it. To find, open and check forty files takes longer than
all that they do at the start of a guest. The Python that will run them compiles them, since another
one's code is of no use; ``__main__`` reads the file, and core/hook/copy.py says what it looks like.
"""

from __future__ import annotations

import ast
import hashlib
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _main() -> None:
    path = os.path.join(_ROOT, f"modules.{sys.implementation.cache_tag}")
    modules = dict(_modules())
    order = _order(modules)
    loading = _code(modules, "ramshelf.hook.loading")
    first = tuple((name, modules[name][0], _code(modules, name)) for name in order)
    others = {name: module for name, module in modules.items() if name not in order}
    content = MAGIC_NUMBER + marshal.dumps((loading, first, others))
    with open(f"{path}.new", "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(hashlib.sha256(content).digest() + content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    directory = os.open(_ROOT, os.O_RDONLY)
    os.fsync(directory)


def _modules() -> Iterator[tuple[str, tuple[bool, bytes]]]:
    """Yield each module's name, whether it is a package, and its code, marshalled by itself.

    They come in the order of their names, so that the same modules make the same file wherever they
    lie.
    """
    for parent, directories, names in os.walk(os.path.join(_ROOT, "ramshelf")):
        directories.sort()
        package = os.path.relpath(parent, _ROOT).replace(os.sep, ".")
        for name in sorted(names):
            module, _, suffix = name.partition(".")
            if suffix != "py":
                continue
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                text = _Bare().visit(ast.parse(file.read()))
            code = compile(
                text, path, "exec", flags=annotations.compiler_flag, dont_inherit=True, optimize=2
            )
            is_package = module == "__init__"
            content = marshal.dumps(_without_lines(code))
            yield package if is_package else f"{package}.{module}", (is_package, content)


class _Bare(ast.NodeTransformer):
    """A transformer that takes away what only readers and type checkers need.

    That is a fifth of what it takes to load the modules.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.module == "__future__" else node


def _without_lines(code: CodeType) -> CodeType:
    """Return the code without the numbers of its lines.

    No traceback of the hook's is ever shown.
    """
    inner = [
        _without_lines(each) if isinstance(each, type(code)) else each for each in code.co_consts
    ]
    if sys.version_info < (3, 10):  # noqa: UP036 - hooks run on 3.9
        return code.replace(co_consts=tuple(inner), co_lnotab=b"")
    return code.replace(co_consts=tuple(inner), co_linetable=b"")


def _code(modules: dict[str, tuple[bool, bytes]], name: str) -> CodeType:
    code: CodeType = marshal.loads(modules[name][1])  # noqa: S302 - just made
    return code


def _order(modules: dict[str, tuple[bool, bytes]]) -> tuple[str, ...]:
    """Return what the start of a guest needs, each module after those that it imports.

    Packages come first.
    """
    sys.dont_write_bytecode = True
    sys.path.append(_ROOT)
    from ramshelf.hook.loading import Compiled  # noqa: PLC0415 - found by the line above

    finder = Compiled(modules)
    sys.meta_path.insert(0, finder)
    import ramshelf.core.errors  # noqa: PLC0415 - by the finder, as those below
    import ramshelf.hook.call  # noqa: PLC0415
    import ramshelf.hook.start  # noqa: F401, PLC0415

    packages = sorted(name for name, (is_package, _) in modules.items() if is_package)
    return (*packages, *(name for name in finder.executed if name not in packages))


if __name__ == "__main__":
    _main()
