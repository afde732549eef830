"""How large the records of memory files' extents grow on a disk store: what its capacity must leave
free.

A reserved file has extents without contents. A page that is written on its own becomes an extent of
its own, and so do the unwritten pages on both sides of it: in the worst case each page of a file is
one. Nothing else of either file system grows. ext4's journal and inode tables and XFS's log are
taken by mkfs, and XFS's reserves (xfs_reserve_blocks, xfs_ag_resv_init, whose reverse map has room
for a record of each block) at the mount; statvfs counts them all as used.
"""

from __future__ import annotations

_PAGE = 4096
"""Bytes that a guest writes at least, where pages are smallest; a file system's block may be smaller.
"""

_XFS_HEADER, _XFS_RECORD = 72, 16
"""Bytes of XFS_BTREE_LBLOCK_CRC_LEN, and of a xfs_bmbt_rec or of a key with its pointer: 251 in 4 KiB.
"""

_EXT4_HEADER, _EXT4_RECORD = 12, 12
"""Bytes of ext4_extent_header, and of an ext4_extent or ext4_extent_idx: 340 in 4 KiB."""

_EXT4_FILL = 5
"""Of ext4's leaves one part in so many is filled, on average. There is no bound: ext4_ext_split cuts a
full leaf where the new extent goes and not in the middle, and leaves are never joined again. Of the
orders that were tried on Linux 6.18, every fourth page in one round of writing back and those
between them in the next takes most: 12.9 MiB for a GiB. A random order takes 11.2 in two rounds,
and 6 to 9 in more. A guest that works the tree out, and has a few of its pages written back at a
time, had 55 after 85 rounds, and can have more: what is beyond its share is named as
``store.beyond-promise``. XFS knows no such guest."""

_OTHER_SHARE = 64
"""What a file may occupy beyond its size elsewhere: a tmpfs rounds up to a huge page."""


def extents(file_system: str, size: int, *, block: int = 4096, cluster: int = 0) -> int:
    """Bytes that the records of memory files of ``size`` bytes together can take, each page an extent.

    XFS splits a full block in the middle, and fills its neighbours before that (__xfs_btree_split,
    xfs_btree_make_block_unfull), so each is half full whatever a guest does: 8.3 MiB for a GiB.
    What was seen is 5. ``block`` is the file system's, in bytes; ``cluster`` is what ext4 takes for
    each block of records where it gives out more than a block at a time (bigalloc:
    ext4_new_meta_blocks), else 0.
    """
    if file_system == "xfs":
        entries = (block - _XFS_HEADER) // _XFS_RECORD // 2
    elif file_system == "ext4":
        entries = (block - _EXT4_HEADER) // _EXT4_RECORD // _EXT4_FILL
    else:
        return size // _OTHER_SHARE
    nodes, level = 0, -(-size // max(_PAGE, block))
    while level > 1:
        level = -(-level // entries)
        nodes += level
    return nodes * max(block, cluster)
