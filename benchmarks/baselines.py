"""What the machine can do without us: memcpy by one and two threads, and the floors of writing fresh memory.

Copies are ctypes.memmove calls (which run without the GIL), each thread copying its whole part in one call:
libc switches to non-temporal stores for large calls, so this is the fastest form there is.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MADV_POPULATE_WRITE = 23
MAX_WRITE_BYTES = 1 << 30
"""A pwrite call writes at most 2 GiB less a page."""

Buffer = Any
"""A NumPy array of uint8."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_memmove = ctypes.CDLL(None).memmove
_memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memmove.restype = None


class Memcpy:
    """Copies the bytes of a source into warm memory with one or two threads.

    With several slots each copy goes to the next one, as puts go to memory of their own: a single small
    destination would stay in the processor's cache.
    """

    def __init__(
        self, source: Buffer, *, slots: int = 1, destination: Buffer | None = None, calls: int = 1
    ) -> None:
        """Copy `source` into `destination`, by default anonymous memory for `slots` copies, touched here.

        Each thread makes `calls` calls of memmove: the C library takes a faster path for very large ones.
        """
        self._calls = calls
        self.source, self.size_bytes = source, source.nbytes
        self._slots = slots
        self._keep = (source, np.ones(source.nbytes * slots, "u1") if destination is None else destination)
        self._from, self._to = (array.ctypes.data for array in self._keep)
        self._target = self._to
        self._half = self.size_bytes // 2
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._running = True
        self._helper = threading.Thread(target=self._help, daemon=True)
        self._helper.start()

    def one(self, number: int = 0) -> None:
        """Copy everything on this thread, into slot `number` (modulo the slots)."""
        _memmove(self._to + number % self._slots * self.size_bytes, self._from, self.size_bytes)

    def two(self, number: int = 0) -> None:
        """Copy one half on this thread, the other on a helper that is waiting for it."""
        self._target = self._to + number % self._slots * self.size_bytes
        self._go.release()
        self._move(0, self._half)
        self._done.acquire()

    def _move(self, start: int, end: int) -> None:
        step = -(-(end - start) // self._calls)
        for at in range(start, end, step):
            _memmove(self._target + at, self._from + at, min(step, end - at))

    def close(self) -> None:
        """End the helper thread."""
        self._running = False
        self._go.release()
        self._helper.join()

    def __enter__(self) -> Memcpy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _help(self) -> None:
        while True:
            self._go.acquire()
            if not self._running:
                return
            self._move(self._half, self.size_bytes)
            self._done.release()


def in_parts(work: Callable[[int, int], None], size_bytes: int, threads: int) -> None:
    """Call `work(start, stop)` for page-aligned parts of a range, each on its own thread."""
    step = -(-size_bytes // threads // mmap.PAGESIZE) * mmap.PAGESIZE
    with ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(work, at, min(at + step, size_bytes)) for at in range(0, size_bytes, step)]
    for part in parts:
        part.result()


@contextmanager
def fresh_file(path: Path) -> Iterator[int]:
    """A descriptor of an empty file, unlinked and closed at the end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
    finally:
        os.unlink(path)
        os.close(descriptor)


def write_file(descriptor: int, source: Buffer, threads: int) -> None:
    """Fill a file by pwrite."""
    view = memoryview(source)

    def write(start: int, stop: int) -> None:
        while start < stop:
            start += os.pwrite(descriptor, view[start : min(stop, start + MAX_WRITE_BYTES)], start)

    in_parts(write, source.nbytes, threads)


def map_and_copy(descriptor: int, source: Buffer, threads: int) -> Buffer:
    """Reserve a file, populate a mapping of it, and copy into that; returns the mapping as an array."""
    os.posix_fallocate(descriptor, 0, source.nbytes)
    target = np.frombuffer(mmap.mmap(descriptor, source.nbytes), dtype=np.uint8)
    to, origin = target.ctypes.data, source.ctypes.data

    def copy(start: int, stop: int) -> None:
        if _libc.madvise(to + start, stop - start, MADV_POPULATE_WRITE):
            raise OSError(ctypes.get_errno(), "madvise(MADV_POPULATE_WRITE)")
        _memmove(to + start, origin + start, stop - start)

    in_parts(copy, source.nbytes, threads)
    return target
