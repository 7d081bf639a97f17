"""One write transaction: the LMDB transaction, the counters, the free space, and the bells to ring after it.

Invariant: what the counters say is what the records say, at every commit. `lifecycle.connection` begins and
commits; functions that change the store take a WriteTransaction and use its methods, so each kind of change
is written once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import (
    FLAG_LEFT,
    Extent,
    Member,
    ObjectRecord,
    continuations,
    decode_record,
    encode_record,
    folded,
    unfolded,
)
from flightstore.catalog.space import FreeSpace

__all__ = ["GROWING", "PUNCHING", "Counters", "WriteTransaction", "extent_of", "transit_of"]

_COUNTERS = struct.Struct("<9Q")
_EXTENT = struct.Struct(">QQ")
_TRANSIT = struct.Struct(">QBQ")

GROWING, PUNCHING = 1, 2  # kinds of transit; stored


class Counters:
    """Figures of the whole store, kept in one record."""

    __slots__ = (
        "backed_bytes",
        "dying",
        "dying_bytes",
        "next_serial",
        "objects",
        "pending",
        "swept_bytes",
        "swept_dying",
        "used_bytes",
    )

    def __init__(self, raw: bytes) -> None:
        (
            self.next_serial,
            self.used_bytes,
            self.backed_bytes,
            self.objects,
            self.pending,
            self.dying,
            self.dying_bytes,
            self.swept_dying,
            self.swept_bytes,
        ) = _COUNTERS.unpack(raw)

    def encode(self) -> bytes:
        """The counters as stored."""
        return _COUNTERS.pack(
            self.next_serial,
            self.used_bytes,
            self.backed_bytes,
            self.objects,
            self.pending,
            self.dying,
            self.dying_bytes,
            self.swept_dying,
            self.swept_bytes,
        )

    @staticmethod
    def initial() -> bytes:
        """The counters of an empty store."""
        return _COUNTERS.pack(1, *(0,) * 8)


class WriteTransaction:
    """What a change of the store works on."""

    __slots__ = ("_cold", "_size_class", "_warm", "bells", "counters", "txn")

    def __init__(self, txn: Any, size_class: Callable[[int], int]) -> None:
        self.txn = txn
        self.counters = Counters(txn.get(keys.COUNTERS))
        self.bells: list[int] = []
        """Bells to ring once the transaction is committed."""
        self._size_class = size_class
        self._warm: FreeSpace | None = None
        self._cold: FreeSpace | None = None

    @property
    def warm(self) -> FreeSpace:
        """Free ranges backed by memory."""
        if self._warm is None:
            self._warm = FreeSpace(self.txn, keys.WARM, self._size_class)
        return self._warm

    @property
    def cold(self) -> FreeSpace:
        """Free ranges without memory."""
        if self._cold is None:
            self._cold = FreeSpace(self.txn, keys.COLD, self._size_class)
        return self._cold

    def finish(self) -> None:
        """Write the counters; the last thing before the commit."""
        self.txn.put(keys.COUNTERS, self.counters.encode())

    def ring(self, bell: int) -> None:
        """Ring a bell once the transaction is committed."""
        if bell not in self.bells:
            self.bells.append(bell)

    def next_serial(self) -> int:
        """A serial number that no object had or will have."""
        serial: int = self.counters.next_serial
        self.counters.next_serial = serial + 1
        return serial

    # --- objects ---

    def sealed(self, session: int, object_id: bytes) -> ObjectRecord | None:
        """The record of a sealed object."""
        raw = self.txn.get(keys.object_key(session, object_id))
        return None if raw is None else decode_record(raw)

    def pending(self, session: int, object_id: bytes) -> ObjectRecord | None:
        """The record of an object that is being created."""
        raw = self.txn.get(keys.pending_key(session, object_id))
        return None if raw is None else decode_record(raw)

    def id_is_taken(self, session: int, object_id: bytes) -> bool:
        """Whether an object of this id is sealed or being created."""
        txn = self.txn
        return (
            txn.get(keys.object_key(session, object_id)) is not None
            or txn.get(keys.pending_key(session, object_id)) is not None
        )

    def add_pending(self, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Record an object that is being created; its extents are allocated already."""
        self.txn.put(keys.pending_key(session, object_id), encode_record(record))
        self.counters.pending += 1

    def drop_pending(self, session: int, object_id: bytes) -> None:
        """Forget that an object is being created (its extents are dealt with by the caller)."""
        self.txn.delete(keys.pending_key(session, object_id))
        self.counters.pending -= 1

    def abort_pending(self, session: int, object_id: bytes, serial: int | None = None) -> bool:
        """An object that is being created becomes a dying one: a view of its builder may still be mapped.

        With `serial`, only if it is that object, and not another that was begun under its id since.
        """
        record = self.pending(session, object_id)
        if record is None or serial not in (None, record.serial):
            return False
        self.drop_pending(session, object_id)
        self.add_dying(record)
        return True

    def add_sealed(self, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Make an object visible, under its names too. Names must be free, members joined, the record
        unfolded.
        """
        txn = self.txn
        stored = folded(record)
        if stored is not record:
            for key, value in continuations(record):
                txn.put(key, value)
        txn.put(keys.object_key(session, object_id), encode_record(stored))
        for name in record.names:
            txn.put(keys.name_key(session, name), object_id)
        self.counters.objects += 1

    def rewrite_sealed(self, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Replace the record of a sealed object; names, extents and members are not touched."""
        self.txn.put(keys.object_key(session, object_id), encode_record(folded(record)))

    def retire(self, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Take a sealed object's id and names away at once; its memory follows when nobody holds it.

        Members that were only kept for it go too.
        """
        self.txn.delete(keys.object_key(session, object_id))
        for name in record.names:
            self.txn.delete(keys.name_key(session, name))
        self.counters.objects -= 1
        record = self.unfold(record)
        self.add_dying(record)
        for member in record.members:
            self._leave_member(session, member)

    def unfold(self, record: ObjectRecord) -> ObjectRecord:
        """The record with all its extents and members."""
        return unfolded(record, self.txn.get) if record.more else record

    def join_members(self, session: int, record: ObjectRecord) -> ObjectRecord:
        """Count a new object with each of its members; returns its record with those that are still there."""
        if not record.members:
            return record
        found = []
        for member in record.members:
            known = self.sealed(session, member.id)
            if known is not None and known.serial == member.serial:
                known = msgspec.structs.replace(known, used_by=known.used_by + 1)
                self.rewrite_sealed(session, member.id, known)
                found.append(member)
        return msgspec.structs.replace(record, members=tuple(found))

    def _leave_member(self, session: int, member: Member) -> None:
        record = self.sealed(session, member.id)
        if record is None or record.serial != member.serial:
            return
        record = msgspec.structs.replace(record, used_by=record.used_by - 1)
        if record.used_by == 0 and record.flags & FLAG_LEFT and not record.pins:
            self.retire(session, member.id, record)
        else:
            self.rewrite_sealed(session, member.id, record)

    def add_dying(self, record: ObjectRecord) -> None:
        """Record an object that nobody can get any more and whose extents may still be in use. Unfolded."""
        self.txn.put(keys.dying_key(record.serial), encode_record(folded(record)))
        self.counters.dying += 1
        self.counters.dying_bytes += sum([extent.length for extent in record.extents])

    def drop_dying(self, record: ObjectRecord) -> None:
        """Forget a dying object, unfolded (its extents are dealt with by the caller)."""
        self.txn.delete(keys.dying_key(record.serial))
        for key, _ in continuations(record):
            self.txn.delete(key)
        self.counters.dying -= 1
        self.counters.dying_bytes -= sum([extent.length for extent in record.extents])

    # --- extents ---

    def add_extent(self, extent: Extent) -> None:
        """Record a fresh extent with one user."""
        self.txn.put(keys.extent_key(extent.file, extent.offset), _EXTENT.pack(extent.length, 1))
        self.counters.used_bytes += extent.length

    def share_extent(self, extent: Extent) -> None:
        """Count one more user of an extent. Requires a lease on an object that uses it."""
        key = keys.extent_key(extent.file, extent.offset)
        length, users = _EXTENT.unpack(self.txn.get(key))
        self.txn.put(key, _EXTENT.pack(length, users + 1))

    def drop_extent(self, extent: Extent) -> bool:
        """Take one user off an extent; True when it was the last and the extent's record is gone."""
        key = keys.extent_key(extent.file, extent.offset)
        length, users = _EXTENT.unpack(self.txn.get(key))
        if users > 1:
            self.txn.put(key, _EXTENT.pack(length, users - 1))
            return False
        self.txn.delete(key)
        self.counters.used_bytes -= length
        return True

    # --- transit ---

    def add_transit(self, start: int, end: int, kind: int, client: int) -> None:
        """Record that a client is about to change what backs a range."""
        self.txn.put(keys.transit_key(start), _TRANSIT.pack(end, kind, client))

    def drop_transit(self, start: int) -> bool:
        """Forget it; False when it was not there (somebody recovered it)."""
        return bool(self.txn.delete(keys.transit_key(start)))

    def has_transit(self, start: int) -> bool:
        """Whether the range that begins there is still in transition."""
        return self.txn.get(keys.transit_key(start)) is not None

    def transits(self) -> list[tuple[int, int, int, int]]:
        """(start, end, kind, client) of all ranges in transition."""
        return [transit_of(key, raw) for key, raw in self.records(keys.TRANSIT)]

    def records(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """All records whose key begins with `prefix`."""
        return list(scan(self.txn, prefix))


def transit_of(key: bytes, raw: bytes) -> tuple[int, int, int, int]:
    """(start, end, kind, client) as stored."""
    end, kind, client = _TRANSIT.unpack(raw)
    return int.from_bytes(key[1:], "big"), end, kind, client


def extent_of(key: bytes, raw: bytes) -> tuple[Extent, int]:
    """An extent and its user count as stored."""
    length, users = _EXTENT.unpack(raw)
    return Extent(int.from_bytes(key[1:3], "big"), int.from_bytes(key[3:], "big"), length), users
