"""Version 0.1.0 on a whole host, as its README has it installed."""

import subprocess
from pathlib import Path

from support.real_host import CHECKOUT, RealHost, install_lines

_LAST_COMMIT = "e9d93f9"
_FILES = ("src", "pyproject.toml", "README.md", "LICENSE")


def install_0_1_0(host: RealHost, directory: Path) -> None:
    """Have the host run 0.1.0 in place of what it has; the source is laid down in ``directory``."""
    archive = subprocess.run(
        ("git", "archive", "--prefix=former/", _LAST_COMMIT, *_FILES),
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", directory], input=archive, check=True)
    host.run("rm -rf /root/former /opt/ramshelf /usr/local/bin/ramshelf")
    host.put(directory / "former", "/root")
    lines = install_lines((directory / "former/README.md").read_text())
    host.run(f"cd /root/former; {' && '.join(lines)}")
    assert "0.1.0" in host.said("ramshelf --version")
    host.run("virsh --quiet list")  # its hook install fails where libvirt sleeps
