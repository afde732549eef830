from inspect import get_annotations
from typing import Any

import pytest

from ramshelf.cli.doctor import document
from ramshelf.core.catalog import GROUPS, RULES
from ramshelf.core.doctor.checks import check
from ramshelf.core.doctor.confinement import Labels
from ramshelf.core.doctor.facts import (
    BadConfig,
    Facts,
    OddGuest,
    PathDirectory,
    ServiceOrder,
    StaleDirectory,
    StoreFacts,
)
from ramshelf.core.domain.memory import MemoryFile
from ramshelf.core.domain.numa import HostNode, HostNuma, Part, Tuning
from ramshelf.core.domain.own_backends import OwnBackend
from ramshelf.core.errors import HostError, ServiceError
from ramshelf.core.files.qemuconf import MemoryDirectory
from ramshelf.core.findings import Finding, Severity, exit_status
from ramshelf.core.hook.bypass import Bypass
from ramshelf.core.host import LibvirtHost, Slice, Unknown
from ramshelf.core.placement import TRAIT, Allocation, Former, Inventory
from ramshelf.core.record import replace
from ramshelf.core.requirements import require
from ramshelf.core.setting import Setting
from ramshelf.core.store.earlier import EarlierPromise
from ramshelf.core.store.find import Store
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.write_errors import WriteErrors
from ramshelf.core.units import GIB, MIB
from support.good_host import (
    DAEMON,
    GOOD,
    GUEST,
    MEMORY_DIR,
    NOTE,
    NOVA_CONF,
    NOVA_REPORTS,
    QEMU,
    RAM_FILE,
    RAMSHELF_REPORTS,
    STORE,
    WEB,
    guest_directory,
    on_disk,
    reported,
    with_boot,
    with_config,
    with_device,
    with_guest,
    with_hook,
    with_store,
    with_sysctl,
    with_usage,
    without_store,
)

WHY = Unknown("permission denied")
TWO_PLACES = tuple(
    Setting(path=path, section="libvirt", key="file_backed_memory", value=value)
    for path, value in ((NOVA_CONF, "1"), ("/etc/ramshelf/ramshelf.conf", "2"))
)
DIMM = replace(RAM_FILE, path=f"{MEMORY_DIR}/3-web/dimm0", apparent=GIB)
OVERCOMMITTED = Inventory(total=64 * 1024, max_unit=64 * 1024, allocation_ratio=1.5)


def libvirt(
    libvirt: tuple[int, int, int], qemu: tuple[int, int, int] | Unknown = (7, 2, 0)
) -> Facts:
    return replace(
        GOOD,
        hypervisor=LibvirtHost(
            uri="qemu:///system", libvirt=libvirt, qemu=qemu, security_models=("apparmor",)
        ),
    )


def models(*names: str, **labels: Any) -> Facts:
    """The good host with these security drivers, and these labels of its guest's."""
    assert isinstance(GOOD.hypervisor, LibvirtHost)
    facts = with_guest({"labels": Labels(**labels)})
    return replace(facts, hypervisor=replace(GOOD.hypervisor, security_models=names or None))


def store(facts: Facts) -> tuple[StoreFacts, Store]:
    assert isinstance(facts.store, StoreFacts)
    assert isinstance(facts.store.store, Store)
    return facts.store, facts.store.store


def read_only() -> Facts:
    seen, own = store(GOOD)
    return replace(
        GOOD, store=replace(seen, store=replace(own, mount=replace(own.mount, options=("ro",))))
    )


def beyond_swap() -> Facts:
    facts = with_usage(size=70 * GIB, beyond_swap=True)
    seen, own = store(facts)
    return replace(facts, store=replace(seen, store=replace(own, beyond_swap=True)))


EARLIER = EarlierPromise(name="before", uuid="2f1b6c1e-0000-4000-8000-000000000001", promised=GIB)
NUMA = HostNuma(nodes=(HostNode(number=0, ram=4 * GIB), HostNode(number=1, ram=4 * GIB)))


