"""How much of a file is in RAM, found out without faulting any of it in."""

import ctypes
import errno
import mmap
import os
import sys

from ramshelf.core.store.directory import FileUsage
from ramshelf.core.units import GIB
from ramshelf.system.storetree import open_memory

_CACHESTAT = 451
"""The number of the system call cachestat, the same on every architecture (Linux 6.5)."""

_WINDOW = GIB
"""The bytes that mincore(2) looks at at a time; its answer has one byte a page."""

_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_longlong,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


class _Range(ctypes.Structure):
    """The kernel's struct cachestat_range; ``len`` 0 means up to the end of the file."""

    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Statistics(ctypes.Structure):
    """The kernel's struct cachestat; all its figures are pages."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("nr_cache", "nr_dirty", "nr_writeback", "nr_evicted", "nr_recently_evicted")
    )


_UNKNOWN = frozenset({errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})

_AT_EMPTY_PATH = 0x1000
_ATTRIBUTES = slice(8, 16)
"""Where stx_attributes is in the kernel's struct statx, which has 256 bytes."""

_ATTRIBUTE_DAX = 0x200000
"""STATX_ATTR_DAX: the file has no pages in RAM (Linux 5.8)."""


def dirty(file: FileUsage) -> int | None:
    """Return the bytes of the file that are in the page cache only, or None where it is not known.

    What is on its way to the device does not count. A tmpfs counts no dirty pages. Raises OSError
    as ``resident`` does.
    """
    descriptor = open_memory(file)
    try:
        return int(_cachestat(descriptor).nr_dirty) * mmap.PAGESIZE
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return None
    finally:
        os.close(descriptor)


def resident(file: FileUsage) -> int:
    """Return the bytes of the file that are in RAM.

    They are in the page cache, or tmpfs pages that are not swapped out. Raises OSError where the
    file cannot be opened. The kernel tells it only to those who may write to the file.
    """
    descriptor = open_memory(file)
    try:
        try:
            pages = int(_cachestat(descriptor).nr_cache)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            size = os.fstat(descriptor).st_size
            windows = ((offset, min(_WINDOW, size - offset)) for offset in range(0, size, _WINDOW))
            pages = sum(_mincore(descriptor, *window).count(1) for window in windows)
    finally:
        os.close(descriptor)
    return pages * mmap.PAGESIZE


def _cachestat(descriptor: int, offset: int = 0, length: int = 0) -> _Statistics:
    """Return the pages in RAM of the file or a range of it, by cachestat(2).

    Raises OSError; EPERM also where a sandbox does not have the call. EOPNOTSUPP for a file on
    persistent memory, of which it must not be asked: Linux 6.12 takes the entries of such a file
    (fs/dax.c) for shadows of evicted pages and dies of it (filemap_cachestat,
    workingset_test_recent).
    """
    if _is_dax(descriptor):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return _ask(descriptor, offset, length)


def _ask(descriptor: int, offset: int, length: int) -> _Statistics:
    statistics = _Statistics()
    wanted = _Range(offset, length)
    arguments = (ctypes.byref(wanted), ctypes.byref(statistics), ctypes.c_uint(0))
    if _libc.syscall(ctypes.c_long(_CACHESTAT), ctypes.c_int(descriptor), *arguments):
        raise _last_error()
    return statistics


def _is_dax(descriptor: int) -> bool:
    """Tell whether a file is used directly on persistent memory, by statx(2). Raises OSError."""
    status = ctypes.create_string_buffer(256)
    if _libc.statx(descriptor, b"", _AT_EMPTY_PATH, 0, status):
        raise _last_error()
    return bool(int.from_bytes(status.raw[_ATTRIBUTES], sys.byteorder) & _ATTRIBUTE_DAX)


def in_ram(descriptor: int, offset: int, length: int) -> bytes:
    """Return a byte for each page of this range of a file: 1 where it is in RAM, else 0.

    This asks mincore(2) about a mapping that is never touched; ``offset`` is a multiple of the
    page's size. For mincore(2) a tmpfs page that is on swap but still in the swap cache is in RAM;
    where cachestat(2) can tell, it is not. Raises OSError.
    """
    pages = _mincore(descriptor, offset, length)
    try:
        if pages.count(1) != _cachestat(descriptor, offset, length).nr_cache:
            starts = range(offset, offset + length, mmap.PAGESIZE)
            pages = bytes(_ask(descriptor, start, mmap.PAGESIZE).nr_cache for start in starts)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    return pages


def _mincore(descriptor: int, offset: int, length: int) -> bytes:
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset)
    if address == _MAP_FAILED:
        raise _last_error()
    try:
        answer = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        if _libc.mincore(address, length, answer):
            raise _last_error()
    finally:
        _libc.munmap(address, length)
    return answer.raw.translate(_LOWEST_BIT)


_LOWEST_BIT = bytes(value & 1 for value in range(256))
"""A table that keeps the lowest bit of each byte: mincore(2) defines no other."""


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
