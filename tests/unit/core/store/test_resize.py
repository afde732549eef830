"""The plans that make a store larger, for hosts that cannot be had here."""

import pytest

from ramshelf.core.errors import RamshelfError
from ramshelf.core.files.fstab import OwnEntries, parse_fstab
from ramshelf.core.files.mounts import Mount
from ramshelf.core.files.qemuconf import memory_directory
from ramshelf.core.plan import Action, AllocateFile, EditFile, RemoveFile, Run
from ramshelf.core.record import replace
from ramshelf.core.store.facts import AreaFile, BlockDevice, Seen, Signature, Spec, checked
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.layout import FSTAB, find_claim, lay_out
from ramshelf.core.store.plan import plan_create, plan_remove
from ramshelf.core.store.resize import plan_resize, unfinished
from ramshelf.core.units import GIB, MIB

PAGE = 4096
DEFAULT = memory_directory({})
SWAP = Spec(kind=Kind.SWAP, size=64 * GIB, file="/srv/area")
AREA = AreaFile(
    path="/srv/area",
    exists=True,
    size=64 * GIB,
    allocated=64 * GIB,
    file_system="ext4",
    file_system_size=1024 * GIB,
    free=512 * GIB,
)
NEW = replace(AREA, path="/srv/area.1", exists=False, size=0, allocated=0)
NVME = BlockDevice(path="/dev/nvme1n1", number=(259, 1), size=128 * GIB)


def mount(fstype: str, device: tuple[int, int] = (0, 50)) -> Mount:
    return Mount(
        mount_id=9,
        parent_id=1,
        device=device,
        root="/",
        mount_point=DEFAULT.path,
        options=("rw",),
        fstype=fstype,
        source="x",
        super_options=(),
    )


def made(wish: Spec, area: AreaFile | BlockDevice | None = AREA, **others: object) -> Seen:
    """A host with this store, mounted."""
    wish = checked(wish)
    seen = Seen(directory=DEFAULT, area=area, memory=128 * GIB)
    fstab = OwnEntries(entries=lay_out(wish, seen, None).entries)("# fstab\n")
    facts: dict[str, object] = {
        "files": {FSTAB: fstab},
        "mounts": (mount("tmpfs"),),
        "swaps": ("/srv/area",),
        "size": (wish.size or 0) - PAGE,
        "further": {"/srv/area.1": NEW, "/srv/area.2": replace(NEW, path="/srv/area.2")},
    }
    return replace(seen, **{**facts, **others})  # type: ignore[arg-type]


def lines(actions: tuple[Action, ...]) -> list[str]:
    """The plan in short: its commands, and which file is allocated, edited or removed."""
    return [
        action.lines()[0]
        if isinstance(action, Run)
        else f"{type(action).__name__} {getattr(action, 'path', '')}"
        for action in actions
    ]


def after(seen: Seen, actions: tuple[Action, ...]) -> str:
    """What fstab has after these actions."""
    text = seen.files[FSTAB]
    for action in actions:
        if isinstance(action, EditFile):
            text = action.changed(text) or ""
    return text


def code(size: int | None, seen: Seen) -> str:
    with pytest.raises(RamshelfError) as raised:
        plan_resize(size, seen)
    return raised.value.code


def test_swap_in_a_file_gets_a_further_file() -> None:
    seen = made(SWAP)
    actions = plan_resize(80 * GIB, seen)
    uuid = next(line for line in lines(actions) if "mkswap" in line).split()[3]
    assert lines(actions) == [
        "EditFile /etc/fstab",
        "AllocateFile /srv/area.1",
        f"mkswap --quiet --uuid {uuid} /srv/area.1 {16 * GIB // 1024}",
        "swapon --priority 100 /srv/area.1",
        f"mount --options remount,size={80 * GIB // 1024 - 8}k {DEFAULT.path}",
        "EditFile /etc/fstab",
    ]
    first, second, store = [entry for entry in parse_fstab(after(seen, actions)) if entry.own]
    assert (first.spec, first.option("x-ramshelf.area")) == ("/srv/area", f"{64 << 10}M")
    assert (second.spec, second.option("x-ramshelf.area")) == ("/srv/area.1", f"{16 << 10}M")
    assert store.option("size") == f"{80 * GIB // 1024 - 8}k"
    needed = [option for option in store.options if option.startswith("x-systemd.requires=")]
    assert needed == ["x-systemd.requires=srv-area.1.swap", "x-systemd.requires=srv-area.swap"]


