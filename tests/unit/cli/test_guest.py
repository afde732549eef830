"""``ramshelf guest`` as far as it needs no host."""

import pytest

from ramshelf.cli import main


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
