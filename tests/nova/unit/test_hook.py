"""How the driver asks the hook, and what it makes of libvirt's errors."""

from types import SimpleNamespace
from typing import Any

import libvirt
import pytest
from lxml import etree
from nova import exception

from ramshelf_nova.core.migration.answer import HostAnswer
from ramshelf_nova.core.store.kind import Kind
from ramshelf_nova.hook import Hook, refusal

_PREFIX = (
    "Hook script execution failed: internal error: Child process (LC_ALL=C "
    "/etc/libvirt/hooks/qemu.d/ramshelf guest start begin -) unexpected exit status 1: "
)
SAID = HostAnswer(kernel="6.1.0", kind=Kind.SWAP, fstype="tmpfs", capacity_mib=512)


def _error(domain: int, message: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError("refused")
    error.err = (libvirt.VIR_ERR_HOOK_SCRIPT_FAILED, domain, message, 2, None, None, None, -1, -1)
    return error


class Libvirt:
    """A host whose libvirt refuses every guest with this error, and what it was asked for."""

    def __init__(self, domain: int, message: str) -> None:
        self.now = 0.0
        self.names: list[str | None] = []
        self.error = _error(domain, message)

    def hook(self) -> Hook:
        connection = SimpleNamespace(createXML=self._create)
        return Hook(SimpleNamespace(get_connection=lambda: connection), lambda: self.now)

    def _create(self, xml: str, _flags: int) -> Any:
        self.names.append(etree.fromstring(xml).findtext("name"))
        raise self.error


def test_an_answer_serves_for_some_seconds() -> None:
    host = Libvirt(libvirt.VIR_FROM_HOOK, f"unexpected exit status 10: {SAID.line()}")
    hook = host.hook()
    assert (hook.answer(), hook.answer()) == (SAID, SAID)
    assert len(host.names) == 1
    host.now = 6.0
    assert (hook.answer(), hook.answer(fresh=True)) == (SAID, SAID)
    assert host.names == ["ramshelf-probe-host-nova-compute"] * 3


def test_where_libvirt_is_found_gone_what_it_said_before_serves_no_longer() -> None:
    host = Libvirt(libvirt.VIR_FROM_HOOK, f"unexpected exit status 10: {SAID.line()}")
    hook = host.hook()
    assert hook.answer() == SAID
    host.error = _error(libvirt.VIR_FROM_RPC, "End of file while reading data")
    for fresh in (True, False):
        with pytest.raises(exception.HypervisorUnavailable):
            hook.answer(fresh=fresh)


def test_no_answer_is_none() -> None:
    assert Libvirt(libvirt.VIR_FROM_QEMU, "could not open kernel file").hook().answer() is None


@pytest.mark.parametrize("domain", [libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE])
def test_a_libvirt_that_is_gone_is_no_answer(domain: int) -> None:
    hook = Libvirt(domain, "End of file while reading data").hook()
    with pytest.raises(exception.HypervisorUnavailable):
        hook.answer()


def test_a_connection_that_is_closed_meanwhile_is_no_answer() -> None:
    """Host._get_connection lets go of its lock before it returns."""
    hook = Hook(SimpleNamespace(get_connection=lambda: None))
    with pytest.raises(exception.HypervisorUnavailable):
        hook.answer()


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            f"{_PREFIX}ramshelf: It needs\n28 MiB more. [capacity.exceeded]\nhint: Wait.\n",
            "It needs\n28 MiB more.",
        ),
        (f"{_PREFIX}another hook [x] says no", None),
        ("monitor socket did not show up", None),
    ],
)
def test_what_the_hook_says_to_a_start(message: str, sentence: str | None) -> None:
    assert refusal(_error(libvirt.VIR_FROM_HOOK, message)) == sentence