def test_the_mount_needs_the_further_file_only_once_it_is_used() -> None:
    """A boot after the plan was cut off has the store as it was."""
    seen = made(SWAP)
    [claimed] = plan_resize(80 * GIB, seen)[:1]
    before, store = (
        [entry for entry in parse_fstab(text) if entry.fstype == "tmpfs"]
        for text in (seen.files[FSTAB], after(seen, (claimed,)))
    )
    assert store == before


def test_an_interrupted_swap_resize_goes_on_and_ends() -> None:
    seen = made(SWAP)
    actions = plan_resize(80 * GIB, seen)
    text = after(seen, actions[:1])
    uuid = next(line for line in lines(actions) if "mkswap" in line).split()[3]
    seen = replace(seen, files={FSTAB: text})
    assert lines(plan_resize(80 * GIB, seen)) == lines(actions)[1:]
    full = replace(NEW, exists=True, size=16 * GIB, allocated=16 * GIB)
    seen = replace(seen, further={**seen.further, "/srv/area.1": full})
    assert lines(plan_resize(80 * GIB, seen)) == lines(actions)[2:]
    signed = replace(full, signatures=(Signature(type="swap", uuid=uuid),))
    seen = replace(seen, further={**seen.further, "/srv/area.1": signed})
    assert lines(plan_resize(80 * GIB, seen)) == lines(actions)[3:]
    seen = replace(seen, swaps=(*seen.swaps, "/srv/area.1"))
    assert lines(plan_resize(80 * GIB, seen)) == lines(actions)[4:]
    seen = replace(seen, size=80 * GIB - 2 * PAGE)
    assert lines(plan_resize(80 * GIB, seen)) == lines(actions)[5:]
    seen = replace(seen, files={FSTAB: after(seen, plan_resize(80 * GIB, seen))})
    assert plan_resize(80 * GIB, seen) == ()


def twice_resized() -> Seen:
    seen = made(SWAP)
    for size in (80 * GIB, 96 * GIB):
        seen = replace(seen, files={FSTAB: after(seen, plan_resize(size, seen))})
    return seen


def test_a_second_resize_adds_a_second_file_and_remove_takes_all_of_them() -> None:
    seen = twice_resized()
    claim = find_claim(seen.files[FSTAB])
    assert claim is not None
    assert (claim.file, claim.further) == ("/srv/area", ("/srv/area.1", "/srv/area.2"))
    assert claim.size == 96 * GIB
    there = {path: replace(file, exists=True) for path, file in seen.further.items()}
    seen = replace(seen, further=there, swaps=("/srv/area", *there))
    removal = plan_remove(seen)
    assert [line for line in lines(removal) if line.startswith("swapoff")] == [
        "swapoff /srv/area",
        "swapoff /srv/area.1",
        "swapoff /srv/area.2",
    ]
    gone = [action.path for action in removal if isinstance(action, RemoveFile)]
    assert {"/srv/area", "/srv/area.1", "/srv/area.2"} <= set(gone)
    assert parse_fstab(after(seen, removal)) == ()


def test_create_takes_a_resized_swap_store_for_the_same_with_its_size_of_now() -> None:
    """So its units can be made anew, as after an upgrade; nothing else passes for it."""
    seen = twice_resized()
    sized = checked(replace(SWAP, size=96 * GIB))
    claim = find_claim(seen.files[FSTAB])
    assert claim is not None
    layout = lay_out(sized, seen, claim)
    assert (layout.entries, layout.size) == (claim.entries, 64 * GIB)
    for other in (SWAP, replace(SWAP, size=80 * GIB), replace(sized, file="/srv/other")):
        with pytest.raises(RamshelfError) as raised:
            plan_create(checked(other), seen)
        assert raised.value.code == "store.exists"


