"""Tests on a whole host: systemd, AppArmor, KVM, boots. They share one: it takes long to make."""

import re
from collections.abc import Iterator

import pytest

from support.real_host import CHECKOUT, RealHost, real_host


@pytest.fixture(scope="session")
def machine() -> Iterator[RealHost]:
    """One host on which ramshelf is installed as README says, with nothing made yet."""
    with real_host() as host:
        host.wait_booted()
        for line in install_lines():
            host.run(line)
        yield host


def install_lines() -> list[str]:
    """What README's section Install says, but for packages: the image has them, and no network."""
    readme = (CHECKOUT / "README.md").read_text()
    section = readme.partition("\n## Install\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^    (?!apt-get)(.+?)(?: +#.*)?$", section, re.MULTILINE)
    assert any("pip install" in line for line in lines)
    return lines