def bound(gib: int, *, cells: bool = False, **guest: Any) -> Facts:
    """A host with two nodes of 4 GiB, and a guest of this size bound to one of them.

    It is bound as a whole or by its cell.
    """
    node, all_nodes = frozenset({1}), frozenset({0, 1})
    part = Part(name="", size=gib * GIB, threads=node, asked=node)
    if cells:
        part = replace(part, name="ram-node0", threads=all_nodes)
    file = MemoryFile(name="ram-node0" if cells else "pc.ram", size=gib * GIB)
    size = {"memory": gib * GIB, "max_memory": gib * GIB, "files": (file,)}
    return replace(with_guest({"tuning": Tuning(parts=(part,))}, **{**size, **guest}), numa=NUMA)


def of_kind(kind: Kind) -> Facts:
    _, own = store(GOOD)
    return with_store(store=replace(own, kind=kind))


WRITE_ERRORS = WriteErrors(messages=3, last="It failed", inodes={NOTE.files[0].inode: 100.0})
BAD = {
    "versions.libvirt-unreachable": replace(GOOD, hypervisor=WHY),
    "host.unconfined": models("none", "dac"),
    "host.confinement-unknown": models(),
    "guest.unconfined": models("apparmor", "dac"),
    "versions.libvirt-old": libvirt((3, 9, 9)),
    "versions.qemu-old": libvirt((9, 0, 0), (2, 5, 9)),
    "versions.qemu-unknown": libvirt((9, 0, 0), WHY),
    "versions.no-discard": libvirt((4, 3, 9)),
    "versions.kernel-unknown": replace(GOOD, kernel=WHY),
    "host.virt-type": with_config(virt_type="lxc"),
    "host.kvm": replace(GOOD, kvm="there is no /dev/kvm"),
    "host.kvm-unknown": replace(GOOD, kvm=WHY),
    **{
        code: replace(GOOD, config=BadConfig(reason="It is wrong", code=code))
        for code in (
            "config.missing",
            "config.unreadable",
            "config.malformed",
            "config.value",
            "config.reference",
            "config.unknown-key",
        )
    },
    "config.off": with_config(file_backed_memory_mib=0),
    "config.allocation-ratio": with_config(ram_allocation_ratio=None),
    "config.reserved-exceeds": with_config(reserved_host_memory_mib=64 * 1024),
    "config.reserved": with_config(reserved_host_memory_mib=512, settings={}),
    "config.exceeds-store": with_config(file_backed_memory_mib=64 * 1024 + 1),
    "config.below-promised": with_config(file_backed_memory_mib=1024),
    "config.below-store": with_config(file_backed_memory_mib=32 * 1024),
    "config.contradiction": with_config(contradictions=(TWO_PLACES,)),
    "config.nova-changed": replace(GOOD, nova_changed={NOVA_CONF: 1000.5}),
    "config.nova-unknown": replace(GOOD, nova_compute=WHY),
    "store.mount-unknown": replace(GOOD, store=WHY),
    "store.not-mounted": without_store("store.not-mounted"),
    "store.root-file-system": without_store("store.root-file-system"),
    "store.symbolic-link": without_store("store.symbolic-link"),
    "store.unsupported": without_store("store.unsupported"),
    "store.read-only": read_only(),
    "store.error": with_store(usage=WHY, io_error="input/output error"),
    "store.usage-unknown": with_store(usage=WHY),
    "store.file-system-errors": on_disk("ext4", file_system_errors=1),
    "store.write-errors": on_disk("ext4", write_errors=WRITE_ERRORS),
    "store.memory-lost": on_disk("xfs", write_errors=WRITE_ERRORS),
    "store.write-errors-unknown": on_disk("ext4", write_errors=WHY),
    "store.device-errors": with_device(errors=2, commands=19_000),
    "store.qemu-conf-unknown": replace(GOOD, qemu_conf_problem="permission denied"),
    "store.qemu-conf-changed": replace(GOOD, qemu_conf_changed=1000.5),
    "store.daemon-unknown": replace(GOOD, daemon=WHY),
    "store.layout": with_store(
        directory=MemoryDirectory(
            configured="/srv/ram", path="/srv/ram/libvirt/qemu", explicit=True
        )
    ),
    "store.no-directory": with_store(memory_dir_missing=True),
    "store.owner": with_store(path=(PathDirectory(path=MEMORY_DIR, uid=0, gid=0, mode=0o40700),)),
    "store.readable": with_store(
        path=(PathDirectory(path=MEMORY_DIR, uid=0, gid=0, mode=0o40755),)
    ),
    "store.owner-unknown": with_store(path=WHY),
    "store.beyond-promise": with_usage(
        directories=(guest_directory(RAM_FILE, replace(DIMM, allocated=3 * GIB, inode=8)),)
    ),
    "store.extents": with_usage(kind=Kind.DISK, used=64 * GIB - 10 * MIB, notes=(), directories=()),
    "store.inodes": with_usage(inodes=4096, inodes_free=2),
    "store.overpromised": with_usage(notes=(replace(NOTE, promised=65 * GIB),)),
    "store.resize-unfinished": with_store(unfinished=128 * GIB),
    "store.promised-before": with_store(earlier=(EARLIER,)),
    "store.not-again": with_usage(notes=(replace(NOTE, promised=65 * GIB),)),
    "store.rotational": with_device(rotational=True),
    "store.network": with_device(network="nbd"),
    "store.thin": with_device(thin="a thin volume"),
    "store.thin-unknown": with_device(thin=WHY),
    "store.device-unknown": with_store(devices=WHY),
    "store.in-ram": with_device(in_ram=True),
    "store.buffered-loop": on_disk(devices=with_device(direct_io=False).store.devices),  # type: ignore[union-attr]
    "store.swap-on-loop": with_device(direct_io=True),
    "store.no-boot": with_boot(mounted_by=""),
    "store.swap-no-boot": with_store(swaps=(replace(STORE.swaps[0], at_boot=False),)),
    "store.swap-order": with_boot(requires=frozenset({"other.swap"})),
    "store.loop-order": on_disk(devices=with_device(direct_io=True).store.devices),  # type: ignore[union-attr]
    "store.libvirt-order": with_boot(
        services={"libvirtd.service": ServiceOrder(waits=False, requires=False)}
    ),
    "store.libvirt-requires": with_boot(
        services={"libvirtd.service": ServiceOrder(waits=True, requires=True)}
    ),
    "store.boot-unknown": with_store(boot=WHY),
    "store.no-swap": with_store(swaps=()),
    "store.beyond-swap": beyond_swap(),
    "store.larger-than-swap": with_usage(size=65 * GIB),
    "store.exceeds-memory": with_usage(size=64 * GIB + 15 * GIB + MIB),
    "store.page-cluster": with_sysctl(page_cluster=3),
    "store.swappiness": with_sysctl(swappiness=59),
    "store.swap-shared": replace(
        GOOD, processes=(DAEMON, replace(DAEMON, name="mysqld", swapped=17 * MIB))
    ),
    "store.swap-shared-unknown": replace(GOOD, processes=WHY),
    "store.services-may-swap": replace(
        GOOD, slices=(Slice(name="system.slice", memory_max=None, swap_max=None),)
    ),
    "store.services-unlimited": replace(GOOD, slices=WHY),
    "store.dirty-throttling": replace(on_disk(), sysctls=with_sysctl(dirty_ratio=20).sysctls),
    "store.sysctl-unknown": with_sysctl(swappiness=WHY),
    "store.punch-flushes": on_disk("xfs"),
    "store.stale": with_store(stale=(StaleDirectory(path=f"{MEMORY_DIR}/1-old", size=GIB),)),
    "store.stale-unknown": with_store(stale=WHY),
    "hook.missing": with_hook(installed=False),
    "hook.foreign": with_hook(installed=False, foreign=True),
    "hook.broken": with_hook(problem="status 127"),
    "hook.other-view": with_hook(view=("it sees no store (store.not-mounted), and here is one",)),
    "hook.bypassed": with_hook(bypass=Bypass(left=600, guests=1)),
    "hook.not-executable": with_hook(executable=False),
    "hook.unseen": with_hook(seen=False),
    "hook.outdated": with_hook(current=False),
    "hook.seen-unknown": with_hook(seen=None),
    "hook.status-unknown": replace(GOOD, hook=WHY),
    "guest.list-unknown": replace(GOOD, guests=WHY),
    "guest.huge-pages": with_guest(hugepages=True, files=()),
    "guest.locked": with_guest(locked=True),
    "guest.hot-pinned": with_guest({"pinned": 0}, passthrough=True),
    "guest.anonymous": with_guest(files=()),
    "guest.private": with_guest(files=(replace(GUEST.files[0], private=True),)),
    "guest.own-backend": with_guest({"own": (OwnBackend(path=f"{MEMORY_DIR}/own", size=GIB),)}),
    "guest.elsewhere": with_guest({"memory_files": ()}),
    "guest.not-reserved": with_guest({"promised": GIB}),
    "guest.hot-plugged": with_guest({"memory_files": (RAM_FILE, DIMM)}),
    "guest.not-understood": replace(GOOD, odd_guests=(OddGuest(name="odd", problem="It is odd"),)),
    "guest.promise-unknown": with_guest({"promised": WHY}),
    "guest.discard-flushes": replace(on_disk("xfs"), guests=with_guest(discard=True).guests),
    "guest.files-unknown": with_guest({"memory_files": WHY}),
    "ram.exceeded": with_guest(locked=True, max_memory=16 * GIB),
    "ram.anonymous": with_guest(files=(), max_memory=90 * GIB),
    "ram.tight": with_guest(locked=True, max_memory=14 * GIB),
    "ram.memory-unknown": replace(GOOD, meminfo=WHY),
    "ram.guests-unknown": with_guest({"process": None}),
    "ram.oomd": replace(GOOD, processes=(DAEMON, replace(DAEMON, service="systemd-oomd"))),
    "ram.oomd-unknown": replace(GOOD, processes=WHY),
    "ram.strict-overcommit": with_sysctl(overcommit_memory=2),
    "ram.overcommit-unknown": with_sysctl(overcommit_memory=WHY),
    "ram.slice-limit": replace(
        GOOD, machine_slice=Slice(name="machine.slice", memory_max=8 * GIB, swap_max=None)
    ),
    "ram.slice-swap": replace(
        GOOD, machine_slice=Slice(name="machine.slice", memory_max=None, swap_max=32 * GIB)
    ),
    "ram.slice-unknown": replace(GOOD, machine_slice=WHY),
    "ram.oom-kills": replace(GOOD, oom_kills=1),
    "ram.oom-kills-unknown": replace(GOOD, oom_kills=WHY),
    "ram.daemon-unprotected": replace(GOOD, daemon=replace(DAEMON, oom_score_adj=0)),
    "placement.no-store": reported(
        RAMSHELF_REPORTS, truth={"kind": None, "capacity_mib": 0, "guests": ()}, provider=None
    ),
    "numa.node-overbound": bound(5, locked=True),
    "numa.node-exceeded": bound(5),
    "numa.binding-ignored": replace(on_disk(), guests=bound(1, cells=True).guests),
    "numa.chosen-unknown": with_guest({"tuning": Tuning(chosen=True)}),
    "numa.zone-reclaim": replace(GOOD, numa=replace(NUMA, zone_reclaim=4)),
    "numa.unknown": replace(GOOD, numa=WHY),
    "placement.shrunk": reported(RAMSHELF_REPORTS, truth={"capacity_mib": 2047}),
    "placement.differs": reported(RAMSHELF_REPORTS, truth={"capacity_mib": 60 * 1024}),
    "placement.unallocated": reported(allocations={}),
    "placement.leftover": reported(RAMSHELF_REPORTS, truth={"guests": ()}),
    "placement.allocation-ratio": reported(inventory=OVERCOMMITTED),
    "placement.exceeds-store": reported(truth={"capacity_mib": 64 * 1024 - 1}),
    "placement.below-store": reported(truth={"capacity_mib": 80 * 1024}),
    "placement.overcommitted": reported(allocations={WEB.uuid: Allocation(64 * 1024 + 1, 1)}),
    "placement.no-provider": reported(provider=None),
    "placement.no-inventory": reported(inventory=None),
    "placement.no-trait": reported(traits=frozenset()),
    "placement.no-kind-trait": reported(traits=frozenset({TRAIT})),
    "placement.not-ours": reported(replace(NOVA_REPORTS, owner=True)),
    "placement.renamed": reported(former=(Former(uuid="f0", name="before"),)),
    "placement.in-the-way": reported(provider=RAMSHELF_REPORTS.observed.provider),
    **{
        f"placement.{what}": replace(
            GOOD, placement=ServiceError(f"placement.{what}", "It does not serve.")
        )
        for what in (
            *(
                "unreachable",
                "timeout",
                "unauthorized",
                "forbidden",
                "tls",
                "no-endpoint",
                "too-old",
            ),
            *("conflict", "consumer", "error", "database", "configuration", "not-installed"),
        )
    },
}
"""For each code but the good ones, the good host with what makes the doctor say it."""