@pytest.mark.parametrize("size", [64 * GIB, 72 * GIB])
def test_a_swap_resize_that_cannot_be_finished_can_be_taken_back(size: int) -> None:
    """Where there is no room for all of the file, as it was begun."""
    seen = made(SWAP)
    text = after(seen, plan_resize(80 * GIB, seen)[:1])
    begun = replace(NEW, exists=True, size=4 * GIB, allocated=4 * GIB)
    seen = replace(seen, files={FSTAB: text}, further={**seen.further, "/srv/area.1": begun})
    actions = plan_resize(size, seen)
    assert lines(actions)[:2] == ["RemoveFile /srv/area.1", "EditFile /etc/fstab"]
    claim = find_claim(after(seen, actions))
    assert claim is not None
    assert claim.size == size
    assert len(claim.further) == (size > 64 * GIB)
    assert code(63 * GIB, seen) == "store.shrink"
    used = replace(seen, swaps=(*seen.swaps, "/srv/area.1"))
    assert code(size, used) == "store.shrink"
    grown = replace(seen, size=80 * GIB - 2 * PAGE)  # its swap file is off for another reason
    assert code(size, grown) == "store.shrink"


def test_what_cannot_grow_says_what_to_do() -> None:
    on_device = made(replace(SWAP, file=None, device="/dev/nvme1n1"), NVME)
    assert code(128 * GIB, on_device) == code(None, on_device) == "store.no-resize"
    assert code(128 * GIB, made(replace(SWAP, tmpfs_size=100 * GIB))) == "store.no-resize"
    taken = {"/srv/area.1": replace(NEW, exists=True)}
    assert code(80 * GIB, made(SWAP, further=taken)) == "store.file-exists"
    full = {"/srv/area.1": replace(NEW, free=16 * GIB)}
    assert code(80 * GIB, made(SWAP, further=full)) == "store.no-room"
    assert code(63 * GIB, made(SWAP)) == "store.shrink"
    assert code(80 * GIB, made(SWAP, mounts=())) == "store.not-mounted"
    assert code(80 * GIB, made(SWAP, mounts=(mount("ext4"),))) == "store.not-mounted"
    assert code(80 * GIB, made(SWAP, files={FSTAB: "# fstab\n"})) == "store.not-made"


def test_a_file_grows_below_its_loop_device_and_fstab_comes_last() -> None:
    wish = Spec(kind=Kind.DISK, size=64 * GIB, file="/srv/area", file_system="ext4")
    loop = BlockDevice(path="/dev/loop3", number=(7, 3), size=64 * GIB)
    seen = made(wish, replace(AREA, loop=loop), mounts=(mount("ext4", (7, 3)),), systemd=True)
    actions = plan_resize(80 * GIB, seen)
    assert lines(actions) == [
        "AllocateFile /srv/area",
        "losetup --set-capacity /dev/loop3",
        f"resize2fs /dev/loop3 {80 * GIB // 1024}K",
        "WriteFile /etc/systemd/system/ramshelf-store.service",
        "EditFile /etc/fstab",
        "systemctl daemon-reload",
    ]
    [allocate] = [action for action in actions if isinstance(action, AllocateFile)]
    assert allocate.size == 80 * GIB
    assert code(80 * GIB, replace(seen, missing_tools=frozenset({"resize2fs"}))) == (
        "store.tool-missing"
    )


def test_what_the_loop_device_has_shown_is_never_cut_off() -> None:
    wish = Spec(kind=Kind.DISK, size=64 * GIB, file="/srv/area", file_system="ext4")
    loop = BlockDevice(path="/dev/loop3", number=(7, 3), size=64 * GIB)
    area = replace(AREA, size=72 * GIB, allocated=72 * GIB, loop=loop)
    seen = made(wish, area, mounts=(mount("ext4", (7, 3)),))
    assert lines(plan_resize(64 * GIB, seen))[0] == f"truncate --size {64 * GIB} /srv/area"
    shown = replace(area, loop=replace(loop, size=72 * GIB))
    assert code(70 * GIB, replace(seen, area=shown)) == "store.shrink"


