"""The control file: some pages that every client maps, and the first thing a client reads.

Page 0 holds the store's identity (fixed when the store is made, checksummed), the writers' lock and the usage
figures; page 1 the bell words; the pages behind them when objects were last got. The bytes are specified in
docs/format.md; never move or renumber a field.

Invariants: identity never changes. Everything else is written only by the holder of the writers' lock, with
single aligned stores, so that it can be read without a lock. (But for the times of access: readers write
those, for the choice of what to evict; a value that is lost, or another object's, does no harm.) The usage
figures repeat what the catalog says, for readers that will not open it; a writer that dies before it wrote
them leaves them one transaction behind, until the next one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from flightstore.errors import NotAStore, StoreAccessDenied, StoreDamaged, StoreVersionMismatch
from flightstore.memory import kernel
from flightstore.memory.writers import MUTEX_BYTES, WritersLock

__all__ = [
    "BELL_WORDS",
    "CONTROL_BYTES",
    "FORMAT_VERSION",
    "Control",
    "Identity",
    "is_marked_destroyed",
    "write_control",
]

MAGIC = b"FLTSTORE"
FORMAT_VERSION = 2
BELL_WORDS = 64
ACCESS_AT = 8192
ACCESS_WORDS = 1 << 15
"""One for every serial modulo their number: objects beyond so many share words."""
CONTROL_BYTES = ACCESS_AT + 8 * ACCESS_WORDS

_IDENTITY = struct.Struct("<8sII6Q16s")  # at 0: magic, version, bytes of this struct, the fields of Identity
_CHECKSUM_AT = _IDENTITY.size
_MUTEX_AT = 512
_USAGE_AT = 1024  # 8-byte words: used, backed, objects, pending, dying
_DESTROYED_AT = 2048
_BELL_AT = 4096
_BELL_STEP = 64  # one word to a cache line
_ROOM_AT = 2112  # rung whenever memory may have become available
_EVENT_AT = 2176  # rung whenever the log has grown

_ACCESS_WORD = ACCESS_AT // 8
_LISTENING_NS = 2_500_000_000  # well above the second that anybody sleeps at most

assert _MUTEX_AT + MUTEX_BYTES <= _USAGE_AT


@dataclass(frozen=True, slots=True)
class Identity:
    """What is fixed when a store is made."""

    capacity_bytes: int
    arena_bytes: int
    catalog_bytes: int
    pid_namespace: int
    created_ns: int
    flags: int
    nonce: bytes

    def encode(self) -> bytes:
        """The identity as it stands at the beginning of the file, with its checksum."""
        fields = (self.capacity_bytes, self.arena_bytes, self.catalog_bytes, self.pid_namespace)
        rest = (self.created_ns, self.flags, self.nonce)
        body = _IDENTITY.pack(MAGIC, FORMAT_VERSION, _IDENTITY.size, *fields, *rest)
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def decode(cls, page: bytes, path: str) -> Identity:
        """The identity in `page`.

        Raises:
            NotAStore, StoreVersionMismatch, StoreDamaged: what they say.
        """
        if len(page) < CONTROL_BYTES or page[: len(MAGIC)] != MAGIC:
            raise NotAStore(f"{path} is not a flightstore store: its control file has no valid beginning")
        version = struct.unpack_from("<I", page, 8)[0]
        if version != FORMAT_VERSION:
            raise StoreVersionMismatch(
                f"{path} has format version {version}, this flightstore reads version {FORMAT_VERSION}",
                hint="use the flightstore that made it, or destroy it and put the data again",
            )
        body = page[: _IDENTITY.size]
        if struct.unpack_from("<I", page, _CHECKSUM_AT)[0] != zlib.crc32(body):
            raise StoreDamaged(
                f"the control file of {path} is corrupt: its checksum is wrong",
                hint="nothing was changed; objects held by running processes stay readable there",
            )
        return cls(*_IDENTITY.unpack(body)[3:])


def write_control(path: str, identity: Identity) -> None:
    """Write the control file, complete, into the empty file `path`, its memory reserved."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, CONTROL_BYTES)
        pages = mmap.mmap(descriptor, CONTROL_BYTES)
    finally:
        os.close(descriptor)
    WritersLock.initialise(_address(pages) + _MUTEX_AT)
    encoded = identity.encode()
    pages[: len(encoded)] = encoded