WITHOUT_GOOD = {
    "versions.ok": BAD["versions.qemu-old"],
    "host.ok": BAD["host.kvm"],
    "config.ok": BAD["config.reserved"],
    "store.ok": BAD["store.overpromised"],
    "hook.ok": BAD["hook.outdated"],
    "guest.ok": BAD["guest.anonymous"],
    "ram.ok": BAD["ram.exceeded"],
    "numa.ok": replace(GOOD, numa=HostNuma(nodes=NUMA.nodes[:1])),
    "placement.ok": BAD["placement.exceeds-store"],
}
"""For each code that says that all is well, a host of which it must not be said."""


def codes(facts: Facts) -> set[str]:
    return {finding.code for finding in check(facts)}


def the(code: str, facts: Facts) -> Finding:
    return next(finding for finding in check(facts) if finding.code == code)


def test_every_code_of_the_table_is_tried() -> None:
    good = {code for code, rule in RULES.items() if rule.severity is Severity.OK}
    elsewhere = {code for code in RULES if code.startswith("upgrade.")}  # test_upgrade.py
    assert set(BAD) == set(RULES) - good - elsewhere
    assert set(WITHOUT_GOOD) == good - elsewhere


def test_on_a_good_host_there_is_nothing_but_good() -> None:
    assert codes(GOOD) == set(WITHOUT_GOOD)
    assert exit_status(check(GOOD)) == 0


