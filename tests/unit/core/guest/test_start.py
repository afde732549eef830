"""core/guest/start: what starting a guest takes, and why it may not."""

from uuid import UUID

import pytest

from ramshelf.core.domain.backing import Support
from ramshelf.core.errors import HostError, RamshelfError, RefusedError
from ramshelf.core.files.mounts import Mount
from ramshelf.core.guest.start import Existing, StartFacts, plan_start, steps
from ramshelf.core.hook.status import HookStatus
from ramshelf.core.record import replace
from ramshelf.core.store.capacity import Capacity
from ramshelf.core.store.find import NoStore, Store
from ramshelf.core.store.holdings import Holding
from ramshelf.core.store.kind import Kind
from ramshelf.core.units import MIB

HOST_UUID = "b3d6a3c0-52e4-4a55-8a3c-6f6ad7c4b1f2"
UUID_ONE = "6f1c6d2e-6d0c-4f0b-8f4c-0d0f4a3b2c1d"
PLAIN = "<domain type='kvm'><name>web</name>{}<memory unit='MiB'>512</memory>{}</domain>"
FILE_BACKING = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"
DEVICE = "<devices><hostdev mode='subsystem' type='pci'/></devices>"


def store(fstype: str = "tmpfs") -> Store:
    mount = Mount(
        mount_id=1,
        parent_id=0,
        device=(0, 42),
        root="/",
        mount_point="/srv/store",
        options=(),
        fstype=fstype,
        source="x",
        super_options=(),
    )
    return Store(
        kind=Kind.SWAP if fstype == "tmpfs" else Kind.DISK,
        mount=mount,
        memory_dir="/srv/store",
        marked=True,
    )


HOOK = HookStatus(installed=True, current=True, executable=True, seen=True)
EXISTING = Existing(uuid=UUID_ONE, definition=PLAIN.format(f"<uuid>{UUID_ONE}</uuid>", ""))
GOOD = StartFacts(
    document=PLAIN.format("", "").encode(),
    existing=None,
    host_uuid=HOST_UUID,
    support=Support(libvirt=(9, 0, 0), qemu=(7, 2, 0), kernel=(6, 1, 0), fstype="tmpfs"),
    store=store(),
    capacity=Capacity(total=1024 * MIB, promised=256 * MIB, allocated=0, limit_reason="store"),
    holdings=(
        Holding(directory="/srv/store/1-db", guest="db", files=(), promised=192 * MIB),
        Holding(directory="/srv/store/9-old", guest=None, files=(), promised=64 * MIB),
    ),
    hook=HOOK,
    off=False,
)


def defined(facts: StartFacts) -> str:
    plan = plan_start(facts)
    assert plan.define is not None
    return plan.define


def test_a_file_s_guest_is_defined_with_the_same_uuid_each_time() -> None:
    plan = plan_start(GOOD)
    assert plan.previous is None
    assert plan.guest.promise == 512 * MIB
    assert UUID(plan.guest.uuid)
    assert plan_start(GOOD).guest.uuid == plan.guest.uuid
    elsewhere = replace(GOOD, host_uuid=UUID_ONE)
    assert plan_start(elsewhere).guest.uuid != plan.guest.uuid


def test_a_plan_is_shown_as_what_changes_and_never_with_secrets() -> None:
    definition = EXISTING.definition.replace(
        "</domain>",
        "\n  <devices>\n    <graphics type='vnc' passwd='secret'/>\n  </devices>\n</domain>",
    )
    facts = replace(GOOD, document=None, existing=replace(EXISTING, definition=definition))
    define, start = steps(facts, plan_start(facts))
    assert define.why == "Define web with file-backed memory"
    command, *change = define.lines()
    assert command == "virsh define /dev/stdin"
    assert '<source type="file"/>' in "".join(change)
    assert "secret" not in "".join(change)
    assert start.lines() == ("virsh start web",)


def test_a_definition_that_is_right_is_only_started() -> None:
    once = replace(EXISTING, definition=plan_start(replace(GOOD, existing=None)).define or "")
    facts = replace(GOOD, document=None, existing=once)
    assert [step.lines() for step in steps(facts, plan_start(facts))] == [("virsh start web",)]


def test_a_file_is_defined_as_it_is_where_file_backing_is_off() -> None:
    facts = replace(GOOD, off=True)
    define, _ = steps(facts, plan_start(facts))
    assert define.why == "Define web as it is"
    assert define.lines() == ("virsh define /dev/stdin",)


def test_a_file_s_own_uuid_stays() -> None:
    document = PLAIN.format(f"<uuid>{UUID_ONE}</uuid>", "").encode()
    assert plan_start(replace(GOOD, document=document)).guest.uuid == UUID_ONE


