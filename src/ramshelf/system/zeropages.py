"""Pages of a tmpfs file that hold nothing but zeros, and could as well be holes."""

import mmap
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ramshelf.core.units import MIB
from ramshelf.system.pagecache import in_ram

_BLOCK = 2 * MIB
"""Bytes that are looked at together.

It takes well under a millisecond where all of it is zero.
"""

_ZEROS = bytes(_BLOCK)
_MARKED = re.compile(rb"\x01+")


class Extent(NamedTuple):
    """A range of a file in bytes, of whole pages."""

    offset: int
    length: int


def blocks(descriptor: int) -> Iterator[Extent]:
    """Yield the file in parts that ``zeros`` takes."""
    size = os.fstat(descriptor).st_size
    for offset in range(0, size, _BLOCK):
        yield Extent(offset, min(_BLOCK, size - offset))


def zeros(descriptor: int, block: Extent) -> tuple[int, list[Extent]]:
    """Return how many bytes of the block are in RAM, and the extents of them that are zero.

    Neither a hole nor a page that is swapped out is read: nothing is populated, nothing swapped in.
    A read that ends early, at a page that is broken or cannot be swapped in, tells nothing of what
    follows. Raises OSError.
    """
    examined, found = 0, []
    for present in _marked(in_ram(descriptor, *block), block.offset):
        content = os.pread(descriptor, present.length, present.offset)
        examined += len(content)
        # This is memcmp(3), without a copy.
        if len(content) == present.length and _ZEROS.startswith(content):
            found.append(present)
        else:
            whole = range(0, len(content) - mmap.PAGESIZE + 1, mmap.PAGESIZE)
            empty = bytes(_ZEROS.startswith(content[page : page + mmap.PAGESIZE]) for page in whole)
            found += _marked(empty, present.offset)
    return examined, found


def _marked(pages: bytes, offset: int) -> Iterator[Extent]:
    """Yield the runs of ones in ``pages``, which has a byte for each page from ``offset`` on."""
    for run in _MARKED.finditer(pages):
        first, end = run.span()
        yield Extent(offset + first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE)
