"""Private memory for what was fetched: at the beginning of a page, written once, read-only for its users.

Fresh pages are dear: a virtual machine may take seconds to find a gigabyte. So memory that was given back is
kept for the next object, up to KEPT_BYTES, and marked as free (MADV_FREE): the kernel takes it when it needs
it, and until then it is as quick as any memory. A region is given back when the last buffer of it is gone; a
finalizer does that, so it takes no lock.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import deque

import pyarrow as pa

__all__ = ["KEPT_BYTES", "private_memory", "writable_memory"]

KEPT_BYTES = 4 << 30
"""More than this is not kept; nor more than an eighth of the machine's memory."""
_MAPPED_BYTES = 1 << 20
_EMPTY = pa.py_buffer(b"")
_MADV_POPULATE_WRITE = 23
"""All pages at once: twice as fast as faults while a socket is read."""

_kept: deque[mmap.mmap] = deque()
"""Regions that nobody uses, the latest last. Appending and popping are atomic."""


class _Region:
    """A mapping in use; buffers of it have this as their base."""

    __slots__ = ("__weakref__", "_pages")

    def __init__(self, pages: mmap.mmap) -> None:
        self._pages = pages

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be on its way out
            self._pages.madvise(mmap.MADV_FREE)
            _kept.append(self._pages)
            while sum([len(pages) for pages in list(_kept)]) > _most_kept():
                _kept.popleft()


def private_memory(nbytes: int) -> tuple[memoryview, pa.Buffer]:
    """(where to write, the buffer to hand out).

    Raises:
        MemoryError: there is none.
    """
    if nbytes == 0:
        return memoryview(bytearray()), _EMPTY
    if nbytes < _MAPPED_BYTES:
        raw = pa.allocate_buffer(nbytes)
        return memoryview(raw).cast("B"), pa.foreign_buffer(raw.address, nbytes, raw)
    pages = _kept_pages(nbytes)
    if pages is None:
        pages = _pages(nbytes)
        with contextlib.suppress(OSError):  # an old kernel gives them one by one, as they are written
            pages.madvise(_MADV_POPULATE_WRITE)
    address = pa.py_buffer(pages).address
    return memoryview(pages)[:nbytes], pa.foreign_buffer(address, nbytes, _Region(pages))


def writable_memory(nbytes: int) -> memoryview:
    """Zeros to be written to, at the beginning of a page.

    Raises:
        MemoryError: there is none.
    """
    return memoryview(_pages(nbytes))[:nbytes]


def _kept_pages(nbytes: int) -> mmap.mmap | None:
    """A region that fits and is not twice as large."""
    for _ in range(len(_kept)):
        try:
            pages = _kept.pop()
        except IndexError:  # another thread was faster
            return None
        if nbytes <= len(pages) <= 2 * nbytes:
            return pages
        _kept.appendleft(pages)
    return None


def _most_kept() -> int:
    return min(KEPT_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


def _pages(nbytes: int) -> mmap.mmap:
    try:
        pages = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there is no memory for an object of {nbytes:,} bytes") from error
    pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