@pytest.mark.parametrize("code", sorted(BAD))
def test_a_bad_fact_is_found(code: str) -> None:
    assert code in codes(BAD[code])


@pytest.mark.parametrize("code", sorted(BAD))
def test_root_is_not_told_to_look_again_as_root(code: str) -> None:
    hints = {finding.code: finding.hint for finding in check(replace(BAD[code], root=True))}
    assert "as root" not in hints[code]


@pytest.mark.parametrize("code", sorted(WITHOUT_GOOD))
def test_good_is_not_said_where_it_is_not(code: str) -> None:
    assert code not in codes(WITHOUT_GOOD[code])


def test_promises_from_before_an_upgrade_that_cannot_be_read_are_not_taken_for_none() -> None:
    assert "store.usage-unknown" in codes(with_store(earlier=WHY))


def test_guests_that_would_not_start_again_are_named_whether_they_run_or_not() -> None:
    web = replace(NOTE, promised=30 * GIB)
    stopped = replace(EARLIER, promised=40 * GIB)
    assert not isinstance(STORE.usage, Unknown)
    facts = with_store(usage=replace(STORE.usage, notes=(web,)), earlier=(stopped,))
    assert the("store.not-again", facts).facts["guests"] == ["before"]
    assert the("store.promised-before", facts).facts["guests"] == ["before"]
    assert the("store.overpromised", BAD["store.overpromised"]).facts["above_mib"] == 1024


