"""Guests: processes that read the store's memory without being its clients, because they live in another pid
namespace or may not write the store's files. Somebody who is a client holds references for them.

A guest has a client file of its own, so that its references outlive whoever holds them for it: the file is
not signed by any process, and its client lives as long as somebody has it locked. The lock is a shared one on
a descriptor that the host opened for reading and sends to the guest. So there are three endings:

- The guest ends: the host sees that its connection is closed, and removes the file with all references.
- The host dies, or is stopped: the file stays, and protects what the guest reads, until the guest ends too.
  Then the lock is free, and the file is any dead client's.
- Both die: the same.

While the host lives it holds each object itself as well. So no object goes from one file to the other, and
nobody who reads the files one after the other can miss it in both.
"""

from __future__ import annotations

import itertools
import threading
from io import FileIO

from flightstore.errors import StoreClosed
from flightstore.lifecycle.connection import Connection
from flightstore.memory.leases import Lease, LeaseTable
from flightstore.objects.base import Object

__all__ = ["Guest"]


class Guest:
    """One such process, and what it holds. Thread-safe."""

    def __init__(self, conn: Connection) -> None:
        self._file = file = conn.new_guest()
        assert file.shared is not None
        self.shared: FileIO = file.shared
        """What to send to the guest, which keeps it open for as long as it reads."""
        self._table = LeaseTable(lambda: file, conn.arena)
        self._held: dict[int, tuple[Object, Lease]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._ended = False

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, held: Object) -> int:
        """One more reference; returns its number.

        Raises:
            StoreClosed: the guest has ended.
        """
        with self._lock:
            if self._ended:
                raise StoreClosed("the guest has ended")
            number = next(self._numbers)
            self._held[number] = held, Lease(self._table, held._live.record.serial)
            return number

    def drop(self, number: int) -> None:
        """Give a reference back. Idempotent."""
        with self._lock:
            self._held.pop(number, None)

    def end(self) -> None:
        """The guest is gone: give everything back. Idempotent."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._file.discard()
                self._held.clear()

    def leave(self) -> None:
        """The host goes, and the guest may read on: what it holds stays written. Idempotent."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._table.freeze_for_good()
                self._file.close()
                self._held.clear()
