"""What guests do under KVM: the integration tests that depend on it, run anew on the host.

They run there as they do anywhere, isolated; their guests are KVM's.
"""

import shlex

import pytest

from support.real_host import RealHost

INTEGRATION = "tests/integration"
ENVIRONMENT = "GUESTS=kvm PYTHONPATH=tests:."
TESTS = (
    "test_ends.py::test_an_ending_leaves_and_writes_nothing[destroy-swap]",
    "test_ends.py::test_an_ending_leaves_and_writes_nothing[shutdown-xfs]",
    "test_ends.py::test_an_ending_leaves_and_writes_nothing[guest-stop-ext4]",
    "test_immediate.py::test_what_is_plugged_in_later[ext4]",
    "test_lives.py::test_what_a_guest_gives_back_stays_promised[ballooned-xfs]",
    "test_lives.py::test_what_a_guest_gives_back_stays_promised[reported-ext4]",
    "test_ram.py::test_what_guests_of_all_kinds_take_is_in_the_sum[ext4]",
)
"""Starts and ends by the device's counters; a DIMM and virtio-mem, a balloon, free page
reporting; locked memory."""
MODULES = ("test_ends.py", "test_immediate.py", "test_lives.py", "test_moving.py", "test_ram.py")


def integration(machine: RealHost, *tests: str) -> str:
    """Run these integration tests on the host, with KVM guests, and return what pytest says."""
    names = shlex.join(f"{INTEGRATION}/{test}" for test in tests)
    pytest_there = (
        f"scripts/isolated /opt/tests/bin/python -m pytest -q -p no:cacheprovider {names}"
    )
    return machine.said(f"{ENVIRONMENT} {pytest_there}")


@pytest.mark.soak
def test_six_moves(machine: RealHost) -> None:
    assert "3 passed" in integration(machine, "test_moving.py::test_there_and_back")


@pytest.mark.soak
def test_what_depends_on_kvm(machine: RealHost) -> None:
    said = integration(machine, *TESTS)
    assert "skipped" not in said, said


@pytest.mark.soak
@pytest.mark.parametrize("module", MODULES)
def test_all_that_guests_do(machine: RealHost, module: str) -> None:
    integration(machine, module)


@pytest.mark.soak
def test_fifty_moves(machine: RealHost) -> None:
    for _ in range(9):
        test_six_moves(machine)
