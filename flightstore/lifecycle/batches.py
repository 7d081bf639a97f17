"""Batches: scopes that objects go with. Beginning, ending, owners.

A batch is one record; ending it is one change of that record, and from this commit on nobody sees the objects
that go with it (lifecycle.scopes). Their memory comes back later, in slices (lifecycle.batch_sweep). What is
done with their objects is in lifecycle.batch_objects.

Invariants, each kept in the transaction that could break it:
- an object goes with one batch at most (`ObjectRecord.batch`), and a batch that it goes with lists it;
- it is sealed into, or passed on to, a batch that is active and not over: so from its end on, the objects
  that go with a batch become fewer only;
- each process that a batch belongs to is in its owners, once for each time it joined. A fork adds nobody.

An end happens once: whoever comes second finds another state than ACTIVE, or no record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.records import encode_record
from flightstore.catalog.scopes import ACTIVE, CLOSED, ENDED, BatchRecord, Owner, decode_batch
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import BatchEnded, InvalidArgument
from flightstore.lifecycle import batch_sweep
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import batch_lives, now_ns

__all__ = [
    "begin",
    "delete",
    "end",
    "end_step",
    "is_open",
    "join",
    "leave",
    "open_batch",
    "read",
]

_MOST_AROUND = 64
"""How many outer batches a record lists: it stays well below a page."""


def begin(
    conn: Connection,
    session: int,
    name: str | None,
    around: tuple[int, ...],
    timeout_s: float | None,
    cleanup: bool,
) -> int:
    """Begin a batch that belongs to this process; returns its number.

    `around` are the batches that it is begun in, from the inside outwards.

    Raises:
        CatalogFull, StoreBusy: there is no batch then.
    """
    begun = BatchRecord(
        session,
        name or "",
        around[0] if around else 0,
        (Owner(conn.client, os.getpid()),),
        cleanup,
        0 if timeout_s is None else now_ns() + int(timeout_s * 1e9),
        time.time_ns(),
        outer=around[1:_MOST_AROUND],
    )
    encoded = encode_record(begun)
    number = 0

    def work(tx: WriteTransaction) -> int:
        nonlocal number
        conn.check_catalog_room()
        number = tx.counters.next_batch
        tx.counters.next_batch = number + 1
        tx.txn.put(keys.batch_key(number), encoded)
        return number

    def forget(tx: WriteTransaction) -> None:
        if number and tx.txn.get(keys.batch_key(number)) == encoded:
            tx.txn.delete(keys.batch_key(number))

    try:
        return conn.write(work)
    except BaseException:
        if number:  # an interrupt may have come right after the commit
            conn.undo((forget,))
        raise


def read(tx: WriteTransaction, number: int) -> BatchRecord | None:
    """The record of a batch; None when nothing is left of it."""
    raw = tx.txn.get(keys.batch_key(number))
    return None if raw is None else decode_batch(raw)


def _put(tx: WriteTransaction, number: int, batch: BatchRecord, **changes: Any) -> None:
    tx.txn.put(keys.batch_key(number), encode_record(msgspec.structs.replace(batch, **changes)))


def open_batch(conn: Connection, tx: WriteTransaction, session: int, number: int) -> BatchRecord:
    """A batch of this session that is active and not over.

    Raises:
        BatchEnded: it is.
        InvalidArgument: it is another session's.
    """
    batch = read(tx, number)
    if batch is None or batch.state != ACTIVE or not batch_lives(conn, batch):
        raise _ended(number, batch)
    _check_session(session, number, batch)
    return batch


def _ended(number: int, batch: BatchRecord | None) -> BatchEnded:
    """The error for a batch that is over, with the reason as far as it is known."""
    what = f"batch {number}" + (f" {batch.name!r}" if batch is not None and batch.name else "")
    if batch is None or batch.state == ENDED:
        why = "was ended"
    elif batch.state == CLOSED:
        why = "was ended, its objects stay until it is deleted"
    elif batch.expires_ns and now_ns() >= batch.expires_ns:
        why = "is over: its time has passed"
    else:
        why = "is over: the processes that it belonged to are gone"
    return BatchEnded(f"{what} {why}", hint="begin another one")


def is_open(conn: Connection, tx: WriteTransaction, number: int) -> bool:
    """Whether a batch is active and not over."""
    batch = read(tx, number)
    return batch is not None and batch.state == ACTIVE and batch_lives(conn, batch)


# --- the end ---


def end(conn: Connection, session: int, number: int) -> None:
    """End a batch: its objects go, or stay until `delete` if it was begun so.

    Raises:
        BatchEnded: it is over already.
    """
    batch, ended = conn.write(lambda tx: _end(conn, tx, session, number))
    if not ended:
        raise _ended(number, batch)


def end_step(conn: Connection, session: int, number: int) -> Callable[[WriteTransaction], object]:
    """What ends a batch unless it is over, for a transaction to come."""
    return lambda tx: _end(conn, tx, session, number)


def _end(
    conn: Connection, tx: WriteTransaction, session: int, number: int
) -> tuple[BatchRecord | None, bool]:
    """The record as it was, and whether it was this call that ended the batch."""
    batch = read(tx, number)
    if batch is None or batch.state != ACTIVE:
        return batch, False
    _check_session(session, number, batch)
    lives = batch_lives(conn, batch)
    _finish(tx, number, batch, CLOSED if lives and not batch.cleanup else ENDED)
    return batch, lives


def _finish(tx: WriteTransaction, number: int, batch: BatchRecord, state: int, **changes: Any) -> None:
    if state == ENDED:
        tx.counters.ended += 1
    _put(tx, number, batch, state=state, **changes)


def _check_session(session: int, number: int, batch: BatchRecord) -> None:
    if batch.session != session:
        raise InvalidArgument(f"batch {number} belongs to session {batch.session}, not to {session}")


def delete(conn: Connection, session: int, number: int) -> None:
    """End a batch, active or closed, and take all its objects away, those too that were kept.

    Raises:
        BatchEnded: it was ended before, and cleaned up.
    """

    def work(tx: WriteTransaction) -> None:
        batch = read(tx, number)
        if batch is None or batch.state == ENDED:
            raise _ended(number, batch)
        _check_session(session, number, batch)
        _finish(tx, number, batch, ENDED, all_listed=True)

    conn.write(work)
    batch_sweep.reclaim_batch(conn, number)  # what was kept goes only now


# --- owners ---


def join(conn: Connection, session: int, number: int) -> BatchRecord:
    """Make this process an owner, once more if it is one already.

    Raises:
        BatchEnded: the batch is over.
    """
    owner = Owner(conn.client, os.getpid())

    def work(tx: WriteTransaction) -> BatchRecord:
        batch = open_batch(conn, tx, session, number)
        _put(tx, number, batch, owners=(*batch.owners, owner))
        return batch

    return conn.write(work)


def leave(conn: Connection, session: int, number: int) -> None:
    """Take this process out of the owners, once; the last one ends the batch. Nothing happens if it is none.

    Raises:
        BatchEnded: the batch is over.
    """
    mine = conn.client

    def work(tx: WriteTransaction) -> None:
        batch = open_batch(conn, tx, session, number)
        at = next((at for at, owner in enumerate(batch.owners) if owner.client == mine), -1)
        if at < 0:
            return
        owners = batch.owners[:at] + batch.owners[at + 1 :]
        if owners:
            _put(tx, number, batch, owners=owners)
        else:
            _finish(tx, number, batch, ENDED if batch.cleanup else CLOSED)

    conn.write(work)