@pytest.mark.parametrize("code", sorted(BAD))
def test_findings_keep_to_the_table(code: str) -> None:
    for finding in check(BAD[code]):
        rule = RULES[finding.code]
        assert finding.severity in {rule.severity, rule.milder}
        assert finding.group in GROUPS
        assert finding.sentence.endswith(".")
        assert ".." not in finding.sentence


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, kind in get_annotations(Facts).items()
        if "Unknown" in str(kind) and name != "sysctls"
    ),
)
def test_no_fact_is_passed_over_when_it_is_not_known(name: str) -> None:
    changes: dict[str, Any] = {name: WHY}
    findings = check(replace(GOOD, **changes))
    assert any(WHY.reason in finding.sentence for finding in findings)


def test_a_group_stays_together_in_the_order_of_the_table() -> None:
    groups = [finding.group for finding in check(GOOD)]
    assert groups == sorted(groups, key=list(GROUPS).index)


def test_switched_off_without_a_store_misses_neither_store_nor_hook() -> None:
    off = replace(
        without_store("store.root-file-system"),
        config=with_config(file_backed_memory_mib=0).config,
        hook=with_hook(installed=False).hook,
        guests=(),
    )
    assert {finding.code for finding in check(off) if finding.severity.exit_status} == {
        "config.off"
    }


