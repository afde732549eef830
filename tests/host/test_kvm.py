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
    "test_moving.py::test_a_guest_that_is_trimmed_without_end_runs_wherever_it_arrives",
    "test_ram.py::test_what_guests_of_all_kinds_take_is_in_the_sum[ext4]",
)
"""Starts and ends by the device's counters; a DIMM and virtio-mem, a balloon, free page
reporting; moves during trims; locked memory."""
MOVES = "test_moving.py::test_to_and_fro"


def integration(machine: RealHost, test: str, variables: str = "") -> None:
    """Run an integration test on the host, with KVM guests."""
    pytest_there = (
        "scripts/isolated /opt/tests/bin/python -m pytest -q -p no:cacheprovider "
        f"-m 'soak or not soak' {shlex.quote(f'{INTEGRATION}/{test}')}"
    )
    said = machine.said(f"{ENVIRONMENT} {variables} {pytest_there}")
    assert "1 passed" in said, said


def test_five_moves(machine: RealHost) -> None:
    integration(machine, MOVES, variables="MOVES=5")


@pytest.mark.soak
def test_fifty_moves(machine: RealHost) -> None:
    integration(machine, MOVES, variables="MOVES=50")


@pytest.mark.soak
@pytest.mark.parametrize("test", TESTS)
def test_what_depends_on_kvm(machine: RealHost, test: str) -> None:
    integration(machine, test)
