"""Evicting: dropping objects that may be dropped, inside a create or an evict request and nowhere else.

What goes is planned from a picture (lifecycle.choosing), and carried out like a conditional delete
(lifecycle.freeing): under one hold of the writers' lock, mark in a commit, barrier, read the leases, and in a
second commit drop those that nobody holds and unmark the rest. So nobody loses what he reads, and the memory
is free when the call returns. A mark that a killed process left is taken away by whoever sees it under the
lock.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import (
    ARENA_FILE,
    FLAG_EVICTABLE,
    FLAG_FREED,
    FLAG_PROBING,
    FLAG_REPLICA,
    Extent,
    ObjectRecord,
    decode_record,
    unfolded,
)
from flightstore.catalog.scopes import SpillRecord, decode_spill
from flightstore.catalog.transaction import WriteTransaction
from flightstore.lifecycle import extents, freeing
from flightstore.lifecycle.choosing import Place, Policy, Usage, plan_eviction
from flightstore.lifecycle.connection import Connection
from flightstore.memory import kernel
from flightstore.types import EvictionCandidate, ObjectID

__all__ = ["evict", "read_usage"]

DROPPABLE = FLAG_EVICTABLE | FLAG_FREED | FLAG_REPLICA
_BATCH = 256  # objects evicted under one hold of the lock


def evict(
    conn: Connection,
    wanted_bytes: int | None,
    policy: Policy,
    *,
    session: int | None = None,
    recursive: bool = False,
) -> int:
    """Drop evictable objects that nobody holds until `wanted_bytes` (None: all) are free; returns the bytes
    that became free, which may be more or fewer.

    Args:
        conn: The store.
        wanted_bytes: How much to free.
        policy: In which order.
        session: Only this session's objects; None for all.
        recursive: Take members of evicted objects, too, that nobody else uses.
    """
    freed = 0
    while wanted_bytes is None or freed < wanted_bytes:
        left = None if wanted_bytes is None else wanted_bytes - freed
        plan = plan_eviction(read_usage(conn, session), left, policy, recursive=recursive)[:_BATCH]
        if not plan:
            break
        before = freed
        freed += conn.exclusive(lambda: _evict(conn, plan))  # noqa: B023 - called at once
        freed += freeing.sweep(conn)[1]  # members that were only kept for what went
        if freed == before:
            break  # all of them were taken up meanwhile
    return freed


def _evict(conn: Connection, plan: Sequence[Usage]) -> int:
    """Drop what is still idle of the plan. Requires the writers' lock."""
    marked = conn.transact(lambda tx: _mark(tx, plan))
    kernel.membarrier()
    held = conn.clients.held()
    return conn.transact(lambda tx: _settle(tx, marked, held))


Marked = tuple[int, bytes, ObjectRecord]


def _mark(tx: WriteTransaction, plan: Sequence[Usage]) -> list[Marked]:
    marked: list[Marked] = []
    for one in plan:
        session, object_id = one.session, one.candidate.id
        record = tx.sealed(session, object_id)
        if record is None or record.serial != one.serial or record.pins:
            continue
        if one.evictable and not record.flags & DROPPABLE:
            continue
        record = msgspec.structs.replace(record, flags=record.flags | FLAG_PROBING)
        tx.rewrite_sealed(session, object_id, record)
        marked.append((session, object_id, record))
    return marked


def _settle(tx: WriteTransaction, marked: Sequence[Marked], held: set[int]) -> int:
    freed = 0
    for session, object_id, _ in marked:
        record = tx.sealed(session, object_id)
        if record is None:
            continue  # a member that went with the object it was kept for
        if record.serial in held:
            freeing.unmark(tx, session, object_id, record)
            continue
        gone = tx.remove_sealed(session, object_id, record)
        freed += extents.give_back(tx, gone.extents)
        tx.drop_continuations(gone)
        tx.counters.evictions += 1
    return freed


# --- the picture ---


def read_usage(conn: Connection, session: int | None = None) -> list[Usage]:
    """All objects that use memory, as of one moment: pending and dying ones too.

    Of other sessions than `session`, if it is given, none is evictable or spillable.
    """
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            spills = {int.from_bytes(key[1:], "big"): decode_spill(raw) for key, raw in scan(txn, keys.SPILL)}
            records = [
                (key, unfolded(decode_record(raw), txn.get))
                for letter in (keys.OBJECT, keys.PENDING, keys.DYING)
                for key, raw in scan(txn, letter)
            ]
        finally:
            txn.abort()
    held = conn.clients.held()
    return [
        _usage(conn, key, record, spills, held, session)
        for key, record in records
        if any(file == ARENA_FILE or spills[offset].offset >= 0 for file, offset, _ in record.extents)
    ]


def _usage(
    conn: Connection,
    key: bytes,
    record: ObjectRecord,
    spills: dict[int, SpillRecord],
    held: set[int],
    only: int | None,
) -> Usage:
    sealed = key[:1] == keys.OBJECT
    session = 0 if key[:1] == keys.DYING else int.from_bytes(key[1:5], "big")
    mine = sealed and only in (None, session)
    places = tuple(
        place for extent in dict.fromkeys(record.extents) if (place := _place(extent, spills)) is not None
    )
    moving = any(place.spill and spills[place.spill].writer for place in places)
    candidate = EvictionCandidate(
        id=ObjectID(key[5:] if key[:1] != keys.DYING else key[1:]),
        session=session,
        name=record.names[0] if record.names else None,
        nbytes=sum(place.length for place in places),
        created_ns=record.created_ns,
        last_access_ns=conn.control.last_access(record.serial),
        freed=bool(record.flags & FLAG_FREED),
        evictable=bool(record.flags & DROPPABLE),
    )
    return Usage(
        candidate,
        session,
        record.serial,
        places,
        evictable=mine and candidate.evictable,
        spillable=mine and not moving and not record.flags & FLAG_REPLICA,
        idle=record.serial not in held and not record.pins,
        members=tuple(member.serial for member in record.members),
        used_by=record.used_by,
    )


def _place(extent: Extent, spills: dict[int, SpillRecord]) -> Place | None:
    """Where an extent's bytes are in memory, if they are."""
    file, offset, length = extent
    if file == ARENA_FILE:
        return Place(offset, length, 0)
    spill = spills[offset]
    return Place(spill.offset, length, offset) if spill.offset >= 0 else None