def test_novas_rules_do_not_matter_without_nova() -> None:
    alone = with_config(
        nova_files=(), ram_allocation_ratio=None, reserved_host_memory_mib=512, settings={}
    )
    assert codes(alone) == codes(GOOD)


def test_kvm_is_only_missed_softly_where_nobody_asked_for_it() -> None:
    facts = replace(with_config(settings={}), kvm="there is no /dev/kvm")
    assert the("host.kvm", facts).severity is Severity.WARNING
    assert the("host.kvm", BAD["host.kvm"]).severity is Severity.FAILURE
    assert "host.ok" in codes(replace(facts, config=with_config(virt_type="qemu").config))


def test_a_user_who_may_not_speak_to_libvirt_is_only_warned() -> None:
    facts = replace(GOOD, hypervisor=Unknown("not for you", denied=True))
    assert the("versions.libvirt-unreachable", facts).severity is Severity.WARNING
    assert (
        the("versions.libvirt-unreachable", replace(GOOD, hypervisor=WHY)).severity
        is Severity.FAILURE
    )


def test_between_the_floors_file_backing_works_without_discard() -> None:
    assert {"versions.ok", "versions.no-discard"} <= codes(libvirt((4, 0, 0), (2, 6, 0)))
    assert "versions.no-discard" in codes(libvirt((9, 0, 0), (2, 9, 9)))
    assert "versions.no-discard" not in codes(libvirt((4, 4, 0), (2, 10, 0)))


@pytest.mark.parametrize(
    ("versions", "code"),
    [
        (((3, 10, 0), (2, 6, 0)), "versions.libvirt-old"),
        (((4, 0, 0), (2, 5, 1)), "versions.qemu-old"),
        (((4, 0, 0), (2, 6, 0)), None),
    ],
)
def test_below_the_floors_a_start_is_refused(
    versions: tuple[tuple[int, int, int], tuple[int, int, int]], code: str | None
) -> None:
    if code is None:
        require(*versions)
        return
    with pytest.raises(HostError) as refused:
        require(*versions)
    assert refused.value.code == code


def test_extents_that_lack_are_milder_than_a_promise_that_lacks() -> None:
    sparse = replace(RAM_FILE, allocated=GIB)
    facts = replace(on_disk("ext4"), guests=with_guest({"memory_files": (sparse,)}).guests)
    assert the("guest.not-reserved", facts).severity is Severity.WARNING
    assert the("guest.not-reserved", BAD["guest.not-reserved"]).severity is Severity.FAILURE


def test_what_a_guest_has_given_back_does_not_lack() -> None:
    sparse = replace(RAM_FILE, allocated=GIB)
    given = {"memory_files": (sparse,), "given": frozenset({sparse.inode})}
    assert "guest.not-reserved" not in codes(
        replace(on_disk("ext4"), guests=with_guest(given).guests)
    )


def test_a_backend_of_its_own_elsewhere_is_nobody_s_business() -> None:
    own = {
        "own": (
            OwnBackend(path="/dev/shm/own", size=GIB),
            OwnBackend(path=f"{MEMORY_DIR}-2/own", size=GIB),
        )
    }
    assert "guest.own-backend" not in codes(with_guest(own))


def test_memory_that_was_promised_may_be_hot_plugged() -> None:
    running = {"memory_files": (RAM_FILE, DIMM), "promised": 4 * GIB}
    assert "guest.hot-plugged" not in codes(
        with_guest(running, max_memory=4 * GIB, hotplug=2 * GIB)
    )


def test_a_guest_on_another_file_system_is_elsewhere() -> None:
    assert "guest.elsewhere" in codes(with_guest({"directory": "/srv/old/libvirt/qemu/3-web"}))


def test_a_guest_that_is_just_starting_is_not_called_elsewhere() -> None:
    found = codes(with_guest({"memory_files": (), "process": None}))
    assert "guest.files-unknown" in found
    assert "guest.elsewhere" not in found


