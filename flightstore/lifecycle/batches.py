"""Batches: scopes that objects go with. Beginning, ending, passing objects on, owners, status.

A batch is one record; ending it is one change of that record, and from this commit on nobody sees the objects
that go with it (lifecycle.scopes). Their memory comes back later, in slices (lifecycle.batch_sweep).

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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import FLAG_KEPT, FLAG_LEFT, ObjectRecord, decode_record, encode_record
from flightstore.catalog.scopes import ACTIVE, CLOSED, ENDED, BatchRecord, Owner, decode_batch
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import BatchEnded, InvalidArgument, ObjectNotFound
from flightstore.lifecycle import batch_sweep
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import batch_lives, is_visible, now_ns
from flightstore.types import BatchInfo, ObjectID, Ref

__all__ = [
    "begin",
    "check_open",
    "delete",
    "end",
    "end_step",
    "info",
    "infos",
    "join",
    "keep",
    "leave",
    "transfer",
]

_STEP = 512
"""Objects passed on in one transaction: bounds how long others wait."""
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


def _batch(tx: WriteTransaction, number: int) -> BatchRecord | None:
    raw = tx.txn.get(keys.batch_key(number))
    return None if raw is None else decode_batch(raw)


def _put(tx: WriteTransaction, number: int, batch: BatchRecord, **changes: Any) -> None:
    tx.txn.put(keys.batch_key(number), encode_record(msgspec.structs.replace(batch, **changes)))


def _open(conn: Connection, tx: WriteTransaction, session: int, number: int) -> BatchRecord:
    """A batch of this session that is active and not over.

    Raises:
        BatchEnded: it is.
        InvalidArgument: it is another session's.
    """
    batch = _batch(tx, number)
    if batch is None or batch.state != ACTIVE or not batch_lives(conn, batch):
        raise _ended(number, batch)
    _check_session(session, number, batch)
    return batch


def check_open(conn: Connection, tx: WriteTransaction, session: int, number: int) -> None:
    """Refuse to seal an object into a batch that is over.

    Raises:
        BatchEnded: it is.
    """
    _open(conn, tx, session, number)


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
    batch = _batch(tx, number)
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
        batch = _batch(tx, number)
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
        batch = _open(conn, tx, session, number)
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
        batch = _open(conn, tx, session, number)
        at = next((at for at, owner in enumerate(batch.owners) if owner.client == mine), -1)
        if at < 0:
            return
        owners = batch.owners[:at] + batch.owners[at + 1 :]
        if owners:
            _put(tx, number, batch, owners=owners)
        else:
            _finish(tx, number, batch, ENDED if batch.cleanup else CLOSED)

    conn.write(work)


# --- passing objects on ---


def transfer(conn: Connection, session: int, refs: Iterable[Ref], number: int) -> None:
    """Let objects go with another batch, or with none (0), from now on. What they went with still lists them.

    Raises:
        ObjectNotFound: one of them is not there. Those before it may have been passed on.
        BatchEnded: the batch is over.
    """

    def step(tx: WriteTransaction, some: Sequence[Ref]) -> None:
        if number:
            _open(conn, tx, session, number)
        for ref in some:
            object_id, record = _there(conn, tx, session, ref)
            _pass_on(tx, session, object_id, record, number)

    _in_steps(conn, refs, step)


def keep(conn: Connection, session: int, number: int, refs: Iterable[Ref]) -> None:
    """Let objects outlive a batch: they pass to the nearest batch around it that is not over, else to none.

    What was made in a batch within this one passes too; what goes with none or with one around it is left
    alone, since it outlives this one anyway.

    Raises:
        ObjectNotFound: one of them is not there. Those before it may have been passed on.
        BatchEnded: the batch is over.
        InvalidArgument: an object goes with a batch that has nothing to do with this one.
    """

    def step(tx: WriteTransaction, some: Sequence[Ref]) -> None:
        batch = _open(conn, tx, session, number)
        outer = next((one for one in batch.around if _is_open(conn, tx, one)), 0)
        for ref in some:
            object_id, record = _there(conn, tx, session, ref)
            if record.batch == number or _is_within(tx, record.batch, number):
                _pass_on(tx, session, object_id, record, outer)
            elif record.batch and record.batch not in batch.around:
                raise InvalidArgument(
                    f"the object {ObjectID(object_id)} goes with batch {record.batch}, not with {number}",
                    hint="keep it in the batch that it was made in, or use transfer_ownership",
                )

    _in_steps(conn, refs, step)


def _in_steps(
    conn: Connection, refs: Iterable[Ref], step: Callable[[WriteTransaction, Sequence[Ref]], None]
) -> None:
    wanted = list(refs)
    while wanted:
        some = wanted[: conn.catalog.batch(_STEP)]
        conn.write(lambda tx: step(tx, some))  # noqa: B023 - called at once
        del wanted[: len(some)]


def _is_open(conn: Connection, tx: WriteTransaction, number: int) -> bool:
    batch = _batch(tx, number)
    return batch is not None and batch.state == ACTIVE and batch_lives(conn, batch)


def _is_within(tx: WriteTransaction, inner: int, number: int) -> bool:
    batch = _batch(tx, inner) if inner else None
    return batch is not None and number in batch.around


def _there(conn: Connection, tx: WriteTransaction, session: int, ref: Ref) -> tuple[bytes, ObjectRecord]:
    """(id, record) of an object that everybody sees.

    Raises:
        ObjectNotFound: it is not there.
    """
    object_id = ref if isinstance(ref, ObjectID) else tx.txn.get(keys.name_key(session, ref))
    record = tx.sealed(session, object_id) if object_id else None
    if object_id is None or record is None or not is_visible(conn, tx.txn.get, session, record):
        shown = str(ref) if isinstance(ref, ObjectID) else repr(ref)
        raise ObjectNotFound(f"there is no object {shown} in {conn.path}", hint="list() shows what there is")
    return object_id, record


def _pass_on(tx: WriteTransaction, session: int, object_id: bytes, record: ObjectRecord, number: int) -> None:
    """Let an object go with another batch. It outlives its name from now on, and whatever is made of it."""
    if record.batch == number:
        return
    batches = record.batches
    if number and number not in batches:
        batches = (*batches, number)
        tx.txn.put(keys.batched_key(number, session, object_id), b"")
    flags = (record.flags | FLAG_KEPT) & ~FLAG_LEFT
    passed = msgspec.structs.replace(record, batch=number, batches=batches, flags=flags)
    tx.rewrite_sealed(session, object_id, passed)


# --- status ---


def info(conn: Connection, number: int) -> BatchInfo | None:
    """What is known about a batch; None when nothing is left of it."""
    with conn.catalog.gate:
        txn = conn.catalog.begin()
        try:
            raw = txn.get(keys.batch_key(number))
            return None if raw is None else _info(conn, txn, number, decode_batch(raw))
        finally:
            txn.abort()


def infos(conn: Connection, session: int) -> list[BatchInfo]:
    """The batches of a session, in the order in which they were begun."""
    with conn.catalog.gate:
        txn = conn.catalog.begin()
        try:
            found = [
                (int.from_bytes(key[1:], "big"), decode_batch(raw)) for key, raw in scan(txn, keys.BATCH)
            ]
            return [_info(conn, txn, number, batch) for number, batch in found if batch.session == session]
        finally:
            txn.abort()


def _info(conn: Connection, txn: Any, number: int, batch: BatchRecord) -> BatchInfo:
    objects = nbytes = 0
    for key, _ in scan(txn, keys.batch_prefix(number)):
        record = decode_record(txn.get(keys.OBJECT + key[9:]))
        if record.batch == number:
            objects += 1
            nbytes += record.nbytes
    living = [owner.pid for owner in batch.owners if conn.clients.lives(owner.client)]
    left_ns = max(batch.expires_ns - now_ns(), 0)
    return BatchInfo(
        id=number,
        name=batch.name or None,
        state={ACTIVE: "active", CLOSED: "closed"}[batch.state] if batch_lives(conn, batch) else "ended",
        objects=objects,
        nbytes=nbytes,
        parent=batch.parent or None,
        owner_pids=tuple(dict.fromkeys(living)),
        created_ns=batch.created_ns,
        expires_s=left_ns / 1e9 if batch.expires_ns else None,
        session=batch.session,
    )
