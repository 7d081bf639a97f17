"""Reclaiming: the memory of objects whose batch is over comes back, a slice at a time.

A slice is one hold of the writers' lock: barrier, leases, then one transaction that takes some of the objects
that the batch lists. What nobody holds is freed at once, without having been *dying*; the rest dies and is
swept like anything deleted. Nobody acts on a timer: each put does a slice while there is a batch to reclaim;
sweeps, `recover` and creates that find no room do all of it.

Why a slice never frees what somebody reads: the batch was ENDED in an earlier commit (one that is over
because of its owners or its time is made so first), and readers look at the batch's record after they have
published their lease, like at the object's. So whoever took the object is seen by the scan, or was turned
away. That holds for objects that go with the batch. Those that were passed on are visible all the time: when
they are to go as well (`all_listed`), they are retired, never freed in a slice. Nothing joins an ended batch
(lifecycle.batches), so it is done when it lists nothing more; its record goes then.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.records import ObjectRecord, encode_record
from flightstore.catalog.scopes import ACTIVE, ENDED, BatchRecord, decode_batch
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import CatalogFull, StoreBusy
from flightstore.lifecycle import extents
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import batch_lives
from flightstore.memory import kernel

__all__ = ["reclaim", "reclaim_batch", "reclaim_some"]

_SLICE = 128
"""Objects that one put takes: bounds what it does for others."""
_BATCH = 512
"""Objects taken in one transaction when all are: bounds how long others wait."""
_LOOKS = 32
"""Batches that a put looks at to find one that has ended."""


def reclaim_some(conn: Connection) -> None:
    """Take one slice of a batch that was ended, if there is one among those looked at: what each put does.
    When it cannot, the next one will: the put has succeeded.

    The places to look at go round, so that all batches have their turn however many there are.
    """
    found = _batches(conn, conn.batches_looked_at, _LOOKS)
    for number, batch in found:
        if batch.state == ENDED:
            with contextlib.suppress(StoreBusy, CatalogFull):
                more = conn.exclusive(lambda: _slice(conn, number, _SLICE))[2]  # noqa: B023 - called at once
                conn.batches_looked_at = number if more else number + 1
            return
    conn.batches_looked_at = found[-1][0] + 1 if len(found) == _LOOKS else 0


def reclaim(conn: Connection) -> tuple[int, int]:
    """Take what goes with any batch that is over; returns how many objects were freed, and their bytes."""
    objects = freed = 0
    for number, batch in _batches(conn):
        if batch.state == ENDED or not batch_lives(conn, batch):
            some, nbytes = reclaim_batch(conn, number, marked=batch.state == ENDED)
            objects, freed = objects + some, freed + nbytes
    return objects, freed


def reclaim_batch(conn: Connection, number: int, *, marked: bool = True) -> tuple[int, int]:
    """`reclaim` for one batch, which is over; `marked` says that it is ENDED already."""
    if not marked and not conn.write(lambda tx: _end_overdue(conn, tx, number)):
        return 0, 0
    objects = freed = 0
    more = True
    while more:
        some, nbytes, more = conn.exclusive(lambda: _slice(conn, number, _BATCH))
        objects, freed = objects + some, freed + nbytes
    return objects, freed


def _batches(conn: Connection, first: int = 0, most: int | None = None) -> list[tuple[int, BatchRecord]]:
    """Batches from a number on, at most so many."""
    catalog, found = conn.catalog, list[tuple[int, BatchRecord]]()
    with catalog.gate:
        txn = catalog.begin()
        try:
            cursor = txn.cursor()
            if cursor.set_range(keys.batch_key(first)):
                for key, raw in cursor:
                    if key[:1] != keys.BATCH or len(found) == most:
                        break
                    found.append((int.from_bytes(key[1:], "big"), decode_batch(raw)))
            return found
        finally:
            txn.abort()


def _slice(conn: Connection, number: int, most: int) -> tuple[int, int, bool]:
    """One slice of a batch that was ENDED before. Requires the writers' lock.

    Returns:
        How many objects were freed, the bytes that became free, and whether there is more to be done.
    """
    kernel.membarrier()
    held, most = conn.clients.held(), conn.catalog.batch(most)
    return conn.transact(lambda tx: _take(tx, number, held, most))


def _end_overdue(conn: Connection, tx: WriteTransaction, number: int) -> bool:
    """Make sure that a batch which is over is ENDED; False when it is not over, or gone."""
    raw = tx.txn.get(keys.batch_key(number))
    if raw is None:
        return False
    batch = decode_batch(raw)
    if batch.state == ACTIVE and not batch_lives(conn, batch):
        batch = msgspec.structs.replace(batch, state=ENDED)
        tx.txn.put(keys.batch_key(number), encode_record(batch))
        tx.counters.ended += 1
    return batch.state == ENDED


def _take(tx: WriteTransaction, number: int, held: set[int], most: int) -> tuple[int, int, bool]:
    """Take the first objects that an ended batch lists; forget the batch when these were all.

    Finding it ENDED here is enough: nobody else has written since the barrier.
    """
    raw = tx.txn.get(keys.batch_key(number))
    if raw is None or (batch := decode_batch(raw)).state != ENDED:
        return 0, 0, False  # another process was faster
    all_listed = batch.all_listed
    listed = _listed(tx.txn, number, most)
    free: list[ObjectRecord] = []
    for key in listed:
        _, session, object_id = keys.batched_of(key)
        record = tx.sealed(session, object_id)
        if record is None:
            continue  # it was left to one that was made of it, and went with that in this very loop
        goes_with_it = record.batch == number
        if record.pins or not (goes_with_it or all_listed):
            _unlist(tx, number, session, object_id, record)
        elif goes_with_it and record.serial not in held:
            gone = tx.remove_sealed(session, object_id, record)
            free.append(gone)
            if record.more:
                tx.drop_continuations(gone)
        else:
            tx.retire(session, object_id, record)
    freed = extents.give_back(tx, (extent for record in free for extent in record.extents))
    more = len(listed) == most
    if not more:
        tx.txn.delete(keys.batch_key(number))
        tx.counters.ended -= 1
    return len(free), freed, more


def _listed(txn: Any, number: int, most: int) -> list[bytes]:
    """The first keys of the index of the objects that a batch lists."""
    prefix, found = keys.batch_prefix(number), list[bytes]()
    cursor = txn.cursor()
    if cursor.set_range(prefix):
        for key in cursor.iternext(values=False):
            if not key.startswith(prefix) or len(found) == most:
                break
            found.append(key)
    return found


def _unlist(tx: WriteTransaction, number: int, session: int, object_id: bytes, record: ObjectRecord) -> None:
    """An object stays: it was passed on to another batch, or is pinned and goes with none from now on."""
    tx.txn.delete(keys.batched_key(number, session, object_id))
    batches = tuple(batch for batch in record.batches if batch != number)
    batch = 0 if record.batch == number else record.batch
    tx.rewrite_sealed(session, object_id, msgspec.structs.replace(record, batch=batch, batches=batches))