def test_ext4_of_a_new_kernel_needs_no_flush() -> None:
    assert "store.punch-flushes" not in codes(on_disk("ext4"))
    assert "store.punch-flushes" in codes(replace(on_disk("ext4"), kernel=(6, 13, 12)))
    assert "store.punch-flushes" in codes(replace(on_disk("ext4"), kernel=WHY))


def test_dirty_bytes_count_as_their_share_of_ram() -> None:
    assert "store.dirty-throttling" in codes(
        replace(on_disk(), sysctls=with_sysctl(dirty_bytes=GIB, dirty_ratio=0).sysctls)
    )
    assert "store.dirty-throttling" not in codes(
        replace(on_disk(), sysctls=with_sysctl(dirty_bytes=8 * GIB, dirty_ratio=0).sysctls)
    )


def test_a_libvirt_whose_process_is_not_seen() -> None:
    unseen = replace(GOOD, daemon=None)
    assert "store.daemon-unknown" in codes(unseen)
    assert "store.daemon-unknown" not in codes(replace(unseen, hypervisor=WHY))  # it does not run


def test_json_has_stable_keys() -> None:
    printed = document(check(BAD["hook.outdated"]))
    assert set(printed) == {"findings", "summary"}
    findings = printed["findings"]
    assert isinstance(findings, list)
    assert set(findings[0]) == {"code", "severity", "group", "message", "hint", "facts"}
    assert printed["summary"] == {"ok": 9, "info": 0, "warning": 1, "failure": 0, "exit_status": 1}


def test_a_store_that_loses_what_is_written_is_not_called_well() -> None:
    assert "store.ok" in codes(on_disk("ext4", write_errors=WriteErrors()))
    assert "store.write-errors-unknown" not in codes(on_disk("ext4", write_errors=WriteErrors()))
    assert "store.write-errors-unknown" in codes(
        on_disk("ext4", write_errors=WriteErrors(cut=True))
    )
    assert "store.ok" not in codes(BAD["store.write-errors"])


def test_only_guests_that_are_named_and_were_there_have_lost_memory() -> None:
    elsewhere = replace(WRITE_ERRORS, inodes={99: 100.0})
    assert "store.memory-lost" not in codes(on_disk("ext4", write_errors=elsewhere))
    assert the("store.memory-lost", BAD["store.memory-lost"]).facts["guest"] == "web"


def test_a_few_failed_commands_are_normal() -> None:
    assert "store.device-errors" not in codes(with_device(errors=5, commands=1_000_000))


def test_strict_overcommit_hurts_a_disk_store_less() -> None:
    facts = replace(on_disk(), sysctls=with_sysctl(overcommit_memory=2).sysctls)
    assert the("ram.strict-overcommit", facts).severity is Severity.WARNING


def test_the_guests_own_swap_is_not_a_strangers() -> None:
    facts = replace(GOOD, processes=(DAEMON, replace(QEMU, swapped=GIB)))
    assert "store.swap-shared" not in codes(facts)


def test_the_ram_budget_adds_up() -> None:
    parts = the("ram.ok", GOOD).facts["parts"]
    assert parts == {
        "overhead_mib": 104,
        "page_tables_mib": 8,  # 2 GiB / 512, for QEMU and for KVM
        "pinned_mib": 0,
        "anonymous_mib": 0,
        "private_mib": 0,
        "huge_pages_mib": 0,
        "store_mib": 0,
        "records_mib": 9,  # 9 bytes for each page of the tmpfs, 8 for each that is out
        "host_mib": 1024,
    }


def test_an_anonymous_guest_counts_in_full_and_not_twice() -> None:
    facts = with_guest({"process": replace(QEMU, anonymous=2 * GIB + 190 * MIB)}, files=())
    assert isinstance(facts.store, StoreFacts)
    facts = replace(facts, store=replace(facts.store, swaps=()))
    parts = the("ram.ok", facts).facts["parts"]
    assert isinstance(parts, dict)
    assert (parts["anonymous_mib"], parts["overhead_mib"]) == (2048, 190)


