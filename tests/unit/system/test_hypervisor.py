"""Connections to a libvirt that takes them and never answers."""

import os
import socket
import threading
from pathlib import Path

import pytest

from ramshelf.core.errors import ServiceError
from ramshelf.system.hypervisor import Hypervisor
from support.process import wait_until


def test_a_libvirt_that_hangs_for_long_does_not_use_up_threads_and_files(tmp_path: Path) -> None:
    """As the agent asks it, again and again; once libvirt is gone, all is given back."""
    before, path = threading.active_count(), str(tmp_path / "libvirt")
    files = len(os.listdir("/proc/self/fd"))
    uri = f"qemu+unix:///system?socket={path}"
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(path)
        hanging.listen(100)
        for _ in range(40):
            with pytest.raises(ServiceError) as caught:
                Hypervisor(uri, patience=0.01)
            assert caught.value.code == "libvirt.no-answer"
        assert threading.active_count() < before + 20
        assert len(os.listdir("/proc/self/fd")) < files + 60
    wait_until(lambda: threading.active_count() == before, "all calls have ended")
    with pytest.raises(ServiceError) as caught:
        Hypervisor(uri)
    assert caught.value.code == "libvirt.unreachable"
