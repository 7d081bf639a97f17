"""Deleting objects, and giving their memory back once nobody reads it.

Deleting takes the id and the names away at once and leaves the object *dying*: recorded, unreachable, its
extents intact. A sweep returns the extents of those dying objects that no lease names.

Why a sweep never frees what somebody reads: it runs under the writers' lock, after a memory barrier on all
clients (memory.leases has the argument). All dying objects it considers were committed as such before the
barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.records import FLAG_KEPT, FLAG_LEFT, FLAG_PROBING, ObjectRecord, decode_record
from flightstore.catalog.transaction import WriteTransaction
from flightstore.lifecycle import batch_sweep, extents, former_loans, sessions
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import is_visible
from flightstore.memory import kernel
from flightstore.types import ObjectID, Ref

__all__ = ["delete", "delete_unused", "release_name", "resolve", "sweep", "sweep_if_worthwhile"]

_SWEEP_OBJECTS = 64
_SWEEP_SHARE = 8  # an eighth of the capacity
_BATCH = 512  # objects freed in one transaction: bounds how long others wait


def resolve(tx: WriteTransaction, session: int, ref: Ref) -> bytes | None:
    """The id that a reference means; None for a name that does not exist."""
    if isinstance(ref, ObjectID):
        return ref
    return tx.txn.get(keys.name_key(session, ref))  # type: ignore[no-any-return]


def delete(conn: Connection, session: int, refs: Iterable[Ref]) -> int:
    """Delete objects, whoever reads them; returns how many there were."""
    return _in_batches(conn, session, refs, _delete)


def _in_batches(
    conn: Connection,
    session: int,
    refs: Iterable[Ref],
    work: Callable[[Connection, int, Sequence[Ref]], int],
) -> int:
    """Delete in transactions that find room in the catalog, however full it is."""
    wanted, count = list(refs), 0
    while wanted:
        now = conn.catalog.batch(_BATCH)
        count += work(conn, session, wanted[:now])
        del wanted[:now]
    return count


def _delete(conn: Connection, session: int, refs: Sequence[Ref]) -> int:
    def work(tx: WriteTransaction) -> int:
        count = 0
        for ref in refs:
            object_id = resolve(tx, session, ref)
            record = _visible(conn, tx, session, object_id) if object_id else None
            if object_id and record:
                tx.retire(session, object_id, record)
                count += 1
        return count

    count = conn.write(work)
    if count:
        sweep_if_worthwhile(conn)
    return count


def _visible(conn: Connection, tx: WriteTransaction, session: int, object_id: bytes) -> ObjectRecord | None:
    """The record of a sealed object whose scopes are not over."""
    record = tx.sealed(session, object_id)
    return record if record is not None and is_visible(conn, tx.txn.get, session, record) else None


def release_name(tx: WriteTransaction, session: int, name: str, new_id: bytes) -> None:
    """Free a name for a new object: its old object is deleted, unless it has another name, is pinned, was
    kept by a batch, or is a member of another; then it stays under its id.
    """
    old_id = tx.txn.get(keys.name_key(session, name))
    if old_id is None or old_id == new_id:
        return
    record = tx.sealed(session, old_id)
    if record is None:
        return
    kept = record.flags & FLAG_KEPT
    if len(record.names) == 1 and not record.pins and not record.used_by and not kept:
        tx.retire(session, old_id, record)
        return
    others = tuple(other for other in record.names if other != name)
    flags = record.flags if others or kept else record.flags | FLAG_LEFT
    tx.rewrite_sealed(session, old_id, msgspec.structs.replace(record, names=others, flags=flags))


# --- conditional delete ---


def delete_unused(conn: Connection, session: int, refs: Iterable[Ref]) -> int:
    """Delete those objects that nobody holds and that are members of no other, and do nothing to the rest;
    returns how many were deleted.

    Exact in spite of readers that take no lock: the objects are first marked as being probed, in a commit of
    its own. A reader that had published its lease before the barrier is seen; one that comes later sees the
    mark, and waits for the writers' lock, that is for the outcome. Should this process die in between,
    whoever sees the mark while holding the lock knows that nobody is probing, and takes it away.
    """
    return _in_batches(conn, session, refs, _delete_unused)


def _delete_unused(conn: Connection, session: int, refs: Sequence[Ref]) -> int:
    def both_steps() -> int:
        probed = conn.transact(lambda tx: _mark(conn, tx, session, refs))
        kernel.membarrier()
        held = conn.clients.held_by_living({record.serial for record in probed.values()})
        return conn.transact(lambda tx: _settle(tx, session, probed, held))

    count = conn.exclusive(both_steps)
    if count:
        sweep_if_worthwhile(conn)
    return count


def _mark(
    conn: Connection, tx: WriteTransaction, session: int, refs: Iterable[Ref]
) -> dict[bytes, ObjectRecord]:
    probed: dict[bytes, ObjectRecord] = {}
    for ref in refs:
        object_id = resolve(tx, session, ref)
        record = _visible(conn, tx, session, object_id) if object_id else None
        if object_id and record and not record.used_by:
            marked = msgspec.structs.replace(record, flags=record.flags | FLAG_PROBING)
            tx.rewrite_sealed(session, object_id, marked)
            probed[object_id] = marked
    return probed


def _settle(tx: WriteTransaction, session: int, probed: dict[bytes, ObjectRecord], held: set[int]) -> int:
    count = 0
    for object_id, record in probed.items():
        if record.serial in held:
            unmark(tx, session, object_id, record)
        else:
            tx.retire(session, object_id, record)
            count += 1
    return count


def unmark(tx: WriteTransaction, session: int, object_id: bytes, record: ObjectRecord) -> ObjectRecord:
    """Take the mark of a conditional delete away. Requires the writers' lock: nobody is probing then."""
    plain = msgspec.structs.replace(record, flags=record.flags & ~FLAG_PROBING)
    tx.rewrite_sealed(session, object_id, plain)
    return plain