def test_nothing_is_said_of_nodes_where_there_is_only_one() -> None:
    facts = replace(bound(5, locked=True), numa=HostNuma(nodes=NUMA.nodes[:1], zone_reclaim=4))
    assert not [finding for finding in check(facts) if finding.group == "numa"]


def of_nodes(facts: Facts) -> dict[str, tuple[str, object, object]]:
    """What is said of each set of nodes: the code, their MiB, and the MiB bound to them."""
    return {
        str(each.facts["nodes"]): (each.code, each.facts["ram_mib"], each.facts["bound_mib"])
        for each in check(facts)
        if each.group == "numa" and "nodes" in each.facts
    }


def test_a_node_without_enough_ram_does_not_hide_the_other() -> None:
    assert of_nodes(bound(5, locked=True)) == {
        "[0]": ("numa.ok", 4096, 0),
        "[1]": ("numa.node-overbound", 4096, 5120),
    }


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (bound(4, locked=True), "numa.ok"),
        (bound(5), "numa.node-exceeded"),
        (bound(5, files=()), "numa.node-exceeded"),
        (replace(bound(5, files=()), store=with_store(swaps=()).store), "numa.node-overbound"),
        (bound(5, files=(), hugepages=True, huge_bytes=5 * GIB), "numa.ok"),
        (replace(bound(5), store=on_disk().store), "numa.node-exceeded"),
        (bound(5, cells=True), "numa.node-exceeded"),
        (replace(bound(5, cells=True), store=on_disk().store), "numa.ok"),
        (replace(bound(5), store=of_kind(Kind.RAM).store), "numa.node-overbound"),
        (replace(bound(5), store=of_kind(Kind.DAX).store), "numa.ok"),
    ],
)
def test_what_a_node_must_hold(facts: Facts, code: str) -> None:
    """What is on pmem or in huge pages does not count, nor what mbind does not bind.

    What stays in RAM weighs more.
    """
    assert of_nodes(facts)["[1]"][0] == code


def test_two_of_four_nodes_hold_what_is_bound_to_either_or_both() -> None:
    nodes = tuple(HostNode(number=number, ram=4 * GIB, huge_pages=GIB) for number in range(4))
    sets = ({0}, {1}, {0, 1}, {2, 3}, {0, 1, 2, 3})
    parts = tuple(
        Part(name=f"ram-node{number}", size=5 * GIB // 2, threads=frozenset(each), asked=None)
        for number, each in enumerate(sets)
    )
    facts = replace(with_guest({"tuning": Tuning(parts=parts)}), numa=HostNuma(nodes=nodes))
    assert of_nodes(facts) == {
        "[0]": ("numa.ok", 3072, 2560),
        "[1]": ("numa.ok", 3072, 2560),
        "[0, 1]": ("numa.node-exceeded", 6144, 7680),
        "[2]": ("numa.ok", 3072, 0),
        "[3]": ("numa.ok", 3072, 0),
    }


def test_a_provider_of_ramshelfs_own_is_good_too() -> None:
    assert codes(reported(RAMSHELF_REPORTS)) == codes(GOOD)


def test_nothing_is_said_of_a_placement_that_is_not_used() -> None:
    assert codes(replace(GOOD, placement=None)) == codes(GOOD) - {"placement.ok"}


def test_an_overcommit_that_ramshelf_sets_back_is_a_warning() -> None:
    facts = reported(RAMSHELF_REPORTS, inventory=OVERCOMMITTED)
    assert the("placement.allocation-ratio", facts).severity is Severity.WARNING


def test_servers_that_are_stopped_keep_their_allocation_beside_nova() -> None:
    assert codes(reported(truth={"guests": ()})) == codes(GOOD)


def test_a_guest_that_is_being_started_is_no_leftover() -> None:
    starting = replace(RAMSHELF_REPORTS, starting=frozenset({WEB.uuid}))
    assert "placement.leftover" not in codes(reported(starting, truth={"guests": ()}))


def test_a_placement_that_does_not_serve_is_told_with_its_own_words() -> None:
    error = ServiceError("placement.timeout", "It sleeps.", hint="Wake it up.", facts={"status": 0})
    found = the("placement.timeout", replace(GOOD, placement=error))
    assert (found.sentence, found.hint, found.facts) == ("It sleeps.", "Wake it up.", {"status": 0})
