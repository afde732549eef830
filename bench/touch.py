"""A process that maps memory, fills it and reads it, as it is told on standard input.

    python touch.py anonymous|memfd|FILE MIB random|text

Each line of input is an order, ``fill`` or ``read``; each is answered by how many seconds it took.
"""

import mmap
import os
import sys
import time

_MIB = 1 << 20


def main() -> None:
    """Do what is ordered until the input ends."""
    where, size, content = sys.argv[1], int(sys.argv[2]) * _MIB, sys.argv[3]
    memory = _mapped(where, size)
    blocks = range(0, size, _MIB)
    for order in sys.stdin:
        start = time.perf_counter()
        for at in blocks:
            if order.strip() == "read":
                memory[at : at + _MIB]
            else:
                memory[at : at + _MIB] = os.urandom(_MIB) if content == "random" else _text(at)
        print(time.perf_counter() - start, flush=True)


def _mapped(where: str, size: int) -> mmap.mmap:
    if where == "anonymous":
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    file = (
        os.memfd_create("touch")
        if where == "memfd"
        else os.open(where, os.O_RDWR | os.O_CREAT, 0o600)
    )
    os.ftruncate(file, size)
    return mmap.mmap(file, size)


def _text(at: int) -> bytes:
    """Return a MiB in which no page is like another, and each compresses well."""
    line = b"page %012d is made of words that come again and again and compress well\n"
    pages = ((line % (at + page)) * 60 for page in range(0, _MIB, mmap.PAGESIZE))
    return b"".join(page[: mmap.PAGESIZE].ljust(mmap.PAGESIZE) for page in pages)


if __name__ == "__main__":
    main()
