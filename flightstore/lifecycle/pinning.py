"""What users say of sealed objects: needed no more (free), or to stay in memory (pin)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from flightstore.catalog.records import FLAG_FREED, FLAG_LEFT, ObjectRecord
from flightstore.catalog.transaction import WriteTransaction
from flightstore.lifecycle import freeing
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import is_visible
from flightstore.types import Ref

__all__ = ["free", "pin", "unpin"]

Change = Callable[[ObjectRecord], ObjectRecord]


def free(conn: Connection, session: int, refs: Sequence[Ref]) -> int:
    """Mark objects as not needed any more; returns how many there were."""
    return _change(conn, session, refs, lambda record: _replace(record, flags=record.flags | FLAG_FREED))


def pin(conn: Connection, session: int, refs: Sequence[Ref]) -> int:
    """Count one more pin on each object; returns how many there were."""
    return _change(conn, session, refs, lambda record: _replace(record, pins=record.pins + 1))


def unpin(conn: Connection, session: int, refs: Sequence[Ref]) -> int:
    """Take one pin off each object that has one; returns how many had."""
    return _change(conn, session, refs, lambda record: _replace(record, pins=max(record.pins - 1, 0)))


_replace = msgspec.structs.replace


def _change(conn: Connection, session: int, refs: Sequence[Ref], change: Change) -> int:
    def work(tx: WriteTransaction) -> int:
        return sum([_change_one(conn, tx, session, ref, change) for ref in refs])

    return conn.write(work)


def _change_one(conn: Connection, tx: WriteTransaction, session: int, ref: Ref, change: Change) -> bool:
    """Change one object's record, if there is one and it is not as it should be already. An object whose name
    was put anew while it was pinned goes with its last pin.
    """
    object_id = freeing.resolve(tx, session, ref)
    record = tx.sealed(session, object_id) if object_id else None
    if not object_id or record is None or not is_visible(conn, tx.txn.get, session, record):
        return False
    changed = change(record)
    if changed.flags & FLAG_LEFT and not changed.pins and not changed.used_by:
        tx.retire(session, object_id, record)
    elif changed != record:
        tx.rewrite_sealed(session, object_id, changed)
    return changed != record
