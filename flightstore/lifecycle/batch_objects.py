"""Batches and their objects: passing objects on from one to another, and what there is in them.

May call lifecycle.batches, which has the invariants: each transaction that passes objects on checks that the
batch they pass to is active and not over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import FLAG_KEPT, FLAG_LEFT, ObjectRecord, decode_record
from flightstore.catalog.scopes import ACTIVE, CLOSED, BatchRecord, decode_batch
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import InvalidArgument, ObjectNotFound
from flightstore.lifecycle.batches import is_open, open_batch, read
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import batch_lives, is_visible, now_ns
from flightstore.types import BatchInfo, ObjectID, Ref

__all__ = ["info", "infos", "keep", "transfer"]

_STEP = 512
"""Objects passed on in one transaction: bounds how long others wait."""


def transfer(conn: Connection, session: int, refs: Iterable[Ref], number: int) -> None:
    """Let objects go with another batch, or with none (0), from now on. What they went with still lists them.

    Raises:
        ObjectNotFound: one of them is not there. Those before it may have been passed on.
        BatchEnded: the batch is over.
    """

    def step(tx: WriteTransaction, some: Sequence[Ref]) -> None:
        if number:
            open_batch(conn, tx, session, number)
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
        batch = open_batch(conn, tx, session, number)
        outer = next((one for one in batch.around if is_open(conn, tx, one)), 0)
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


def _is_within(tx: WriteTransaction, inner: int, number: int) -> bool:
    batch = read(tx, inner) if inner else None
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
