"""Texts of the program that a user reads: what they must not have in them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/ramshelf"


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that are not docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    bare = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        (r"\bdocs/[a-z-]+/", "what is installed has no docs/: name the page by what it is about"),
        (r"\b[Ee]nlarge the store", "ENLARGE of core/errors.py names the command"),
    ],
)
def test_no_text_has_this(wrong: str, because: str) -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, text in texts(path)
        if re.search(wrong, text)
    ]
    assert found == [], because
