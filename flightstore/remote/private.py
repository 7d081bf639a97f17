"""Private memory for what was fetched: at a multiple of 64, written once, read-only for its users."""

from __future__ import annotations

import contextlib
import mmap

import pyarrow as pa

__all__ = ["private_memory", "writable_memory"]

_MAPPED_BYTES = 1 << 20
_MADV_POPULATE_WRITE = 23
"""All pages at once: twice as fast as faults while a socket is read."""
_EMPTY = pa.py_buffer(b"")


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
    pages = _pages(nbytes)
    with contextlib.suppress(OSError):  # an old kernel gives them one by one, as they are written
        pages.madvise(_MADV_POPULATE_WRITE)
    view = memoryview(pages)[:nbytes]
    return view, pa.py_buffer(view.toreadonly())


def writable_memory(nbytes: int) -> memoryview:
    """Zeros to be written to, at the beginning of a page.

    Raises:
        MemoryError: there is none.
    """
    return memoryview(_pages(nbytes))[:nbytes]


def _pages(nbytes: int) -> mmap.mmap:
    try:
        pages = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there is no memory for an object of {nbytes:,} bytes") from error
    pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
