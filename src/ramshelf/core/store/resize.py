"""The plan that makes a store larger while guests run on it, and what an unfinished one leaves.

fstab is written last: what it says of the store's size was done. For a further swap file it is
written first, too, so that the file has an owner from its first block on.
"""

from collections.abc import Iterator, Mapping

from ramshelf.core.errors import HostError, RamshelfError, RefusedError, UsageError
from ramshelf.core.files.fstab import AREA_OPTION, Entry, OwnEntries
from ramshelf.core.plan import Action, AllocateFile, EditFile, RemoveFile, Run, WriteFile
from ramshelf.core.record import replace
from ramshelf.core.store.boot import LOOP_UNIT_PATH, loop_unit
from ramshelf.core.store.facts import AreaFile, BlockDevice, Seen
from ramshelf.core.store.find import BEYOND_SWAP_OPTION
from ramshelf.core.store.layout import (
    FSTAB,
    MadeStore,
    area_mark,
    area_uuid,
    find_claim,
    needed_swap,
    signed,
    swap_entry,
    with_size,
)
from ramshelf.core.store.plan import LONG, make_swap, reload, together, use_swap
from ramshelf.core.store.refusals import (
    exceeds_memory,
    no_room,
    store_mount,
    thin,
    too_small,
)
from ramshelf.core.units import KIB, MIB, align_up, format_size, parse_size, to_mib

_XFS_BLOCK = 4096
"""The bytes of a block of XFS, as mkfs.xfs makes it by default."""

_GROWERS = {"ext4": "resize2fs", "xfs": "xfs_growfs"}
"""The programs that make a mounted file system larger."""


def plan_resize(size: int | None, seen: Seen) -> tuple[Action, ...]:
    """Return the actions that make the store as large as ``size``; none where it is.

    ``size`` is in bytes and counts as for create: the device's or file's part, or the tmpfs of kind
    ram. None means all of a device. ``seen.area`` is the store's device or file, ``seen.size`` what
    its file system has. Raises the reason not to do it, with further ones among its facts.
    """
    claim = find_claim(seen.files.get(FSTAB, ""))
    if claim is None or (claim.size is None and not _of_ram(claim)):
        raise RefusedError(
            "store.not-made",
            "There is no store here that 'ramshelf store create' made.",
            hint=(
                "Grow what you made with its own tools (lvextend, xfs_growfs, resize2fs, mount -o "
                "remount); ramshelf goes by what the file system says."
            ),
        )
    _can_grow(claim)
    if store_mount(seen, claim) is None:
        raise HostError(
            "store.not-mounted",
            f"The store at {claim.mount_point} is not mounted.",
            hint=f"Mount it: mount {claim.mount_point}. Then run the same command again.",
        )
    wanted = _wanted(size, seen, claim)
    undone: tuple[Action, ...] = ()
    if claim.kind.swaps and wanted < (claim.size or 0):
        undone, seen, claim = _take_back(seen, claim)
    refused = tuple(_refusals(wanted, seen, claim))
    if refused:
        raise together(refused)
    if claim.kind.swaps:
        return (*undone, *_grow_swap(wanted, seen, claim, changed=bool(undone)))
    if claim.kind.tmpfs:
        return (*_remount(wanted, seen, claim), *_write(seen, claim, _sized(claim, wanted)))
    return _grow_disk(wanted, seen, claim)


def unfinished(claim: MadeStore, *, size: int, file_size: int, page_size: int) -> int:
    """Return the bytes with which a resize is to be run again that was cut off; 0 where none was.

    ``size`` is what the mounted file system has, ``file_size`` what the store's file has, 0 where
    it lies in none. A store that somebody has grown by hand looks the same, and is put right alike.
    """
    made = claim.size or 0
    if claim.kind.swaps:
        if claim.entries[-1].option(BEYOND_SWAP_OPTION) is not None:
            return 0
        return made if size < _held(claim, page_size) else 0
    there = size if claim.kind.tmpfs else max(size, file_size)
    # A device need not end with a whole MiB, and nothing can be had beyond its end.
    on_device = not (claim.file or claim.kind.tmpfs)
    there = there // MIB * MIB if on_device else align_up(there, MIB)
    return there if made and there > made else 0


def _of_ram(claim: MadeStore) -> bool:
    """Tell whether it is a tmpfs alone; fstab may say its size as a share of RAM then."""
    return claim.kind.tmpfs and not claim.kind.swaps


def next_swap_file(claim: MadeStore) -> str:
    """Return the path of the swap file that the next resize adds."""
    return f"{claim.file}.{len(claim.further) + 1}"


def _can_grow(claim: MadeStore) -> None:
    """Raise RefusedError ``store.no-resize`` where the store cannot grow while it is in use.

    The kernel reads the size of a swap area when it is switched on (sys_swapon), never again.
    """
    reason = ""
    if claim.kind.swaps and not claim.file:
        reason = "a swap area on a device cannot grow while it is in use"
    elif claim.entries[-1].option(BEYOND_SWAP_OPTION) is not None:
        reason = "it was made larger than its swap (--tmpfs-size)"
    if reason:
        raise RefusedError(
            "store.no-resize",
            f"The store at {claim.mount_point} cannot be resized: {reason}.",
            hint=(
                "Stop its guests; then: ramshelf store remove, and ramshelf store create --kind "
                "swap with the new size."
            ),
        )