# --- sweeping ---


def sweep_if_worthwhile(conn: Connection) -> None:
    """Sweep when much has died since the last sweep, so that the memory is used again while it is warm; and
    reclaim a slice of a batch that was ended.
    """

    counters = conn.counters
    if counters is None:
        return
    if counters.ended:
        sessions.reclaim(conn)
        batch_sweep.reclaim_some(conn)
    objects = counters.dying - counters.swept_dying
    freed = counters.dying_bytes - counters.swept_bytes
    if objects >= _SWEEP_OBJECTS or freed * _SWEEP_SHARE >= conn.capacity_bytes:
        _sweep_dying(conn)


def sweep(conn: Connection) -> tuple[int, int]:
    """Give back the memory of all dying objects that nobody holds, and of scopes that are over; returns how
    many objects, and their bytes.
    """
    parts = [sessions.reclaim_all(conn), batch_sweep.reclaim(conn), _sweep_dying(conn)]
    former_loans.end(conn)
    return sum(objects for objects, _ in parts), sum(freed for _, freed in parts)


def _sweep_dying(conn: Connection) -> tuple[int, int]:
    objects = freed = 0
    more = conn.control.usage()[4] > 0
    while more:
        done, nbytes, more = conn.exclusive(lambda: _sweep_batch(conn))
        objects += done
        freed += nbytes
    return objects, freed


def _sweep_batch(conn: Connection) -> tuple[int, int, bool]:
    kernel.membarrier()
    most = conn.catalog.batch(_BATCH)
    return conn.transact(lambda tx: _free_unheld(tx, conn.clients.held(), most))


def _free_unheld(tx: WriteTransaction, held: set[int], most: int) -> tuple[int, int, bool]:
    records = (decode_record(raw) for _, raw in tx.records(keys.DYING))
    free = [record for record in records if record.serial not in held]
    batch = [tx.unfold(record) for record in free[:most]]
    freed = extents.give_back(tx, (extent for record in batch for extent in record.extents))
    for record in batch:
        tx.drop_dying(record)
    tx.counters.swept_dying = tx.counters.dying
    tx.counters.swept_bytes = tx.counters.dying_bytes
    return len(batch), freed, len(free) > most
