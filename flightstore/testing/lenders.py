"""Memory to borrow from, for tests: a file on a memory file system in which the buffers of values lie."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from flightstore.types import Loan

__all__ = ["Lender"]


class Lender:
    """A file that values are moved into, as other stores keep them: their buffers one after the other."""

    def __init__(self, path: str | None = None, capacity_bytes: int = 16 << 20) -> None:
        """`path`: where the file is to be; without one it has no name, and goes with this process."""
        descriptor = os.memfd_create("lender") if path is None else os.open(path, os.O_RDWR | os.O_CREAT)
        self.path = path or f"/proc/{os.getpid()}/fd/{descriptor}"
        os.posix_fallocate(descriptor, 0, capacity_bytes)
        self._map = mmap.mmap(descriptor, capacity_bytes)
        if path is not None:
            os.close(descriptor)
        self._whole = pa.py_buffer(self._map)
        self._end = 4096 + 64  # not where the file begins, so that offsets count
        self.capacity_bytes = capacity_bytes

    def moved(self, value: Any) -> Any:
        """The value with its buffers in the file, read-only."""
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return pickle.loads(head, buffers=[self._placed(buffer.raw()) for buffer in buffers])

    def _placed(self, data: memoryview) -> pa.Buffer:
        at = self._end
        self._end = (at + data.nbytes + 63) & -64
        if self._end > self.capacity_bytes:
            raise MemoryError(f"{self.path} is full")
        self._map[at : at + data.nbytes] = data
        return pa.foreign_buffer(self._whole.address + at, data.nbytes, self._whole)

    def loan(self, keepers: Iterable[int] = (), *, checked: bool = False) -> Loan:
        """All of the file but its first page."""
        address = self._whole.address + 4096
        return Loan(self.path, 4096, self.capacity_bytes - 4096, address, tuple(keepers), checked)

    def reuse(self) -> None:
        """Do what an owner does that forgot its promise: write something else there."""
        self._map[4096:] = b"\xff" * (self.capacity_bytes - 4096)

    def rewind(self) -> None:
        """Use the file from the beginning again; what was moved there is over."""
        self._end = 4096 + 64
