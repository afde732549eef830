"""How the driver asks the hook, and what it makes of libvirt's errors."""

from types import SimpleNamespace
from typing import Any

import libvirt
import pytest
from lxml import etree
from nova import exception

from ramshelf_nova.core.hostanswer import HostAnswer
from ramshelf_nova.core.kind import Kind
from ramshelf_nova.hook import Hook

SAID = HostAnswer(kernel="6.1.0", kind=Kind.SWAP, fstype="tmpfs", capacity_mib=512)


class Libvirt:
    """A host whose libvirt refuses every guest with this error, and what it was asked for."""

    def __init__(self, domain: int, message: str) -> None:
        self.now = 0.0
        self.names: list[str | None] = []
        self._error = (libvirt.VIR_ERR_HOOK_SCRIPT_FAILED, domain, message, 2, None, None, None, -1, -1)

    def hook(self) -> Hook:
        connection = SimpleNamespace(createXML=self._create)
        return Hook(SimpleNamespace(get_connection=lambda: connection), lambda: self.now)

    def _create(self, xml: str, _flags: int) -> Any:
        self.names.append(etree.fromstring(xml).findtext("name"))
        error = libvirt.libvirtError("refused")
        error.err = self._error
        raise error


def test_an_answer_serves_for_some_seconds() -> None:
    host = Libvirt(libvirt.VIR_FROM_HOOK, f"unexpected exit status 10: {SAID.line()}")
    hook = host.hook()
    assert (hook.answer(), hook.answer()) == (SAID, SAID)
    assert len(host.names) == 1
    host.now = 6.0
    assert (hook.answer(), hook.answer(fresh=True)) == (SAID, SAID)
    assert host.names == ["ramshelf-probe-host-nova-compute"] * 3


def test_no_answer_is_none() -> None:
    assert Libvirt(libvirt.VIR_FROM_QEMU, "could not open kernel file").hook().answer() is None


@pytest.mark.parametrize("domain", [libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE])
def test_a_libvirt_that_is_gone_is_no_answer(domain: int) -> None:
    hook = Libvirt(domain, "End of file while reading data").hook()
    with pytest.raises(exception.HypervisorUnavailable):
        hook.answer()
