"""What there is: lists, statistics, holders. Reads only."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import SPILL_FILE, ObjectRecord, decode_record, unfolded
from flightstore.catalog.scopes import decode_spill
from flightstore.catalog.space import FreeSpace
from flightstore.catalog.transaction import Counters, decode_counters
from flightstore.lifecycle import eviction, pressure, reading, spilling
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import Sight
from flightstore.memory import kernel
from flightstore.memory.allocator import size_class
from flightstore.objects.registry import kind_name
from flightstore.types import Holder, ObjectID, ObjectInfo, StoreStats

__all__ = ["holders", "info", "list_objects", "usage"]


def info(
    conn: Connection, session: int, object_id: bytes, record: ObjectRecord, counts: Counter[int]
) -> ObjectInfo:
    """One sealed object as users see it."""
    raw = record.metadata if record.metadata_at is None else _long_metadata(conn, session, object_id, record)
    return ObjectInfo(
        id=ObjectID(object_id),
        name=record.names[0] if record.names else None,
        kind=kind_name(record.kind),
        nbytes=record.nbytes,
        num_rows=record.num_rows,
        created_ns=record.created_ns,
        creator_pid=record.creator_pid,
        refs=counts[record.serial],
        pinned=record.pins > 0,
        state=_state(conn, record),
        metadata=msgspec.msgpack.decode(raw) if raw else None,
        evictable=bool(record.flags & eviction.DROPPABLE),
    )


def _state(conn: Connection, record: ObjectRecord) -> str:
    """Whether some of the payload is borrowed, or else in a spill file only."""
    whole = unfolded(record, conn.catalog.get) if record.more else record
    numbers = [extent.offset for extent in whole.extents if extent.file == SPILL_FILE]
    found = [conn.catalog.get(keys.spill_key(number)) for number in numbers]
    spills = [decode_spill(raw) for raw in found if raw is not None]
    if any(spill.lender is not None for spill in spills):
        return "borrowed"
    return "spilled" if any(spill.only_spilled for spill in spills) else "sealed"


def _long_metadata(conn: Connection, session: int, object_id: bytes, record: ObjectRecord) -> bytes:
    """Metadata that lie behind the payload, read under a lease; empty when the object is gone by now."""
    acquired = reading.acquire(conn, session, ObjectID(object_id))
    if acquired is None or acquired[1].serial != record.serial or record.metadata_at is None:
        return b""
    at, length = record.metadata_at
    return bytes(memoryview(reading.payload_of(conn, acquired))[at : at + length])


def list_objects(conn: Connection, session: int, pattern: str | None) -> list[ObjectInfo]:
    """Visible objects whose name matches `pattern`, by name, unnamed ones last."""
    sight = Sight(conn, conn.catalog.get)
    prefix = keys.session_prefix(keys.OBJECT, session)
    records = [(key[len(prefix) :], decode_record(raw)) for key, raw in conn.catalog.items(prefix)]
    records = [(object_id, record) for object_id, record in records if sight.sees(session, record)]
    if pattern is not None:
        records = [
            (object_id, record)
            for object_id, record in records
            if any(fnmatch.fnmatchcase(name, pattern) for name in record.names)
        ]
    counts = conn.clients.counts()
    found = [info(conn, session, object_id, record, counts) for object_id, record in records]
    return sorted(found, key=lambda one: (one.name is None, one.name or "", one.id))


def holders(conn: Connection, serial: int) -> list[Holder]:
    """Processes that hold references on an object."""
    found = conn.clients.holders(serial)
    return [Holder(pid, kernel.process_name(pid), refs) for pid, refs in found]


def usage(conn: Connection) -> StoreStats:
    """Usage of the whole store."""
    counters, largest, records, visible = _snapshot(conn)
    counts = conn.clients.counts()
    usage = eviction.read_usage(conn)
    can_spill = spilling.spill_url(conn) is not None
    return StoreStats(
        path=conn.path,
        capacity_bytes=conn.capacity_bytes,
        used_bytes=counters.used_bytes,
        free_bytes=conn.capacity_bytes - counters.used_bytes,
        backed_bytes=counters.backed_bytes,
        leased_bytes=_bytes_of(record for record in records if counts[record.serial]),
        pinned_bytes=_bytes_of(record for record in records if record.pins),
        evictable_bytes=pressure.evictable_bytes(usage),
        spillable_bytes=pressure.spillable_bytes(usage) if can_spill else 0,
        spilled_bytes=counters.spilled_bytes,
        largest_hole_bytes=max(largest, _growable(conn, counters)),
        objects=visible,
        pending=counters.pending,
        dying=counters.dying,
        clients=sum(1 for name in conn.clients.names() if conn.clients.alive(name)),
        leases=sum(counts.values()),
        catalog_bytes=conn.catalog.map_bytes,
        catalog_used_bytes=conn.catalog.used_bytes(),
        evictions=counters.evictions,
        spills=counters.spills,
    )


def _bytes_of(records: Iterable[ObjectRecord]) -> int:
    """Bytes of the extents of these objects; those that several share count once."""
    return sum(extent.length for extent in {extent for record in records for extent in record.extents})


def _growable(conn: Connection, counters: Counters) -> int:
    """What fresh addresses could still be backed."""
    backed: int = counters.backed_bytes
    return max(min(conn.capacity_bytes - backed, conn.arena.free_file_system_bytes()), 0)


def _snapshot(conn: Connection) -> tuple[Counters, int, list[ObjectRecord], int]:
    """Counters, longest warm range, all records, and how many objects are visible, as of one moment."""
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            counters = decode_counters(txn.get(keys.COUNTERS))
            largest = FreeSpace(txn, keys.WARM, size_class).largest_bytes()
            prefixes = (keys.OBJECT, keys.PENDING, keys.DYING)
            found = [
                (key, unfolded(decode_record(raw), txn.get))
                for prefix in prefixes
                for key, raw in scan(txn, prefix)
            ]
            sight = Sight(conn, txn.get)
            visible = sum(
                key[:1] == keys.OBJECT and sight.sees(int.from_bytes(key[1:5], "big"), record)
                for key, record in found
            )
        finally:
            txn.abort()
    return counters, largest, [record for _, record in found], visible
