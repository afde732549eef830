"""What a user installs: the built wheel, away from the checkout, from store to guest and back."""

import json
import os
import sys
from pathlib import Path

import pytest

from ramshelf.core.hook.call import AFTERCARE
from ramshelf.core.hook.copy import DIRECTORY
from ramshelf.core.hook.script import SCRIPT
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run

_CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's own ramshelf command, beside the dependencies of this environment."""
    monkeypatch.chdir(_CHECKOUT)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("ramshelf-*.whl")
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    library = next(environment.glob("lib/python3*/site-packages"))
    dependencies = next(path for path in map(Path, sys.path) if (path / "click").is_dir())
    (library / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin/python"))
    run(
        *pip,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        str(wheel),
    )
    return environment / "bin/ramshelf"


def test_the_wheel_alone_does_it_all(libvirtd: Libvirtd, installed: Path, tmp_path: Path) -> None:
    ramshelf = str(installed)
    where = run(
        str(installed.with_name("python")), "-c", "import ramshelf; print(ramshelf.__file__)"
    ).stdout
    assert where.startswith(str(tmp_path)), where
    area = Path(os.environ["TMPDIR"], "store")
    run(
        ramshelf,
        "store",
        "create",
        "--kind",
        "disk",
        "--fs",
        "xfs",
        "--size",
        "512M",
        "--file",
        str(area),
    )
    run(ramshelf, "hook", "install")
    assert str(tmp_path) not in Path(SCRIPT).read_text()
    [copy] = Path(DIRECTORY).iterdir()
    assert Path(copy, AFTERCARE).read_text().startswith(str(tmp_path))
    found = json.loads(run(ramshelf, "doctor", "--json", ok=(0, 1)).stdout)["findings"]
    assert {each["severity"] for each in found if each["group"] in {"hook", "guest"}} == {"ok"}
    document = tmp_path / "guest.xml"
    document.write_text(domain_xml("guest", memory_backing=""))
    run(ramshelf, "guest", "start", str(document))
    (guest,) = json.loads(run(ramshelf, "guest", "list", "--json").stdout)["guests"]
    assert (guest["name"], guest["state"], guest["allocated_mib"]) == ("guest", "running", 128)
    run(ramshelf, "guest", "stop", "guest", "--now")
    libvirtd.virsh("undefine", "guest")
    run(ramshelf, "hook", "remove")
    run(ramshelf, "store", "remove")
    assert not area.exists()
    assert not Path(SCRIPT).exists()
    assert not Path(DIRECTORY).exists()