def test_a_file_replaces_the_guest_of_its_uuid_however_that_is_written() -> None:
    document = PLAIN.format(f"<uuid>{UUID_ONE.upper().replace('-', '')}</uuid>", "").encode()
    plan = plan_start(replace(GOOD, document=document, existing=EXISTING))
    assert plan.previous == EXISTING.definition


def test_a_file_does_not_replace_another_guest_of_its_name() -> None:
    with pytest.raises(RefusedError) as caught:
        plan_start(replace(GOOD, existing=EXISTING))
    assert caught.value.code == "guest.exists"


def test_a_known_guest_is_defined_anew_only_where_its_backing_changes() -> None:
    facts = replace(GOOD, document=None, existing=EXISTING)
    xml = defined(facts)
    assert '<source type="file"/>' in xml
    again = plan_start(replace(facts, existing=replace(EXISTING, definition=xml)))
    assert again.define is None


def test_between_the_floors_it_starts_without_discard() -> None:
    support = replace(GOOD.support, libvirt=(4, 3, 0))
    assert "<discard/>" in defined(GOOD)
    assert "<discard/>" not in defined(replace(GOOD, support=support))


def test_what_does_not_fit_names_who_holds_the_space() -> None:
    small = replace(
        GOOD, capacity=Capacity(total=700 * MIB, promised=256 * MIB, allocated=0, limit_reason="")
    )
    with pytest.raises(RefusedError) as caught:
        plan_start(small)
    assert caught.value.code == "capacity.exceeded"
    assert caught.value.facts["missing_mib"] == 68
    assert "Held by db 192 MiB, /srv/store/9-old 64 MiB." in caught.value.hint
    assert caught.value.facts["holders"] == [
        {"guest": "db", "directory": "/srv/store/1-db", "promised_mib": 192},
        {"guest": None, "directory": "/srv/store/9-old", "promised_mib": 64},
    ]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (replace(GOOD, support=replace(GOOD.support, libvirt=(3, 9, 0))), "versions.libvirt-old"),
        (replace(GOOD, support=replace(GOOD.support, qemu=(2, 5, 1))), "versions.qemu-old"),
        (replace(GOOD, hook=replace(HOOK, installed=False)), "hook.missing"),
        (replace(GOOD, hook=replace(HOOK, executable=False)), "hook.not-executable"),
        (replace(GOOD, hook=replace(HOOK, seen=False)), "hook.unseen"),
        (
            replace(
                GOOD,
                store=NoStore(code="store.not-mounted", sentence="No.", hint=""),
                capacity=None,
            ),
            "store.not-mounted",
        ),
    ],
)
def test_the_host_must_be_fit(facts: StartFacts, code: str) -> None:
    with pytest.raises(HostError) as caught:
        plan_start(facts)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("fstype", "kernel", "refused"),
    [("xfs", (6, 5, 0), True), ("xfs", (6, 4, 0), False), ("tmpfs", (6, 5, 0), False)],
)
def test_host_devices_cannot_pin_regular_files(
    fstype: str, kernel: tuple[int, int, int], *, refused: bool
) -> None:
    facts = replace(
        GOOD,
        document=PLAIN.format("", DEVICE).encode(),
        store=store(fstype),
        support=replace(GOOD.support, kernel=kernel),
    )
    try:
        plan_start(facts)
        code = None
    except RamshelfError as error:
        code = error.code
    assert code == ("guest.passthrough" if refused else None)


def test_a_saved_guest_comes_back_with_the_backing_that_it_had() -> None:
    saved = replace(EXISTING, saved=PLAIN.format("", ""))
    with pytest.raises(RefusedError) as caught:
        plan_start(replace(GOOD, document=None, existing=saved))
    assert caught.value.code == "guest.saved"
    on_the_store = replace(EXISTING, saved=PLAIN.format("", FILE_BACKING))
    assert plan_start(replace(GOOD, document=None, existing=on_the_store)).name == "web"


def test_a_saved_guest_with_a_private_mapping_is_told_of() -> None:
    private = PLAIN.format("", "<memoryBacking><source type='file'/></memoryBacking>")
    plan = plan_start(replace(GOOD, document=None, existing=replace(EXISTING, saved=private)))
    assert "guest.private" in {note.code for note in plan.notes}
    plan = plan_start(replace(GOOD, document=private.encode(), existing=None))
    assert "guest.private" not in {note.code for note in plan.notes}, "it gets shared access"


def test_off_needs_neither_store_nor_hook() -> None:
    off = replace(
        GOOD, off=True, store=NoStore(code="store.x", sentence="No.", hint=""), capacity=None
    )
    plan = plan_start(replace(off, hook=replace(HOOK, installed=False)))
    assert "memoryBacking" not in (plan.define or "")
    assert [note.code for note in plan.notes] == ["config.off"]
    assert plan_start(replace(off, document=None, existing=EXISTING)).define is None