def _wanted(size: int | None, seen: Seen, claim: MadeStore) -> int:
    if size is not None:
        return size // MIB * MIB
    if isinstance(seen.area, BlockDevice):
        return seen.area.size // MIB * MIB
    raise UsageError(
        "store.usage",
        f"A store {'in a file' if claim.file else 'of kind ram'} needs --size.",
        hint="Say how large it is to be: --size 64G.",
    )


def _refusals(wanted: int, seen: Seen, claim: MadeStore) -> Iterator[RamshelfError]:
    present = _present(seen, claim)
    if wanted < present:
        yield RefusedError(
            "store.shrink",
            f"The store has {format_size(present)} already, and {format_size(wanted)} would be "
            "less: a store in use is never made smaller.",
            hint=(
                "To make a smaller one stop its guests; then: ramshelf store remove, and ramshelf "
                "store create --size."
            ),
            facts={"present_mib": to_mib(present), "size_mib": to_mib(wanted)},
        )
        return
    tools = {_GROWERS[claim.file_system]} if claim.file_system in _GROWERS else set()
    if missing := seen.missing_tools & tools:
        yield HostError(
            "store.tool-missing",
            f"The store needs programs that are not installed: {', '.join(sorted(missing))}.",
            hint="Packages: e2fsprogs, xfsprogs.",
        )
    room = "Name a smaller --size, or make room there."
    if claim.kind.swaps:
        for path, size in _further(wanted, claim).items():
            if path not in claim.further and seen.further[path].exists:
                yield RefusedError(
                    "store.file-exists",
                    f"{path} exists already.",
                    hint="The store's further swap would be this file: remove it.",
                    facts={"file": path},
                )
            yield from no_room(seen.further[path], size, hint=room)
            yield from thin(path, seen.further[path].below)
    elif isinstance(seen.area, AreaFile):
        yield from no_room(seen.area, wanted, hint=room)
        yield from thin(seen.area.path, seen.area.below)
    elif isinstance(seen.area, BlockDevice):
        if seen.area.size < wanted:
            grow = "Grow the device first, such as with lvextend; then run the same command again."
            yield too_small(seen.area, wanted, hint=grow)
        yield from thin(seen.area.path, seen.area.below)
    else:
        yield from exceeds_memory(seen, wanted)


