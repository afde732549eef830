"""A store whose device does not answer."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import ramshelf
from support.hanging import Disk, hanging_disk
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import store


@pytest.fixture
def disk(hooked: Libvirtd, tmp_path: Path) -> Iterator[Disk]:  # noqa: ARG001 - its hook
    """A disk below a store, of whose directories none is in RAM."""
    with hanging_disk(tmp_path, 192) as disk, store("ext4", device=disk.device) as memory:
        run("umount", str(memory))
        run("mount", str(memory))
        yield disk


def test_libvirt_goes_on_after_the_doctor_while_the_device_hangs(disk: Disk) -> None:
    """libvirt looks at the store when any guest ends, one that only shows the hook included."""
    with disk.hanging():
        ended = ramshelf("doctor", "--json", ok=(1, 2))
        run("virsh", "list")
    found = {finding["code"]: finding for finding in json.loads(ended.stdout)["findings"]}
    assert "does not answer" in found["store.mount-unknown"]["message"]
    assert "hook.ok" in found


def test_libvirt_goes_on_after_a_look_at_the_hook_while_the_device_hangs(disk: Disk) -> None:
    with disk.hanging():
        status = json.loads(ramshelf("hook", "status", "--json").stdout)
        run("virsh", "list")
    assert (status["problem"], status["seen"]) == ("", True)