def is_marked_destroyed(path: str) -> bool:
    """Whether the store's control file bears the mark; False where it cannot be read."""
    try:
        descriptor = os.open(os.path.join(path, "control"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(os.pread(descriptor, 8, _DESTROYED_AT))
    finally:
        os.close(descriptor)


def _address(pages: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))


class Control:
    """The mapped control file of an existing store."""

    def __init__(self, path: str) -> None:
        self.path = path
        pages = _map_control(os.path.join(path, "control"), path)
        self.identity = Identity.decode(pages[:CONTROL_BYTES], path)
        self._address = _address(pages)
        self._words = memoryview(pages).cast("Q")
        self._bells = memoryview(pages).cast("I")
        self.lock = WritersLock(self._address + _MUTEX_AT, pages)

    @property
    def destroyed(self) -> bool:
        """Whether the store was removed."""
        return self._words[_DESTROYED_AT // 8] != 0

    def mark_destroyed(self) -> None:
        """Tell every client that the store is going away."""
        self._words[_DESTROYED_AT // 8] = time.time_ns()

    def usage(self) -> tuple[int, int, int, int, int]:
        """Used bytes, backed bytes, objects, pending, dying: without any call."""
        at = _USAGE_AT // 8
        used, backed, objects, pending, dying = self._words[at : at + 5]
        return used, backed, objects, pending, dying

    def publish_usage(self, used: int, backed: int, objects: int, pending: int, dying: int) -> None:
        """Write the usage figures. Requires the writers' lock."""
        words, at = self._words, _USAGE_AT // 8
        words[at] = used
        words[at + 1] = backed
        words[at + 2] = objects
        words[at + 3] = pending
        words[at + 4] = dying

    @staticmethod
    def bell_of(key: bytes) -> int:
        """The bell that is rung when something happens to `key`."""
        return (_BELL_AT + zlib.crc32(key) % BELL_WORDS * _BELL_STEP) // 4

    ROOM_BELL = _ROOM_AT // 4
    """The bell that is rung when memory may have become available."""

    EVENT_BELL = _EVENT_AT // 4
    """The bell that is rung when there is a new event."""

    def touch(self, serial: int) -> None:
        """Note that the object is got at this moment."""
        self._words[_ACCESS_WORD + serial % ACCESS_WORDS] = time.monotonic_ns()

    def last_access(self, serial: int) -> int:
        """When the object was last got, or one that shares its word: monotonic ns; 0 for never."""
        return self._words[_ACCESS_WORD + serial % ACCESS_WORDS]

    def bell(self, bell: int) -> int:
        """The bell's count; read it before looking for what you will wait for.

        Says, too, that somebody will sleep on it soon: who rings a bell that nobody listens to need not wake
        anyone. The word is stored before the count is read, and looked at after the count was raised; should
        a processor show the two in another order once, the sleeper wakes within a second all the same.
        """
        self._words[(bell + 2) // 2] = time.monotonic_ns() + _LISTENING_NS
        return self._bells[bell]

    def address_of(self, bell: int) -> int:
        """Where the bell's word is mapped, as long as this object lives."""
        return self._address + 4 * bell

    def ring(self, bell: int) -> None:
        """Count the bell up and wake who sleeps on it. Requires the writers' lock."""
        self._bells[bell] = (self._bells[bell] + 1) & 0xFFFFFFFF
        if self._words[(bell + 2) // 2] > time.monotonic_ns():
            kernel.futex_wake(self._address + 4 * bell)

    def sleep(self, bell: int, seen: int, timeout_s: float) -> None:
        """Sleep until the bell's count differs from `seen`, at most `timeout_s`, at most a second.

        A writer can die between its commit and the ring: look again whatever happened.
        """
        kernel.futex_wait(self._address + 4 * bell, seen, min(timeout_s, 1.0))

    def sleep_any(self, seen: Mapping[int, int], timeout_s: float) -> None:
        """`sleep` on several bells at once: until one of them has a count other than that in `seen`."""
        words = [(self._address + 4 * bell, count) for bell, count in seen.items()]
        kernel.futex_wait_any(words, min(timeout_s, 1.0))


def _map_control(file: str, path: str) -> mmap.mmap:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAStore(
            f"{path} is not a flightstore store: it has no control file",
            hint="name another directory, or one that does not exist yet to make a store there",
        ) from error
    except OSError as error:
        raise StoreAccessDenied(
            f"no permission to use the store {path}: {error.strerror}",
            hint="direct clients need read and write permission on its directory and files",
        ) from error
    try:
        size = os.fstat(descriptor).st_size
        if size < CONTROL_BYTES:
            raise NotAStore(f"{path} is not a flightstore store: its control file has {size} bytes")
        return mmap.mmap(descriptor, CONTROL_BYTES)
    finally:
        os.close(descriptor)
