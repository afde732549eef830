"""Checks of libvirt, QEMU and the kernel, and whether the host can run guests at all."""

from collections.abc import Iterator

from ramshelf.core.catalog import finding, unknown
from ramshelf.core.config import Config
from ramshelf.core.doctor.facts import Facts
from ramshelf.core.findings import Finding
from ramshelf.core.host import LibvirtHost, Unknown
from ramshelf.core.requirements import DISCARD, FILE_BACKING, VIRT_TYPES, dotted, supports


def check_versions(facts: Facts) -> Iterator[Finding]:
    """Check the versions against the floors in core/requirements.py, the one table of them."""
    if isinstance(facts.kernel, Unknown):
        yield unknown(
            "versions.kernel-unknown", "The kernel's version cannot be read", facts.kernel
        )
    if isinstance(facts.hypervisor, Unknown):
        yield finding(
            "versions.libvirt-unreachable",
            f"{facts.hypervisor.reason}.",
            milder=facts.hypervisor.denied,
        )
    else:
        yield from _hypervisor(facts.hypervisor)


def _hypervisor(host: LibvirtHost) -> Iterator[Finding]:
    if isinstance(host.qemu, Unknown):
        yield unknown(
            "versions.qemu-unknown", "QEMU's version cannot be had from libvirt", host.qemu
        )
    libvirt = dotted(host.libvirt)
    if host.libvirt < FILE_BACKING.libvirt:
        yield finding(
            "versions.libvirt-old",
            f"libvirt {libvirt} is older than {dotted(FILE_BACKING.libvirt)}.",
            libvirt=libvirt,
        )
    if isinstance(host.qemu, Unknown):
        return
    qemu = dotted(host.qemu)
    if host.qemu < FILE_BACKING.qemu:
        yield finding(
            "versions.qemu-old",
            f"QEMU {qemu} is older than {dotted(FILE_BACKING.qemu)}.",
            qemu=qemu,
        )
    if not supports(FILE_BACKING, host.libvirt, host.qemu):
        return
    if not supports(DISCARD, host.libvirt, host.qemu):
        yield finding(
            "versions.no-discard",
            f"libvirt {libvirt} with QEMU {qemu} has no discard, so guests start without it.",
            libvirt=libvirt,
            qemu=qemu,
        )
    yield finding(
        "versions.ok",
        f"libvirt {libvirt} and QEMU {qemu} at {host.uri}.",
        libvirt=libvirt,
        qemu=qemu,
    )


def check_host(facts: Facts) -> Iterator[Finding]:
    """Check virt_type, and KVM where virt_type asks for it."""
    config = facts.config if isinstance(facts.config, Config) else Config()
    if config.virt_type not in VIRT_TYPES:
        yield finding(
            "host.virt-type",
            f"virt_type is {config.virt_type}, with which memory cannot be file-backed.",
            virt_type=config.virt_type,
        )
    elif config.virt_type == "qemu":
        yield finding("host.ok", "virt_type is qemu: guests run without KVM.")
    elif isinstance(facts.kvm, Unknown):
        yield unknown("host.kvm-unknown", "Whether /dev/kvm works could not be tried", facts.kvm)
    elif facts.kvm:
        yield finding(
            "host.kvm",
            f"virt_type is kvm and /dev/kvm cannot be used: {facts.kvm}.",
            milder="libvirt.virt_type" not in config.settings,
            reason=facts.kvm,
        )
    else:
        yield finding("host.ok", "virt_type is kvm and /dev/kvm answers.")
