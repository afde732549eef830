"""How large the records of memory files' extents grow on a disk store.

The store's capacity must leave that much free. A reserved file has extents without contents. A page
that is written on its own becomes an extent of its own, and so do the unwritten pages on both sides
of it: in the worst case each page of a file is one. Nothing else of either file system grows.
ext4's journal and inode tables and XFS's log are taken by mkfs, and XFS's reserves at the mount
(xfs_reserve_blocks, xfs_ag_resv_init, whose reverse map has room for a record of each block);
statvfs counts them all as used.
"""

from __future__ import annotations

_PAGE = 4096
"""The bytes that a guest writes at least, where pages are smallest.

A file system's block may be smaller.
"""

_XFS_HEADER, _XFS_RECORD = 72, 16
"""The bytes of XFS_BTREE_LBLOCK_CRC_LEN, and of a xfs_bmbt_rec or of a key with its pointer.

That makes 251 in 4 KiB.
"""

_EXT4_HEADER, _EXT4_RECORD = 12, 12
"""The bytes of ext4_extent_header, and of an ext4_extent or ext4_extent_idx: 340 in 4 KiB."""

_EXT4_FILL = 5
"""The part of ext4's leaves that is filled on average: one in so many.

There is no bound: ext4_ext_split cuts a full leaf where the new extent goes and not in the middle,
and leaves are never joined again. Of the orders that were tried on Linux 6.18, the one that takes
most is every fourth page in one round of writing back and those between them in the next: 12.9 MiB
for a GiB. A random order takes 11.2 in two rounds, and 6 to 9 in more. A guest that works out how
the tree grows, and has a few of its pages written back at a time, had 55 after 85 rounds, and can
have more: what is beyond its share is reported as ``store.beyond-promise``. On XFS no guest can do
that.
"""

_OTHER_SHARE = 64
"""The part that a file may occupy beyond its size on other file systems: one in so many.

A tmpfs rounds up to a huge page.
"""


def extents(file_system: str, size: int, *, block: int = 4096, cluster: int = 0) -> int:
    """Return the bytes that the extent records of memory files of ``size`` bytes together can take.

    Each page counts as an extent. XFS splits a full block in the middle, and fills its neighbours
    before that (__xfs_btree_split, xfs_btree_make_block_unfull), so each block is half full
    whatever a guest does: 8.3 MiB for a GiB. What was seen is 5. ``block`` is the size of the file
    system's blocks, in bytes. ``cluster`` is what ext4 takes for each block of records where it
    gives out more than a block at a time (bigalloc: ext4_new_meta_blocks), else 0.
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
