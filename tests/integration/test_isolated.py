"""scripts/isolated: what runs in it cannot reach the machine, and nothing of it stays."""

import fcntl
import signal
import subprocess
from pathlib import Path

import pytest

from ramshelf.system.procfs import swaps
from support.devices import scratch
from support.process import run, wait_until

ISOLATED = str(Path(__file__).parents[2] / "scripts/isolated")

SWAP_AND_MOUNT = """
cd "$TMPDIR"
fallocate -l 32M swap; chmod 600 swap; mkswap -q swap; swapon swap
fallocate -l 32M disk; device=$(losetup --find --show disk)
mkfs.ext4 -q "$device"; mkdir mounted; mount "$device" mounted; cd mounted
sleep 1000 &
echo "$TMPDIR"
"""


@pytest.fixture(autouse=True)
def among_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is this test's, not one of those that other tests start meanwhile."""
    monkeypatch.setenv("ISOLATED_BELOW", str(scratch()))


def test_exit_status_is_the_commands() -> None:
    assert run(ISOLATED, "sh", "-c", "exit 7", ok=(7,)).stdout == ""
    assert "isolated COMMAND" in run(ISOLATED, ok=(255,)).stderr


def test_machine_is_out_of_reach() -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    script = (
        "echo x >/etc/isolated-test; echo 1 >/proc/sys/vm/swappiness; touch /run/x "
        "/var/lib/libvirt/x; ps ax"
    )
    shown = run(ISOLATED, "sh", "-c", script).stdout
    assert "isolated --inside" in shown.splitlines()[1]
    assert len(shown.splitlines()) <= 4
    assert not any(
        Path(path).exists() for path in ("/etc/isolated-test", "/run/x", "/var/lib/libvirt/x")
    )
    assert Path("/proc/sys/vm/swappiness").read_text() == before


def test_swap_loop_devices_and_files_are_taken_back() -> None:
    directory = run(ISOLATED, "bash", "-ec", SWAP_AND_MOUNT).stdout.strip()
    _assert_nothing_left(directory)


def test_the_next_one_clears_up_after_a_killed_one() -> None:
    with subprocess.Popen(
        [ISOLATED, "bash", "-ec", f"{SWAP_AND_MOUNT} wait"], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        directory = running.stdout.readline().strip()
        running.send_signal(signal.SIGKILL)
    _wait_until_nobodys(directory)
    run(ISOLATED, "true")
    _assert_nothing_left(directory)


def test_a_setting_of_the_kernel_is_put_back_however_it_ends() -> None:
    """One that is noted, and that no copy protects."""
    setting = Path("/proc/sys/vm/laptop_mode")
    before = setting.read_text()
    script = (
        f'read before <{setting}; echo "{setting} $before" >"$TMPDIR/.kernel"; echo 7 >{setting}'
    )
    run(ISOLATED, "bash", "-ec", f"{script}; echo 8 >{setting}; kill -KILL $$", ok=(137,))
    assert setting.read_text() == before
    with subprocess.Popen(
        [ISOLATED, "bash", "-ec", f'{script}; echo "$TMPDIR"; exec sleep 1000'],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        directory = running.stdout.readline().strip()
        running.send_signal(signal.SIGKILL)
    _wait_until_nobodys(directory)
    assert setting.read_text() == "7\n"
    run(ISOLATED, "true")
    assert setting.read_text() == before


def _wait_until_nobodys(directory: str) -> None:
    """A killed one's lock is free once the last process in it has closed its files."""

    def nobodys() -> bool:
        with Path(directory, ".lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    wait_until(nobodys, "all in it is killed")


def _assert_nothing_left(directory: str) -> None:
    assert directory.startswith(f"{scratch()}/ramshelf.")
    assert not Path(directory).exists()
    assert not [area for area in swaps() if directory in area.path]
    assert directory not in run("losetup", "--list").stdout
