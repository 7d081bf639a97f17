"""One write transaction: the LMDB transaction, the counters, the free space, and the bells to ring after it.

Invariant: what the counters say is what the records say, at every commit. `lifecycle.connection` begins and
commits; functions that change the store take a WriteTransaction and use its methods, so each kind of change
is written once.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import (
    ARENA_FILE,
    FLAG_LEFT,
    SPILL_FILE,
    Extent,
    Member,
    ObjectRecord,
    continuations,
    decode_record,
    encode_record,
    folded,
    unfolded,
)
from flightstore.catalog.scopes import (
    ADDED,
    DELETED,
    EventRecord,
    SpillRecord,
    decode_spill,
)
from flightstore.catalog.space import FreeSpace

__all__ = [
    "GROWING",
    "PUNCHING",
    "Counters",
    "ExtentUse",
    "WriteTransaction",
    "decode_counters",
    "extent_of",
    "spilled_extent",
    "transit_of",
]

_EXTENT = struct.Struct(">QI")
_SPECIAL_EXTENT = struct.Struct(">QIQI")  # one that belongs to a spill record, or counts against a quota
_TRANSIT = struct.Struct(">QBQ")

_EVENTS_TRIMMED = 64
GROWING, PUNCHING = 1, 2  # kinds of transit; stored


class Counters(msgspec.Struct, array_like=True, gc=False):
    """Figures of the whole store, kept in one record. Position tells them apart: append only."""

    next_serial: int = 1
    """The serial of the next object."""
    used_bytes: int = 0
    """Bytes of all extents of the arena."""
    backed_bytes: int = 0
    """Bytes backed by memory: extents, warm ranges, ranges in transit."""
    objects: int = 0
    """Sealed objects."""
    pending: int = 0
    """Pending objects."""
    dying: int = 0
    """Dying objects."""
    dying_bytes: int = 0
    """Bytes of their extents."""
    swept_dying: int = 0
    """What `dying` was after the latest sweep."""
    swept_bytes: int = 0
    """What `dying_bytes` was after the latest sweep."""
    next_session: int = 1
    """Number of the next session."""
    next_batch: int = 1
    """Number of the next batch."""
    ended: int = 0
    """Sessions and batches that are ENDED and still have a record."""
    next_spill: int = 1
    """Number of the next SpillRecord."""
    spilled_bytes: int = 0
    """Bytes of extents that are in spill files only."""
    doomed: int = 0
    """Spill files that are yet to be removed."""
    first_event: int = 1
    """Number of the oldest event that is kept."""
    next_event: int = 1
    """Number of the next event."""
    next_ticket: int = 1
    """Ticket of the next waiting create."""
    waiting: int = 0
    """Creates that wait."""
    evictions: int = 0
    """Objects that were dropped to make room, since the store was made."""
    spills: int = 0
    """How often an extent has given its memory up for a spill file, since the store was made."""
    former_loans: int = 0
    """Spill records that name a former lender."""


decode_counters = msgspec.msgpack.Decoder(Counters).decode
"""Decode Counters from bytes."""


class ExtentUse(NamedTuple):
    """What the catalog says of an extent."""

    length: int
    """Bytes."""
    users: int
    """How many objects, or spill records, list it."""
    spill: int = 0
    """Number of the spill record that it belongs to; 0 for an extent that objects list themselves."""
    session: int = 0
    """Whose quota it counts against; 0 for none."""


class WriteTransaction:
    """What a change of the store works on."""

    __slots__ = (
        "_cold",
        "_events_kept",
        "_size_class",
        "_usage",
        "_warm",
        "bells",
        "counters",
        "has_events",
        "txn",
    )

    def __init__(self, txn: Any, size_class: Callable[[int], int], events_kept: int) -> None:
        self.txn = txn
        self.counters = decode_counters(txn.get(keys.COUNTERS))
        self.bells: list[int] = []
        """Bells to ring once the transaction is committed."""
        self.has_events = False
        """Whether it added to the log."""
        self._usage: dict[int, int] = {}
        self._events_kept = events_kept
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
        for session, used in self._usage.items():
            if used:
                self.txn.put(keys.quota_key(session), used.to_bytes(8, "big"))
            else:
                self.txn.delete(keys.quota_key(session))
        self.txn.put(keys.COUNTERS, encode_record(self.counters))

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
        for batch in record.batches:
            txn.put(keys.batched_key(batch, session, object_id), b"")
        self.counters.objects += 1
        self.note(ADDED, session, object_id, record)

    def rewrite_sealed(self, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Replace the record of a sealed object; names, extents and members are not touched."""
        self.txn.put(keys.object_key(session, object_id), encode_record(folded(record)))

    def retire(self, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Take a sealed object's id and names away at once; its memory follows when nobody holds it.

        Members that were only kept for it go too.
        """
        self.add_dying(self.remove_sealed(session, object_id, record))

    def remove_sealed(self, session: int, object_id: bytes, record: ObjectRecord) -> ObjectRecord:
        """`retire` for what nobody holds: the caller deals with the extents of the record returned, which is
        unfolded, and then with `drop_continuations`.
        """
        self.txn.delete(keys.object_key(session, object_id))
        for name in record.names:
            self.txn.delete(keys.name_key(session, name))
        for batch in record.batches:
            self.txn.delete(keys.batched_key(batch, session, object_id))
        self.counters.objects -= 1
        self.note(DELETED, session, object_id, record)
        record = self.unfold(record)
        for member in record.members:
            self._leave_member(session, member)
        return record

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
        self.drop_continuations(record)
        self.counters.dying -= 1
        self.counters.dying_bytes -= sum([extent.length for extent in record.extents])

    def drop_continuations(self, record: ObjectRecord) -> None:
        """Forget what an unfolded record was folded into."""
        for key, _ in continuations(record):
            self.txn.delete(key)

    # --- extents ---

    def add_extent(self, extent: Extent, session: int) -> None:
        """Record a fresh extent of the arena with one user, at the expense of a session."""
        file, offset, length = extent
        value = _SPECIAL_EXTENT.pack(length, 1, 0, session) if session else _EXTENT.pack(length, 1)
        self.txn.put(keys.extent_key(file, offset), value)
        self.counters.used_bytes += length
        if session:
            self._charge(session, length)

    def use_of(self, extent: Extent) -> ExtentUse | None:
        """What is recorded of an extent."""
        raw = self.txn.get(keys.extent_key(extent.file, extent.offset))
        return None if raw is None else _decode_use(raw)

    def share_extent(self, extent: Extent) -> Extent:
        """Count one more user of an extent. Requires a lease on an object that uses it.

        Returns:
            The extent to list: another one when it was spilled since the caller looked.
        """
        use = self._known_use(extent)
        if use.spill:
            extent = spilled_extent(use.spill, use.length)
            use = self._known_use(extent)
        self._put_use(extent, use._replace(users=use.users + 1))
        return extent

    def drop_extent(self, extent: Extent) -> Extent | None:
        """Take one user off an extent; the last one takes its record away.

        Returns:
            The extent of the arena that belongs to nobody from now on, if there is one: the caller returns
            its range to the free space.
        """
        use = self._known_use(extent)
        if use.users > 1:
            self._put_use(extent, use._replace(users=use.users - 1))
            return None
        self.txn.delete(keys.extent_key(extent.file, extent.offset))
        if extent.file != ARENA_FILE:
            return self._drop_spill(extent.offset)
        self.counters.used_bytes -= use.length
        if use.session:
            self._charge(use.session, -use.length)
        return extent

    def _known_use(self, extent: Extent) -> ExtentUse:
        return _decode_use(self.txn.get(keys.extent_key(extent.file, extent.offset)))

    def _put_use(self, extent: Extent, use: ExtentUse) -> None:
        plain = not (use.spill or use.session)
        value = _EXTENT.pack(use.length, use.users) if plain else _SPECIAL_EXTENT.pack(*use)
        self.txn.put(keys.extent_key(extent.file, extent.offset), value)

    def used_by_session(self, session: int) -> int:
        """Bytes of the extents in memory that count against a session's quota."""
        used = self._usage.get(session)
        if used is None:
            used = self._usage[session] = int.from_bytes(self.txn.get(keys.quota_key(session)) or b"", "big")
        return used

    def _charge(self, session: int, nbytes: int) -> None:
        self._usage[session] = self.used_by_session(session) + nbytes

    # --- spilled extents ---

    def spill(self, number: int) -> SpillRecord | None:
        """A spill record."""
        raw = self.txn.get(keys.spill_key(number))
        return None if raw is None else decode_spill(raw)

    def put_spill(self, number: int, record: SpillRecord) -> None:
        """Write a spill record, new or changed, and keep account of what is in files only, and of loans."""
        before = self.spill(number)
        had_former = before is not None and before.former is not None
        self.counters.former_loans += (record.former is not None) - had_former
        was = before.length if before is not None and before.only_spilled else 0
        now = record.length if record.only_spilled else 0
        self.counters.spilled_bytes += now - was
        self.counters.spills += now > was
        self.txn.put(keys.spill_key(number), encode_record(record))

    def next_spill(self) -> int:
        """A number that no spill record or spill file had or will have."""
        number: int = self.counters.next_spill
        self.counters.next_spill = number + 1
        return number

    def adopt_extent(self, arena: Extent, number: int) -> Extent:
        """An extent of the arena goes over to a new spill record, and its users to the extent returned; the
        caller lists that in their records.
        """
        use = self._known_use(arena)
        spilled = spilled_extent(number, use.length)
        self.put_spill(number, SpillRecord(use.length, arena.offset, session=use.session))
        self._put_use(spilled, ExtentUse(use.length, use.users))
        self._put_use(arena, use._replace(users=1, spill=number))
        return spilled

    def keep_in_arena(self, number: int, record: SpillRecord, offset: int) -> SpillRecord:
        """A spilled extent is in memory again, in an extent that is allocated already; returns its record."""
        arena = Extent(ARENA_FILE, offset, record.length)
        self._put_use(arena, self._known_use(arena)._replace(users=1, spill=number))
        record = msgspec.structs.replace(record, offset=offset)
        self.put_spill(number, record)
        return record

    def borrow(self, record: SpillRecord) -> Extent:
        """Record an extent of somebody else's memory, with one user; returns it."""
        extent = spilled_extent(self.next_spill(), record.length)
        self.put_spill(extent.offset, record)
        self._put_use(extent, ExtentUse(record.length, 1))
        return extent

    def put_doomed(self, file: int, location: str) -> None:
        """Record a spill file that is to be removed."""
        self.txn.put(keys.doomed_key(file), location.encode())
        self.counters.doomed += 1

    def drop_doomed(self, file: int) -> None:
        """A spill file has been removed."""
        if self.txn.delete(keys.doomed_key(file)):
            self.counters.doomed -= 1

    def _drop_spill(self, number: int) -> Extent | None:
        """Nobody lists the extent any more: forget it, and doom its file; returns as `drop_extent`."""
        record = self.spill(number)
        assert record is not None
        self.txn.delete(keys.spill_key(number))
        self.counters.former_loans -= record.former is not None
        if record.location:
            self.put_doomed(record.file, record.location)
        if record.offset >= 0:
            return self.drop_extent(Extent(ARENA_FILE, record.offset, record.length))
        if record.only_spilled:
            self.counters.spilled_bytes -= record.length
        return None

    # --- events ---

    def note(self, kind: int, session: int, object_id: bytes, record: ObjectRecord) -> None:
        """Record an event of an object."""
        name = record.names[0] if record.names else None
        self.add_event(EventRecord(kind, session, bytes(object_id), name, record.nbytes, time.time_ns()))

    def add_event(self, event: EventRecord) -> None:
        """Record an event; the oldest makes room for it."""
        counters, txn = self.counters, self.txn
        number = counters.next_event
        txn.put(keys.event_key(number), encode_record(event))
        counters.next_event = number + 1
        self.has_events = True
        if number - counters.first_event >= self._events_kept + _EVENTS_TRIMMED:
            first = counters.first_event  # many at once: they share pages, which are changed once
            counters.first_event = first + _EVENTS_TRIMMED
            for old in range(first, first + _EVENTS_TRIMMED):
                txn.delete(keys.event_key(old))

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


def extent_of(key: bytes, raw: bytes) -> tuple[Extent, ExtentUse]:
    """An extent and its use as stored."""
    use = _decode_use(raw)
    return Extent(int.from_bytes(key[1:3], "big"), int.from_bytes(key[3:], "big"), use.length), use


def _decode_use(raw: bytes) -> ExtentUse:
    return ExtentUse(*(_EXTENT if len(raw) == _EXTENT.size else _SPECIAL_EXTENT).unpack(raw))


def spilled_extent(number: int, length: int) -> Extent:
    """The extent whose bytes a spill record tells of."""
    return Extent(SPILL_FILE, number, length)
