"""A nova-compute on the second host (``support.second_host``), of the first host's cloud."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from support.devices import scratch
from support.nova.cloud import VIRTUAL_ENVIRONMENT, Cloud
from support.nova.conf import NOVA_CONF, Settings, settings, text
from support.process import run, wait_until
from support.second_host import FIRST_ADDRESS, SecondHost

NAME = "second"


def migratable(address: str) -> Settings:
    """Return what nova.conf needs on a host of this address, so that guests may move to it live."""
    return {
        "DEFAULT": {"my_ip": address},
        "libvirt": {"live_migration_scheme": "tcp", "live_migration_inbound_addr": address},
    }


SHARED: Settings = {"DEFAULT": {"my_ip": FIRST_ADDRESS}}
"""What nova.conf needs on hosts that share a file system for servers' disks.

Nova then tries no ssh.
"""


class SecondCompute:
    """A nova-compute on the second host, which asks the first host's conductor.

    Its state is its own, except for the servers' disks where those are ``shared``. Servers with
    shared disks cannot move live: libvirt looks at the file system.
    """

    def __init__(self, first: Cloud, host: SecondHost, *, shared: bool) -> None:
        self._first = first
        self.host = host
        self._directory = scratch() / "second-nova"
        self._directory.mkdir()
        self._input: TextIO | None = None
        # It is at the same path as on the first host, for a guest's XML names files there.
        host.shell(f"""
            mkdir /run/instances
            mount --bind {first.state / "instances" if shared else "/run/instances"} /run/instances
            mount -t tmpfs state {first.state}
            mkdir {first.state}/locks {first.state}/instances
            mount --move /run/instances {first.state}/instances
        """)

    def start(self, more: Settings | None = None) -> None:
        """Start it, and wait until the scheduler knows it; ``more`` replaces its nova.conf."""
        if more is not None:
            url = self._first.url.replace("127.0.0.1", FIRST_ADDRESS)
            conf = text(settings(url, self._first.state, more))
            self.host.run(
                "sh", "-ec", f"mkdir -p {NOVA_CONF.parent}; cat > {NOVA_CONF}", stdin=conf
            )
        words, said = self._directory / "input", self._directory / "output"
        words.unlink(missing_ok=True)
        os.mkfifo(words)
        said.write_text("")
        program = (
            f"{VIRTUAL_ENVIRONMENT}/bin/python -W ignore -m support.nova.process 0 root compute"
        )
        # The shell lets go of its own outputs before it opens the input, which waits for us.
        self.host.shell(
            f"cd {VIRTUAL_ENVIRONMENT.parent}/tests; (exec >{said} 2>&1; exec {program} <{words}) &"
        )
        self._input = words.open("w")
        wait_until(lambda: said.read_text().startswith("ready "), f"it is ready: {said}")
        wait_until(lambda: NAME in self._known(), "the scheduler knows it")

    def stop(self) -> None:
        """End it, as a crash does."""
        if self._input is not None:
            self._input.close()
            self._input = None
            self.host.shell(
                "while pgrep -f '[s]upport.nova.process' >/dev/null; do sleep 0.1; done"
            )

    def log(self) -> str:
        """Return what it has logged."""
        return self.host.shell(f"cat {self._first.state}/nova.log")

    def close(self) -> None:
        """End it, and remove what it has made."""
        self.stop()
        self.host.shell(f"umount --lazy --recursive {self._first.state}")
        run("rm", "-r", str(self._directory))

    def _known(self) -> set[str]:
        found = self._first.compute.ask("GET", "/os-hypervisors")["hypervisors"]
        return {hypervisor["hypervisor_hostname"].partition(".")[0] for hypervisor in found}


@contextmanager
def second_compute(
    first: Cloud, host: SecondHost, *, shared: bool = False
) -> Iterator[SecondCompute]:
    """Yield a nova-compute there, to be started; ``shared``: both hosts share servers' disks."""
    compute = SecondCompute(first, host, shared=shared)
    try:
        yield compute
    finally:
        compute.close()
