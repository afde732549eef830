"""Help costs the processor next to nothing: what only a running command needs is not imported."""

import json
import subprocess
import sys

import pytest

from ramshelf.cli.main import _VERBS

HEAVY = frozenset({"importlib.metadata", "jsonschema", "keystoneauth1", "libvirt", "lxml"})
HEAVY |= {"oslo_config", "placement", "prometheus_client", "psutil", "subprocess", "urllib"}

MOST = 24
"""Modules of ramshelf's own that a help may import."""


def imported(*argv: str) -> set[str]:
    """Return all modules that are there after ``ramshelf ARGV``."""
    program = (
        "import sys; from ramshelf.cli.main import run; run(sys.argv[1:]); "
        "import json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True
    )
    assert ended.stdout
    return set(json.loads(ended.stderr))


@pytest.mark.parametrize("verb", ["", *_VERBS])
def test_help_imports_nothing_that_it_does_not_show(verb: str) -> None:
    names = imported(*verb.split(), "--help")
    assert HEAVY.isdisjoint(names)
    assert not [name for name in names if name.startswith(("ramshelf.node.", "ramshelf.agent."))]
    assert len([name for name in names if name.startswith("ramshelf")]) <= MOST


def test_what_is_used_is_imported() -> None:
    assert "ramshelf.core.explain" in imported("explain", "capacity.exceeded")
