"""The arena: the sparse file that holds every payload, mapped once per process.

Readers see it through a read-only mapping, so that nothing that came out of the store can be written to, by
any library. Writers of this package use a second, writable mapping, made when first needed and handed to
nobody.

Invariants: the file's length never changes after creation. A mapping is never closed while the process lives,
because views may use it. A hole is never read through a mapping: reading would back it with memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os

import pyarrow as pa

from flightstore.memory import kernel

__all__ = ["Arena", "BuilderRange", "create_arena"]

_POPULATE_BLOCK = 64 << 10
"""One byte per block tells whether it is mapped writable: 64 bytes for each MiB of capacity."""


def create_arena(path: str, arena_bytes: int, mode: int) -> None:
    """Create the arena's file with all its addresses and no memory."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask may have taken from it
        os.ftruncate(descriptor, arena_bytes)
    finally:
        os.close(descriptor)


class Arena:
    """The mapped arena of one store."""

    def __init__(self, path: str, arena_bytes: int) -> None:
        self.path = path
        self.arena_bytes = arena_bytes
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        pages = mmap.mmap(self._descriptor, arena_bytes, prot=mmap.PROT_READ)
        self._pages = pa.py_buffer(pages)
        self.address: int = self._pages.address
        """Address of the read-only mapping."""
        self._writable: list[mmap.mmap] = []
        self._write_address = 0
        self._populated = bytearray()

    @property
    def write_address(self) -> int:
        """Address of the writable mapping."""
        return self._write_address or self._map_writable()

    def _map_writable(self) -> int:
        """Map the arena writable. Threads that do so at the same moment agree on the first mapping; none is
        given up, because another thread may be copying into it already.
        """
        self._writable.append(mmap.mmap(self._descriptor, self.arena_bytes))
        if not self._populated:
            self._populated = bytearray(self.arena_bytes // _POPULATE_BLOCK + 1)
        self._write_address = ctypes.addressof(ctypes.c_char.from_buffer(self._writable[0]))
        return self._write_address

    def populate(self, offset: int, nbytes: int, within: range) -> None:
        """Map the pages of a reserved range into the writable mapping, those not mapped by an earlier call.

        Faulting pages in one by one costs more than the copy; asking for many at once does not.

        Args:
            offset: Where the range begins in the arena.
            nbytes: Its size.
            within: The whole extent; blocks at both ends of the range are mapped as far as they lie in it.
        """
        address = self.write_address
        low = max(offset // _POPULATE_BLOCK * _POPULATE_BLOCK, within.start)
        high = min(-(-(offset + nbytes) // _POPULATE_BLOCK) * _POPULATE_BLOCK, within.stop)
        first, last = low // _POPULATE_BLOCK, (high - 1) // _POPULATE_BLOCK
        while first <= last:
            begin = self._populated.find(0, first, last + 1)
            if begin < 0:
                return
            end = self._populated.find(1, begin, last + 1)
            first = last + 1 if end < 0 else end
            start, stop = max(begin * _POPULATE_BLOCK, low), min(first * _POPULATE_BLOCK, high)
            kernel.populate_write(address + start, stop - start)
            inner = range(-(-start // _POPULATE_BLOCK), stop // _POPULATE_BLOCK)
            self._populated[inner.start : inner.stop] = b"\1" * len(inner)

    def needs_populate(self, offset: int, nbytes: int) -> bool:
        """Whether part of the range was never populated through this mapping.

        Only the blocks that lie wholly inside tell. Those that a neighbour shares are never marked, and have
        too few pages to bother about: the copy faults in what is missing there.
        """
        _ = self.write_address
        first, end = -(-offset // _POPULATE_BLOCK), (offset + nbytes) // _POPULATE_BLOCK
        return first < end and self._populated.find(0, first, end) >= 0

    def readable(self, offset: int, nbytes: int) -> memoryview:
        """A range as it is mapped read-only. The caller sees to it that it stays what it is."""
        return memoryview((ctypes.c_char * nbytes).from_address(self.address + offset)).cast("B").toreadonly()

    def writable(self, offset: int, nbytes: int) -> memoryview:
        """A range as it is mapped writable, for nobody but this package."""
        return memoryview((ctypes.c_char * nbytes).from_address(self.write_address + offset)).cast("B")

    def reserve(self, offset: int, nbytes: int) -> None:
        """Back a range with memory; its contents are unspecified until written.

        Raises:
            OSError: the file system is full (ENOSPC): nothing was reserved.
        """
        os.posix_fallocate(self._descriptor, offset, nbytes)

    def punch(self, offset: int, nbytes: int) -> None:
        """Give the memory of a range back to the system. Whole pages only."""
        kernel.punch_hole(self._descriptor, offset, nbytes)
        if self._populated:
            first, last = offset // _POPULATE_BLOCK, (offset + nbytes - 1) // _POPULATE_BLOCK
            self._populated[first : last + 1] = bytes(last + 1 - first)

    def backed_bytes(self) -> int:
        """Bytes of memory behind the file, as the file system counts them."""
        return os.fstat(self._descriptor).st_blocks * 512

    def free_file_system_bytes(self) -> int:
        """Bytes that the file system can still give."""
        figures = os.fstatvfs(self._descriptor)
        return figures.f_bavail * figures.f_frsize

    def open_range(self, offset: int, nbytes: int, lease: object) -> BuilderRange:
        """A writable mapping of whole pages for an object that is built in place; its views keep `lease`."""
        return BuilderRange(self._descriptor, offset, nbytes, lease)

    def __del__(self) -> None:
        """Close the descriptor; the mappings stay for the views that use them.

        Not earlier: a thread that is still backing memory would act on another file of the same number.
        """
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._descriptor)


class _Pages(mmap.mmap):
    """A mapping that keeps the lease on what it maps: views of it keep the mapping, and so the lease."""

    lease: object = None


class BuilderRange:
    """The pages of one object being built, mapped writable by themselves.

    `freeze` puts a private mapping over them: a view forgotten by the builder can still be written to, but no
    write reaches the store. The writable mapping is not inherited over fork: a child could otherwise write to
    the object after it was sealed. A child gets the private mapping instead (`freeze` in the fork hook).
    """

    def __init__(self, descriptor: int, offset: int, nbytes: int, lease: object) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._mapped_bytes = kernel.round_up(nbytes, kernel.PAGE_BYTES)
        self._pages = _Pages(descriptor, self._mapped_bytes, offset=offset)
        self._pages.lease = lease
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self._frozen = False
        kernel.set_dont_fork(self._address, self._mapped_bytes)
        self.view = memoryview(self._pages)[:nbytes]
        """The object's bytes, writable."""

    def freeze(self) -> None:
        """Cut the mapping off from the store. Idempotent."""
        if not self._frozen:
            kernel.map_private_over(self._address, self._mapped_bytes, self._descriptor, self._offset)
            self._frozen = True
