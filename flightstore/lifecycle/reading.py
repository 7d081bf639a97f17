"""Getting objects: from a name or id to a leased, mapped object.

`acquire` is the reader's half of the lease protocol (memory.leases): look the record up, publish a lease on
its serial, look again. When the second look finds the same object, whoever frees memory from now on sees the
lease. When it does not, the object was deleted or replaced in between: drop the lease and begin again. After
a few rounds, or when the object is being probed by a conditional delete, the same is done under the writers'
lock, where nothing can change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from flightstore.catalog import keys
from flightstore.catalog.records import (
    ARENA_FILE,
    FLAG_PROBING,
    Extent,
    ObjectRecord,
    decode_record,
    unfolded,
)
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import GetTimeout, ObjectNotFound
from flightstore.lifecycle import freeing, sessions
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import is_visible
from flightstore.memory.control import Control
from flightstore.memory.leases import Lease
from flightstore.objects.base import Handle, StoreView
from flightstore.types import ObjectID, Ref

__all__ = [
    "acquire",
    "acquire_many",
    "bell_for",
    "describe",
    "handle_for",
    "lookup",
    "not_found",
    "payload_of",
    "wait_among",
    "wait_for",
]

_ROUNDS = 4
_EMPTY = pa.py_buffer(b"")

Acquired = tuple[ObjectID, ObjectRecord, Lease]


def lookup(conn: Connection, session: int, ref: Ref) -> tuple[bytes, ObjectRecord] | None:
    """(id, record) of a visible object, or None."""
    found = _find(conn, session, ref)
    if found is None:
        return None
    record = decode_record(found[1])
    return (found[0], record) if is_visible(conn, conn.catalog.get, session, record) else None


def _find(conn: Connection, session: int, ref: Ref) -> tuple[bytes, bytes] | None:
    """(id, encoded record) of a sealed object, visible or not; or None."""
    if isinstance(ref, ObjectID):
        raw = conn.catalog.get(keys.object_key(session, ref))
        return None if raw is None else (ref, raw)
    keys.check_name(ref)
    found = conn.catalog.resolve(keys.name_key(session, ref), keys.session_prefix(keys.OBJECT, session))
    if found is None or found[1] is None:
        return None
    return found[0], found[1]


def acquire(conn: Connection, session: int, ref: Ref) -> Acquired | None:
    """A leased object, or None when there is none.

    Raises:
        StoreBusy: the object is being probed or replaced all the time, and the writers' lock was not to be
        had.
    """
    if conn.leases.frozen:
        conn.thaw_if_possible()
    get = conn.catalog.get
    for _ in range(_ROUNDS):
        found = _find(conn, session, ref)
        if found is None:
            return None
        object_id, raw = found
        record = decode_record(raw)
        if record.flags & FLAG_PROBING:
            break
        lease = Lease(conn.leases, record.serial)
        if get(keys.object_key(session, object_id)) == raw:
            if (session or record.batch) and not is_visible(conn, get, session, record):
                return None
            conn.control.touch(record.serial)
            return ObjectID(object_id), record, lease
    return conn.write(lambda tx: _acquire_locked(conn, tx, session, ref))


def _acquire_locked(conn: Connection, tx: WriteTransaction, session: int, ref: Ref) -> Acquired | None:
    """`acquire` under the writers' lock: what is found stays. A mark found here was left by a dead prober."""
    object_id = freeing.resolve(tx, session, ref)
    record = tx.sealed(session, object_id) if object_id is not None else None
    if object_id is None or record is None or not is_visible(conn, tx.txn.get, session, record):
        return None
    if record.flags & FLAG_PROBING:
        record = freeing.unmark(tx, session, object_id, record)
    conn.control.touch(record.serial)
    return ObjectID(object_id), record, Lease(conn.leases, record.serial)


def acquire_many(conn: Connection, session: int, refs: Sequence[Ref]) -> list[Acquired | None]:
    """Leased objects as they were at one moment (None for those that were not)."""
    for ref in refs:
        if not isinstance(ref, ObjectID):
            keys.check_name(ref)
    for _ in range(_ROUNDS):
        first = _lookup_all(conn, session, refs)
        records = [decode_record(found[1]) if found else None for found in first]
        if any(record and record.flags & FLAG_PROBING for record in records):
            break
        leases = [Lease(conn.leases, record.serial) if record else None for record in records]
        if _lookup_all(conn, session, refs) == first:
            for record in records:
                if record:
                    conn.control.touch(record.serial)
            return [
                (ObjectID(found[0]), record, lease) if found and record and lease else None
                for found, record, lease in zip(first, records, leases, strict=True)
            ]
        del leases
    return conn.write(lambda tx: [_acquire_locked(conn, tx, session, ref) for ref in refs])