def _present(seen: Seen, claim: MadeStore) -> int:
    """Return the bytes that the store has at least, whoever gave it them."""
    made = claim.size or 0
    if claim.kind.swaps:  # each area has a page that holds nothing
        return max(made, (seen.size + (1 + len(claim.further)) * seen.page_size) // MIB * MIB)
    if claim.kind.tmpfs:
        return max(made, seen.size)
    loop = seen.area.loop if isinstance(seen.area, AreaFile) else None
    return max(made, seen.size // MIB * MIB, loop.size if loop else 0)


def _grow_disk(wanted: int, seen: Seen, claim: MadeStore) -> tuple[Action, ...]:
    """Return the actions for ext4 and xfs.

    One that is that large already is left alone: xfs_growfs makes a file system smaller, too.
    """
    actions: list[Action] = []
    area = seen.area
    if isinstance(area, AreaFile):
        actions += _grow_file(wanted, area)
    if area is not None and wanted != claim.size and wanted > seen.size // MIB * MIB:
        device = area.loop.path if isinstance(area, AreaFile) and area.loop else area.path
        argv = (
            ("resize2fs", device, f"{wanted // KIB}K")
            if claim.file_system == "ext4"
            else ("xfs_growfs", "-D", str(wanted // _XFS_BLOCK), claim.mount_point)
        )
        actions.append(Run(why="Grow the file system", argv=argv, timeout=LONG))
    text = loop_unit(claim.file, wanted) if claim.file else None
    before = seen.files.get(LOOP_UNIT_PATH)
    unit = (
        (WriteFile(why="Attach all of it at boot", path=LOOP_UNIT_PATH, text=text, before=before),)
        if text is not None and text != before
        else ()
    )
    return (*actions, *unit, *_write(seen, claim, _sized(claim, wanted), changed=bool(unit)))


def _grow_file(wanted: int, file: AreaFile) -> Iterator[Action]:
    """Yield what gives the file and its loop device this size.

    A file is cut where an interrupted resize wanted more: its loop device has never shown that.
    """
    if file.size > wanted:
        yield Run(
            why="Give back what an interrupted resize allocated",
            argv=("truncate", "--size", str(wanted), file.path),
        )
    if file.size < wanted or file.allocated < wanted:
        yield _allocate(file, wanted)
    if file.loop and file.loop.size != wanted:
        yield Run(
            why="Let the loop device see all of the file",
            argv=("losetup", "--set-capacity", file.loop.path),
        )


def _allocate(file: AreaFile, size: int) -> AllocateFile:
    return AllocateFile(
        why="Allocate every block of the file",
        path=file.path,
        size=size,
        no_copy_on_write=file.file_system == "btrfs",
    )


def _take_back(seen: Seen, claim: MadeStore) -> tuple[tuple[Action, ...], Seen, MadeStore]:
    """Return the actions that give up swap files which no resize came to use, and what is left.

    A resize claims them before anything can fail; the tmpfs grows once they are in use.
    """
    unused = [path for path in claim.further if path not in seen.swaps]
    edit = OwnEntries(entries=tuple(each for each in claim.entries if each.spec not in unused))
    before = seen.files.get(FSTAB)
    forget = EditFile(why="Claim them no more", path=FSTAB, edit=edit, before=before)
    rest = find_claim(forget.text)
    if not unused or rest is None or seen.size > _held(rest, seen.page_size):
        return (), seen, claim
    files = {path: seen.further[path] for path in unused}
    actions: list[Action] = [
        RemoveFile(why="Remove what no resize came to use", path=path)
        for path, file in files.items()
        if file.exists
    ]
    gone = {
        path: replace(
            file, exists=False, size=0, allocated=0, signatures=(), free=file.free + file.allocated
        )
        for path, file in files.items()
    }
    seen = replace(seen, files={**seen.files, FSTAB: forget.text}, further={**seen.further, **gone})
    return (*actions, forget), seen, rest


def _held(claim: MadeStore, page_size: int) -> int:
    """Return what a tmpfs may have over its swap, in bytes: each area's first page is a header."""
    return (claim.size or 0) - (1 + len(claim.further)) * page_size


def _grow_swap(wanted: int, seen: Seen, claim: MadeStore, *, changed: bool) -> tuple[Action, ...]:
    """Return the actions that put another swap file beside those that are in use."""
    *areas, store = claim.entries
    further = _further(wanted, claim)
    areas += [swap_entry(path, size) for path, size in further.items() if path not in claim.further]
    actions: list[Action] = []
    if (*areas, store) != claim.entries:
        edit = OwnEntries(entries=(*areas, store))
        before = seen.files.get(FSTAB)
        claimed = EditFile(why="Claim the further swap file", path=FSTAB, edit=edit, before=before)
        actions.append(claimed)
        seen = replace(seen, files={**seen.files, FSTAB: claimed.text})
    for path, size in further.items():
        file, identity = seen.further[path], area_uuid(claim.kind, seen, path, size)
        if path in seen.swaps:
            continue
        if file.size < size or file.allocated < size:
            actions.append(_allocate(file, size))
        if not signed(file, identity):
            actions.append(make_swap(path, identity, size))
        actions.append(use_swap(path, areas[0].option("pri") or ""))
    tmpfs = wanted - len(areas) * seen.page_size
    needed = [needed_swap(path) for path in further]
    options = (*(each for each in needed if each not in store.options), *store.options)
    made = replace(store, options=with_size(options, tmpfs))
    return (
        *actions,
        *_remount(tmpfs, seen, claim),
        *_write(seen, claim, (*areas, made), changed=changed),
    )


def _further(wanted: int, claim: MadeStore) -> Mapping[str, int]:
    """Return the swap files beside the first, those that are there and the new one, with sizes."""
    files = {
        entry.spec: parse_size(entry.option(AREA_OPTION) or "")
        for entry in claim.entries
        if entry.spec in claim.further
    }
    more = wanted - (claim.size or 0)
    return {**files, next_swap_file(claim): more} if more > 0 else files


def _remount(size: int, seen: Seen, claim: MadeStore) -> tuple[Action, ...]:
    if size == seen.size:
        return ()
    options = f"remount,size={size // KIB}k"
    argv = ("mount", "--options", options, claim.mount_point)
    return (Run(why="Give the mounted store the new size", argv=argv),)


def _sized(claim: MadeStore, size: int) -> tuple[Entry, ...]:
    """Return the entries of a store of this size that has one entry."""
    return tuple(
        replace(
            entry,
            options=(
                with_size(entry.options, size)
                if claim.kind.tmpfs
                else tuple(
                    area_mark(size) if option.startswith(f"{AREA_OPTION}=") else option
                    for option in entry.options
                )
            ),
        )
        for entry in claim.entries
    )


def _write(
    seen: Seen, claim: MadeStore, entries: tuple[Entry, ...], *, changed: bool = False
) -> tuple[Action, ...]:
    """Write fstab's entries, if they are others, and have systemd read what was changed."""
    if entries == claim.entries:
        return reload(seen, needed=changed)
    edit = OwnEntries(entries=entries)
    before = seen.files.get(FSTAB)
    write = EditFile(why="Write down the new size", path=FSTAB, edit=edit, before=before)
    return (write, *reload(seen, needed=True))
