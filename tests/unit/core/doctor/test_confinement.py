"""What keeps guests apart: labels in live XML, and when the doctor warns."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.doctor.checks import check
from ramshelf.core.doctor.confinement import Labels, parse_labels
from ramshelf.core.doctor.facts import Facts
from ramshelf.core.host import Account, LibvirtHost, Unknown
from ramshelf.core.record import replace
from support.good_host import GOOD, GUEST, QEMU_UID, RUNNING

DAC = """
  <seclabel type='dynamic' model='dac' relabel='yes'>
    <label>+64055:+64055</label>
    <imagelabel>+64055:+64055</imagelabel>
  </seclabel>"""
APPARMOR = """
  <seclabel type='dynamic' model='apparmor' relabel='yes'>
    <label>libvirt-12345678-9abc-4def-8123-456789abcdef</label>
    <imagelabel>libvirt-12345678-9abc-4def-8123-456789abcdef</imagelabel>
  </seclabel>"""
SELINUX = """
  <seclabel type='dynamic' model='selinux' relabel='yes'>
    <label>system_u:system_r:svirt_t:s0:c392,c662</label>
    <imagelabel>system_u:object_r:svirt_image_t:s0:c392,c662</imagelabel>
  </seclabel>"""
OWN_USER = (
    "<seclabel type='static' model='dac' relabel='yes'><label>+70001:+70001</label></seclabel>"
)


@pytest.mark.parametrize(
    ("seclabels", "labels"),
    [
        (DAC, Labels(confined=False, uid=64055)),
        (DAC + APPARMOR, Labels(confined=True, uid=64055)),
        (SELINUX + DAC, Labels(confined=True, uid=64055)),
        (OWN_USER, Labels(confined=False, uid=70001)),
        ("<seclabel type='none' model='apparmor'/>" + DAC, Labels(confined=False, uid=64055)),
        (
            "<seclabel type='dynamic' model='apparmor'><label>unconfined</label></seclabel>",
            Labels(),
        ),
        ("<seclabel type='static' model='dac'><label>qemu:qemu</label></seclabel>", Labels()),
        ("<seclabel type='none'/>", Labels()),
        ("", Labels()),
        (f"<devices><disk><source>{APPARMOR}</source></disk></devices>", Labels()),
        (f"<metadata><a:x xmlns:a='urn:u'><b:y/></a:x></metadata>{DAC}", Labels(uid=64055)),
    ],
)
def test_labels_are_read_from_live_xml(seclabels: str, labels: Labels) -> None:
    assert parse_labels(f"<domain type='kvm' id='3'><name>web</name>{seclabels}</domain>") == labels


@given(st.text())
def test_what_is_no_xml_has_no_labels(text: str) -> None:
    assert isinstance(parse_labels(text), Labels)


def host(*models: str, guests: tuple[Labels, ...] = (), **changes: Any) -> Facts:
    assert isinstance(GOOD.hypervisor, LibvirtHost)
    running = tuple(
        replace(RUNNING, guest=replace(GUEST, name=f"g{number}"), labels=labels)
        for number, labels in enumerate(guests)
    )
    return replace(
        GOOD, hypervisor=replace(GOOD.hypervisor, security_models=models), guests=running, **changes
    )


def warned(facts: Facts) -> list[tuple[str, object]]:
    return [
        (each.code, each.facts.get("guest"))
        for each in check(facts)
        if each.code in {"host.unconfined", "guest.unconfined", "host.confinement-unknown"}
    ]


SVIRT = Labels(confined=True, uid=QEMU_UID)
BARE = Labels(uid=QEMU_UID)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (host("apparmor", "dac"), []),
        (host("selinux", "dac", guests=(SVIRT, SVIRT)), []),
        (host("none", "dac"), [("host.unconfined", None)]),
        (host("dac", guests=(BARE,)), [("host.unconfined", None)]),
        (host("dac", guests=(Labels(uid=70001), Labels(uid=70002))), []),
        (host("dac", guests=(Labels(uid=70001), Labels(uid=70001))), [("host.unconfined", None)]),
        (host("apparmor", "dac", guests=(SVIRT, BARE)), [("guest.unconfined", "g1")]),
        (host("apparmor", "dac", guests=(SVIRT, Labels(uid=70001))), []),
        (host("apparmor", "dac", guests=(Labels(uid=0),)), [("guest.unconfined", "g0")]),
        (
            host("apparmor", guests=(Labels(),), qemu_user=Unknown("w")),
            [("guest.unconfined", "g0")],
        ),
        (host("dac", guests=(SVIRT, SVIRT)), [("host.unconfined", None)]),
        (
            host(
                "apparmor", guests=(SVIRT,), qemu_user=Account(user="root", uid=0, gids=frozenset())
            ),
            [],
        ),
    ],
)
def test_a_guest_that_nothing_keeps_from_the_others_is_warned_of(
    facts: Facts, expected: list[tuple[str, object]]
) -> None:
    assert warned(facts) == expected


def test_libvirt_that_cannot_be_asked_is_told_of_elsewhere() -> None:
    assert warned(replace(GOOD, hypervisor=Unknown("it is away"))) == []
