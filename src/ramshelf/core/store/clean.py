"""Which directories on the store belong to no guest.

This cannot take the directory of a guest that is just starting. libvirt gives a guest its id first,
then makes its directory, then calls the hook (which makes the memory files, under the store's
lock), then starts QEMU; its record in /run/libvirt/qemu appears after that. From the id on, libvirt
counts the guest as active. So:

1. The directories are listed.
2. Then libvirt is asked which guests are active. It answers about a guest that is being started
   only when that start lets go of it, or with its id. A directory of step 1 was made before, so its
   guest is in the answer, or has ended. No lock is held: the hook waits for the store's lock while
   libvirt waits for the hook.
3. Under the store's lock each candidate is looked at again. One that is not the directory of step 1
   any more (another inode, or changed: libvirt's chown, the hook's files) stays, and so does one
   with a file in use.

A directory made after step 1 is no candidate. libvirt gives an id again only after its restart.
Should a new guest get the very id and name of a stale directory between the look of step 3 and the
removal, its hook, which waits for the lock, finds no directory and refuses the start: no memory is
lost.

At boot libvirt does not run yet, so it starts no guest, and it is not asked: its records tell which
guests it will find again, as when it was only stopped.
"""

from collections.abc import Iterable

from ramshelf.core.store.directory import GuestDirectory, directory_names


def stale(
    found: Iterable[GuestDirectory], active: Iterable[tuple[int | None, str]]
) -> tuple[GuestDirectory, ...]:
    """Return the directories that belong to none of the ``active`` guests (id, name).

    ``active`` was asked for after ``found`` was made. A guest whose id is not known owns whatever
    has its name.
    """
    names: set[str] = set()
    endings: set[str] = set()
    for domain_id, guest in active:
        if domain_id is None:
            endings.update(name.partition("-")[2] for name in directory_names(0, guest))
        else:
            names.update(directory_names(domain_id, guest))
    return tuple(
        each
        for each in found
        if each.name not in names and each.name.partition("-")[2] not in endings
    )


def unchanged(before: GuestDirectory, now: GuestDirectory) -> bool:
    """Tell whether this is the directory that was judged, with nothing made or removed since."""
    return (now.device, now.inode, now.changed) == (before.device, before.inode, before.changed)
