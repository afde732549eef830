"""``ramshelf guest`` as far as it needs no host."""

import subprocess
import sys

import pytest

from ramshelf.cli import main


def test_listing_guests_imports_nothing_slow() -> None:
    """It is called often, and has 0.25 s of CPU time at most."""
    program = (
        "import sys, ramshelf.cli.main, ramshelf.cli.guest, ramshelf.cli.capacity; "
        "print(*sorted({'lxml', 'oslo_config', 'rich', 'ramshelf.core.domain.backing'} & "
        "set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--offline", "--postcopy"),
        ("--offline", "--bandwidth", "5"),
        ("--timeout", "5"),
        ("--parallel", "0"),
        ("--bandwidth", "-1"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["guest", "migrate", "web1", "qemu+ssh://host2/system", *options]) == 255
    assert "[cli.usage]" in capsys.readouterr().err
