"""Leases: which objects this process uses, written where every other process can read it.

Each client process has one file in ``clients/``, locked (flock) while the process lives. Behind a header page
it is an array of 8-byte entries; an entry that holds an object's serial number is one reference on that
object. The kernel drops the lock however the process dies, so references survive nothing they should not.

Taking a lease: build the Lease, pop a free entry, store the serial in it, **then** look in the catalog
whether the object is still there (`lifecycle.reading` does that); if not, drop the lease and look again.
Whoever frees memory first commits the delete, then issues a memory barrier on all clients, then reads all
entries. So either the reader's entry is seen, or the reader's second look no longer finds the object.

Giving back is two steps, store zero and append the index to a deque. Both are atomic in CPython, so it may
run inside a finalizer, on any thread, in the middle of anything. It never touches the catalog.

Fork. The child needs leases of its own on everything it inherited views of. Before the fork the parent (1)
*freezes* its table: leases given back stay written for the moment; (2) makes a client file for the child with
a copy of all entries. Meanwhile no other thread can finish a get (the catalog's gate is shut), so every view
that the child inherits is in the copy. After the fork the parent *thaws* once it holds the writers' lock, not
earlier. Memory is only freed by a holder of that lock, who lists the client files and then reads them: one
that listed before the child's file was there still sees the parent's entries, and one that starts later sees
the child's. So the fork itself waits for no other process.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from io import FileIO

from flightstore.errors import FlightStoreError, StoreFull
from flightstore.memory import kernel

__all__ = ["CLIENT_HEADER", "ClientFile", "Lease", "LeaseTable", "new_client_file"]

CLIENT_MAGIC = b"FSCLIENT"
CLIENT_VERSION = 1
CLIENT_HEADER = struct.Struct("<8sIIQQQ")  # magic, version, pid, start time, client id, created (ns)
_PID_AT = 12
HEADER_WORDS = 512  # one page; entries begin behind it
HIGH_WATER_WORD = 8  # how many entries were ever used: readers look no further
MAX_ENTRIES = 1 << 24
FILE_BYTES = 8 * (HEADER_WORDS + MAX_ENTRIES)  # sparse: addresses, not memory
_FIRST_ENTRIES = 512
_NOBODY = 0


class ClientFile:
    """An open, locked client file, mapped writable."""

    def __init__(self, path: str, client: int, descriptor: int) -> None:
        self.path = path
        self.client = client
        self.descriptor = descriptor
        self.words = memoryview(mmap.mmap(descriptor, FILE_BYTES)).cast("Q")
        self.reserved_entries = 0
        self.shared: FileIO | None = None
        """See `share`."""

    def reserve(self, entries: int) -> None:
        """Back entries with memory, so that storing into them cannot fail.

        Raises:
            OSError: the file system is full.
        """
        os.posix_fallocate(self.descriptor, 0, 8 * (HEADER_WORDS + entries))
        self.reserved_entries = entries

    def sign(self) -> None:
        """Write the calling process into the header."""
        start = kernel.process_start(os.getpid()) or 0
        header = CLIENT_HEADER.pack(CLIENT_MAGIC, CLIENT_VERSION, 0, start, self.client, time.time_ns())
        raw = self.words.cast("B")
        raw[: len(header)] = header
        raw[_PID_AT : _PID_AT + 4] = struct.pack("<I", os.getpid())  # last: a pid stands with its start time

    def share(self) -> None:
        """Instead of signing: let another process live for this file, in whatever pid namespace it is.

        Its client lives as long as anybody has `shared` open, which is locked; that descriptor can be sent
        to the other process. It cannot be written through. Only before `publish`: for a moment there is no
        lock.
        """
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        self.shared = FileIO(self.path)
        fcntl.flock(self.shared, fcntl.LOCK_SH)

    def publish(self, path: str) -> None:
        """Move the finished file to where others look for it."""
        os.rename(self.path, path)
        self.path = path

    def discard(self) -> None:
        """Remove the file: its client is gone, or never was."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Close the descriptor; the mapping stays for leases that are still out.

        The lock goes with the later of the two: Python's mmap keeps a copy of the descriptor.
        """
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1
        if self.shared is not None:
            self.shared.close()


def new_client_file(store_path: str, mode: int, entries: int = _FIRST_ENTRIES) -> ClientFile:
    """Make a client file under a temporary name: allocated and locked, but not yet seen by anybody.

    Raises:
        OSError: the file system is full.
    """
    client = int.from_bytes(os.urandom(8), "little") >> 1 or 1
    path = os.path.join(store_path, "new", f"{client:016x}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.fchmod(descriptor, mode)  # the umask may have taken from it
        os.ftruncate(descriptor, FILE_BYTES)
        file = ClientFile(path, client, descriptor)
        file.reserve(max(entries, _FIRST_ENTRIES))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # before it was locked, a recovery may have removed it
            os.unlink(path)
        os.close(descriptor)
        raise
    return file


class LeaseTable:
    """The entries of this process's client file; the file is made by `register` when it is first needed."""

    def __init__(self, register: Callable[[], ClientFile], keepalive: object) -> None:
        self._register = register
        self._pid = os.getpid()
        self._file: ClientFile | None = None
        self._words = memoryview(bytearray(8 * HEADER_WORDS)).cast("Q")
        self._free: deque[int] = deque()
        self._growing = threading.Lock()
        self._frozen = False
        self._stay_frozen = False
        self._given_back_late: deque[int] = deque()
        self._keepalive = keepalive  # the arena stays mapped as long as a lease is out

    @property
    def file(self) -> ClientFile:
        """This process's client file."""
        return self._file if self._file is not None else self._open()

    @property
    def has_file(self) -> bool:
        """Whether the file was made."""
        return self._file is not None

    def _open(self) -> ClientFile:
        with self._growing:
            if self._file is None:
                file = self._register()
                self._words = file.words
                self._file = file
            return self._file

    @property
    def high_water(self) -> int:
        """How many entries were ever in use."""
        return self._words[HIGH_WATER_WORD]

    @property
    def in_use(self) -> int:
        """How many entries are out at this moment."""
        return self.high_water - len(self._free) - len(self._given_back_late)

    def take(self, lease: Lease, serial: int) -> None:
        """Give `lease` an entry that holds `serial`."""
        try:
            index = self._free.pop()
        except IndexError:
            index = self._extend()
        lease.index = index
        self._words[index] = serial

    def give_back(self, index: int) -> None:
        """Clear an entry. For finalizers: takes no lock, calls nothing that could fail."""
        if self._frozen:
            self._given_back_late.append(index)
        elif self._pid == os.getpid():  # a child forked by C code, without our hooks, shares this memory
            self._words[index] = _NOBODY
            self._free.append(index)

    def stay(self) -> Lease:
        """A lease on nothing: it keeps the client file, and so what is recorded as this client's."""
        return Lease(self, _NOBODY)

    def _extend(self) -> int:
        """Use one more entry, reserving memory for as many again when the reserve is used up."""
        file = self.file
        with self._growing:
            used = self.high_water
            if used >= file.reserved_entries:
                if used >= MAX_ENTRIES:
                    raise FlightStoreError(
                        f"this process holds {used:,} references, the most there can be",
                        hint="release objects that are no longer used",
                    )
                self._reserve_more(file)
            self._words[HIGH_WATER_WORD] = used + 1
            return HEADER_WORDS + used

    @staticmethod
    def _reserve_more(file: ClientFile) -> None:
        """Reserve as many entries again; in a full file system, a page of them."""
        try:
            file.reserve(min(2 * file.reserved_entries, MAX_ENTRIES))
        except OSError:
            try:
                file.reserve(min(file.reserved_entries + _FIRST_ENTRIES, MAX_ENTRIES))
            except OSError as error:
                raise StoreFull(
                    f"no room for more references: this process holds {file.reserved_entries:,}, and the "
                    f"memory file system has no page for another: {error.strerror}",
                    hint="free memory there, or release objects that are no longer used",
                ) from error

    # --- fork ---

    @property
    def frozen(self) -> bool:
        """Whether leases given back stay written for the moment, or some still do."""
        return self._frozen or bool(self._given_back_late)

    def freeze(self) -> None:
        """From now on, leases given back stay written."""
        self._frozen = True

    def freeze_for_good(self) -> None:
        """Never clear an entry again: a forked child has no protection but ours."""
        self._frozen = self._stay_frozen = True

    def thaw(self) -> None:
        """Clear what was given back meanwhile. Requires the writers' lock, held when no fork is under way."""
        if self._stay_frozen:
            return
        self._frozen = False
        late = self._given_back_late
        while late:
            self._words[late[0]] = _NOBODY  # first: an interrupt may lose an entry, never leave it written
            self._free.append(late.popleft())

    def copy_for_child(self, store_path: str, mode: int) -> ClientFile:
        """A client file for a child about to be forked, with all entries of this one. Requires the freeze."""
        used = self.high_water
        file = new_client_file(store_path, mode, used)
        file.words[HEADER_WORDS : HEADER_WORDS + used] = self._words[HEADER_WORDS : HEADER_WORDS + used]
        file.words[HIGH_WATER_WORD] = used
        return file

    def adopt(self, file: ClientFile | None) -> None:
        """In a forked child: go on in the child's own file; without one, in memory that nobody reads."""
        used = HEADER_WORDS + self.high_water
        self._pid = os.getpid()
        self._growing = threading.Lock()
        self._file = file
        self._words = file.words if file else memoryview(bytearray(8 * used)).cast("Q")
        self._frozen = self._stay_frozen = False
        for index in (*self._free, *self._given_back_late):
            self._words[index] = _NOBODY
        self._free.extend(self._given_back_late)
        self._given_back_late.clear()


class Lease:
    """One reference on one object, given back when the last holder of this Python object is gone."""

    __slots__ = ("__weakref__", "_table", "index")

    def __init__(self, table: LeaseTable, serial: int) -> None:
        self.index = 0
        self._table = table
        table.take(self, serial)

    def __del__(self) -> None:
        try:
            index = self.index
        except AttributeError:  # an interrupt came before __init__ did anything
            return
        if index:
            self._table.give_back(index)
