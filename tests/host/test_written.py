"""What the start and the end of a KVM guest write to the store's device, by the device's count.

The kernel writes back nothing by itself meanwhile; what the start or the end left to be written is
written before it is counted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from support.real_host import MEMORY, RealHost, guest_xml

pytestmark = pytest.mark.soak

KINDS = {"swap": "--kind swap", "ext4": "--kind disk --fs ext4", "xfs": "--kind disk --fs xfs"}
ENDS = {
    "destroyed": "virsh --quiet destroy guest",
    "shutdown": "virsh --quiet shutdown guest",
    "killed": "kill -KILL $(cat /run/libvirt/qemu/guest.pid)",
}
SIZE_MIB = 256
DIRTY_MIB = 96
SCOPE = "/sys/fs/cgroup/machine.slice/machine-qemu*guest.scope"
METADATA = 1 << 20
"""The bytes that a file system may write of its own (DESIGN: a MiB)."""


@dataclass(frozen=True)
class Stored:
    """A host with a store on a device, in which the guest is defined."""

    host: RealHost
    device: str

    def written(self, *, sync: bool = True) -> int:
        """Return the bytes written to the device, with those that its file system had to."""
        if sync:
            self.host.run(f"sync --file-system {MEMORY}")
        return int(
            self.host.said(
                f"awk '{{ print $7 * 512 }}' /sys/block/{os.path.basename(self.device)}/stat"
            )
        )


@contextmanager
def stored(host: RealHost, kind: str, device: str) -> Iterator[Stored]:
    """Have a store and the hook, and no writeback of what is merely old."""
    key = "vm.dirty_writeback_centisecs"
    before = host.said(f"sysctl -n {key}")
    host.run(f"sysctl -qw {key}=0")
    host.run(f"ramshelf store create {kind} --device {device} --size 900M")
    host.run("ramshelf hook install")
    host.define(guest_xml("guest", SIZE_MIB, dirty_mib=DIRTY_MIB))
    try:
        yield Stored(host, device)
    finally:
        host.remove_guests()
        for noun in ("hook", "store"):
            host.run(f"ramshelf {noun} remove")
        host.run(f"sysctl -qw {key}={before}")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_neither_start_nor_end_writes(machine: RealHost, kind: str, end: str) -> None:
    with stored(machine, KINDS[kind], "/dev/vdb") as one:
        start_and_end(one, ENDS[end])


@pytest.mark.parametrize("end", ENDS)
def test_neither_does_on_persistent_memory(machine: RealHost, pmem: str, end: str) -> None:
    """What goes there is written without this count; metadata are not."""
    with stored(machine, "--kind dax", pmem) as one:
        start_and_end(one, ENDS[end])


def start_and_end(stored: Stored, end: str) -> None:
    """Assert that neither writes more than metadata, and that nothing is left."""
    host = stored.host
    before = stored.written()
    host.run("virsh --quiet start guest --paused")
    started = stored.written()
    assert started - before <= METADATA
    host.run("virsh --quiet resume guest")
    host.wait_console("guest", "DIRTIED")
    dirtied = stored.written(sync=False)
    # xfs logs the times of a file that is written to, meanwhile.
    assert dirtied - started <= DIRTY_MIB << 20 >> 4, "its memory is yet to be written"
    host.run(end)
    host.wait(f'[ -z "$(ls {MEMORY} | grep guest)" ]', f"nothing is left by {end}")
    host.wait("virsh domstate guest | grep -q 'shut off'", "libvirt has seen it end")
    assert stored.written() - dirtied <= METADATA, end


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_spared_is_counted_when_it_is_written(machine: RealHost, kind: str) -> None:
    """The control: want of RAM, or a sync, has the same memory written."""
    with stored(machine, KINDS[kind], "/dev/vdb") as one:
        machine.run("virsh --quiet start guest")
        machine.wait_console("guest", "DIRTIED")
        before = one.written(sync=False)
        machine.run(f"cd {SCOPE} && echo {SIZE_MIB}M >memory.reclaim", ok=(0, 1))
        assert one.written() - before > DIRTY_MIB * 3 // 4 << 20