@pytest.mark.parametrize("kind", [Kind.DISK, Kind.DAX])
def test_a_device_that_has_grown_is_used_whole(kind: Kind) -> None:
    wish = Spec(kind=kind, size=64 * GIB, device="/dev/nvme1n1", file_system="xfs")
    seen = made(wish, NVME, mounts=(mount("xfs", NVME.number),))
    assert lines(plan_resize(None, seen)) == [
        f"xfs_growfs -D {128 * GIB // 4096} {DEFAULT.path}",
        "EditFile /etc/fstab",
    ]
    assert code(129 * GIB, seen) == "store.device-too-small"


def test_a_file_system_that_has_the_size_is_left_alone() -> None:
    """It is what a resize that was cut off leaves, or somebody who has grown it by hand."""
    wish = Spec(kind=Kind.DISK, size=64 * GIB, device="/dev/nvme1n1", file_system="xfs")
    seen = made(wish, NVME, mounts=(mount("xfs", NVME.number),), size=96 * GIB + 4096)
    assert lines(plan_resize(96 * GIB, seen)) == ["EditFile /etc/fstab"]
    assert code(95 * GIB, seen) == "store.shrink"


def test_a_tmpfs_that_somebody_has_made_larger_than_its_swap_is_not_made_smaller() -> None:
    assert code(80 * GIB, made(SWAP, size=96 * GIB)) == "store.shrink"
    assert code(64 * GIB, made(SWAP, size=96 * GIB)) == "store.shrink"
    assert f"remount,size={112 * GIB // 1024 - 8}k" in str(
        lines(plan_resize(112 * GIB, made(SWAP, size=96 * GIB)))
    )


def test_fstab_keeps_what_others_have_in_it() -> None:
    wish = Spec(kind=Kind.RAM, size=64 * GIB)
    seen = made(wish, None, size=64 * GIB)
    theirs = "UUID=1 / ext4 defaults 0 1\n"
    seen = replace(seen, files={FSTAB: theirs + seen.files[FSTAB].replace("nofail", "nofail,huge")})
    text = after(seen, plan_resize(80 * GIB, seen))
    assert text.startswith(theirs)
    assert f"size={80 * GIB // 1024}k" in text
    assert "nofail,huge" in text
    share = text.replace(f"size={80 * GIB // 1024}k", "size=50%")
    seen = replace(seen, files={FSTAB: share})
    assert f"size={80 * GIB // 1024}k" in after(seen, plan_resize(80 * GIB, seen))
    assert code(63 * GIB, seen) == "store.shrink"


def test_an_unfinished_resize_is_known() -> None:
    def left(seen: Seen, size: int, file_size: int = 0) -> int:
        claim = find_claim(seen.files[FSTAB])
        assert claim is not None
        return unfinished(claim, size=size, file_size=file_size, page_size=PAGE)

    disk = made(Spec(kind=Kind.DISK, size=64 * GIB, file="/srv/area", file_system="ext4"))
    assert left(disk, 63 * GIB, 64 * GIB) == 0
    assert left(disk, 63 * GIB, 70 * GIB) == 70 * GIB
    assert left(disk, 70 * GIB - 1, 64 * GIB) == 70 * GIB
    device = made(Spec(kind=Kind.DISK, size=64 * GIB, device="/dev/nvme1n1"), NVME)
    assert (left(device, 64 * GIB + 1), left(device, 70 * GIB + 1)) == (0, 70 * GIB)
    ram = made(Spec(kind=Kind.RAM, size=64 * GIB), None)
    assert (left(ram, 64 * GIB), left(ram, 70 * GIB)) == (0, 70 * GIB)
    swap = made(SWAP)
    assert left(swap, 64 * GIB - PAGE, 64 * GIB) == 0
    claimed = replace(swap, files={FSTAB: after(swap, plan_resize(80 * GIB, swap)[:1])})
    assert left(claimed, 64 * GIB - PAGE, 64 * GIB) == 80 * GIB
    assert left(made(replace(SWAP, tmpfs_size=100 * GIB)), 90 * GIB, 64 * GIB) == 0
    assert left(replace(ram, files={FSTAB: ram.files[FSTAB].replace("k,", "%,")}), MIB) == 0
