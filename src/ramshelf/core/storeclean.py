"""Which directories on the store belong to no guest.

Why this cannot take a guest that is just starting. libvirt gives a guest its id first, then makes its
directory, then calls the hook (which makes the memory files, under the store's lock), then starts QEMU; its
record in /run/libvirt/qemu appears after that. From the id on, libvirt counts the guest as active. So:

1. The directories are listed.
2. Then libvirt is asked which guests are active. It answers about a guest that is being started only when
   that start lets go of it, or with its id. A directory of 1 was made before, so its guest is in the answer,
   or has ended. No lock is held: the hook waits for the store's lock while libvirt waits for the hook.
3. Under the store's lock each candidate is looked at again. One that is not the directory of 1 any more
   (another inode, or changed: libvirt's chown, the hook's files) stays, and so does one with a file in use.

A directory made after 1 is no candidate. libvirt gives an id again only after its restart; should a new guest
get the very id and name of a stale directory between 3's look and the removal, its hook, which waits for the
lock, finds no directory and refuses the start: no memory is lost.

At boot libvirt does not run yet, so it starts no guest, and it is not asked: its records tell which guests it
will find again, as when it was only stopped.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ramshelf.core.guest import directory_names

GUEST_DIRECTORY = re.compile(r"\d+-.+", re.DOTALL)
"""``ID-NAME``; anything else, such as lost+found, is not libvirt's."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A directory below a memory backing directory.

    ``identity`` is its device and inode, ``changed`` its ctime in ns; ``promised`` and ``allocated`` are the
    bytes of its files, 0 before they are looked at. ``holders`` are the processes that have a file of it open
    or mapped.
    """

    path: str
    identity: tuple[int, int]
    changed: int
    promised: int = 0
    allocated: int = 0
    holders: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


def stale(listed: Iterable[Listed], active: Iterable[tuple[int, str]]) -> tuple[Listed, ...]:
    """Those that belong to none of the ``active`` guests (id, name) and that nobody uses.

    ``active`` was asked for after ``listed`` was made.
    """
    owned = {name for domain_id, guest in active for name in directory_names(domain_id, guest)}
    return tuple(each for each in listed if each.name not in owned and not each.holders)


def still_stale(before: Listed, now: Listed | None) -> bool:
    """Whether a directory is the one that was judged, unchanged and unused. ``now`` None: it is gone."""
    return (
        now is not None
        and (now.identity, now.changed) == (before.identity, before.changed)
        and not now.holders
    )
