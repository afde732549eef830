"""support.kvm tries whether KVM runs a guest, here with something else in QEMU's place."""

import os
from pathlib import Path

import pytest

from support import kvm


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo GUEST-UP", ""),
        ("echo 'Could not access KVM kernel module' >&2; exit 1", "Could not access KVM"),
        ("exit 1", "the guest did not come up"),
        ("exec sleep 60", "a guest hangs on it"),
    ],
)
def test_what_a_guest_under_kvm_comes_to(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(f"#!/bin/sh\n{script}\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/kvm")
    monkeypatch.setattr(kvm, "_qemu_user", dict)
    said = kvm.why_not_kvm(seconds=0.5 if "sleep" in script else 60)
    assert (why in said) if why else not said


def test_without_dev_kvm_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda _: False)
    monkeypatch.setattr("subprocess.run", None)
    assert kvm.why_not_kvm(seconds=0) == "there is no /dev/kvm"