def _lookup_all(conn: Connection, session: int, refs: Sequence[Ref]) -> list[tuple[bytes, bytes] | None]:
    """(id, encoded record) of each visible object, as of one moment."""
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            return [_lookup_in(conn, txn, session, ref) for ref in refs]
        finally:
            txn.abort()


def _lookup_in(conn: Connection, txn: Any, session: int, ref: Ref) -> tuple[bytes, bytes] | None:
    get = txn.get
    object_id: bytes | None = ref if isinstance(ref, ObjectID) else get(keys.name_key(session, ref))
    if object_id is None:
        return None
    raw = get(keys.object_key(session, object_id))
    if raw is None or not is_visible(conn, get, session, decode_record(raw)):
        return None
    return object_id, raw


def handle_for(conn: Connection, view: StoreView, acquired: Acquired) -> Handle:
    """The handle of a leased object: its extents as buffers of the read-only mapping."""
    object_id, record, lease = acquired
    if record.more:  # what it is folded into stays as long as the object does
        record = unfolded(record, conn.catalog.get)
    extents = record.extents
    if not extents:
        return Handle(view, object_id, record, lease, _EMPTY)
    payload = _mapped(conn, object_id, extents[0], lease)
    if len(extents) == 1:
        return Handle(view, object_id, record, lease, payload)
    others = tuple([_mapped(conn, object_id, extent, lease) for extent in extents[1:]])
    return Handle(view, object_id, record, lease, payload, others)


def payload_of(conn: Connection, acquired: Acquired) -> pa.Buffer:
    """The first extent of a leased object that has one; the buffer keeps the lease."""
    object_id, record, lease = acquired
    return _mapped(conn, object_id, record.extents[0], lease)


def _mapped(conn: Connection, object_id: ObjectID, extent: Extent, lease: Lease) -> pa.Buffer:
    file, offset, length = extent
    if file == ARENA_FILE:
        return pa.foreign_buffer(conn.arena.address + offset, length, lease)
    from flightstore.lifecycle import restoring  # needs what only writers need

    return restoring.buffer_of(conn, object_id, extent, lease)


# --- waiting ---


def bell_for(session: int, ref: Ref) -> int:
    """The bell that is rung when an object appears under this name or id."""
    key = keys.object_key(session, ref) if isinstance(ref, ObjectID) else keys.name_key(session, ref)
    return Control.bell_of(key)


def wait_for(conn: Connection, session: int, ref: Ref, deadline: float | None) -> Acquired | None:
    """`acquire`, waiting until `deadline` (monotonic seconds; None waits for ever)."""
    bell = bell_for(session, ref)
    while True:
        seen = conn.control.bell(bell)
        acquired = acquire(conn, session, ref)
        if acquired is not None:
            return acquired
        left = 1.0 if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return None
        conn.refuse_destroyed()
        sessions.refuse_ended(conn, session)
        conn.control.sleep(bell, seen, left)


def wait_among(
    conn: Connection, session: int, refs: Sequence[Ref], needed: int, deadline: float | None
) -> list[bool]:
    """Which references are sealed objects, once `needed` of them are or `deadline` has passed."""
    for ref in refs:
        if not isinstance(ref, ObjectID):
            keys.check_name(ref)
    bells = [bell_for(session, ref) for ref in refs]
    while True:
        seen = {bell: conn.control.bell(bell) for bell in bells}
        flags = [found is not None for found in _lookup_all(conn, session, refs)]
        left = 1.0 if deadline is None else deadline - time.monotonic()
        if sum(flags) >= needed or left <= 0:
            return flags
        conn.refuse_destroyed()
        sessions.refuse_ended(conn, session)
        missing = {bell for bell, ready in zip(bells, flags, strict=True) if not ready}
        conn.control.sleep_any({bell: seen[bell] for bell in missing}, left)


def describe(ref: Ref) -> str:
    """A reference as errors print it."""
    return str(ref) if isinstance(ref, ObjectID) else repr(ref)


def not_found(conn: Connection, ref: Ref, waited_s: float | None) -> ObjectNotFound:
    """The error for an object that is not there."""
    if waited_s is not None:
        return GetTimeout(
            f"no object {describe(ref)} appeared in {conn.path} within {waited_s:g} s",
            hint="check that it is put under this name, or allow more time",
        )
    return ObjectNotFound(
        f"there is no object {describe(ref)} in {conn.path}",
        hint="list() shows what there is; get(..., timeout=) waits for it",
    )
