"""Making objects: from a payload to a sealed object, or to nothing at all.

Small payloads are allocated, written and sealed in one transaction. Large ones take two, with the copy in
between, outside of any lock: *allocate* (the object is pending: recorded with its client, invisible), copy,
*seal*. If the client dies or the copy is interrupted, the pending object is aborted, by the client itself or
by recovery. An extent that is being written is named by no lease and needs none: it belongs to a pending
object of a live client.

Either way the object becomes visible, under its id and name, at one commit; a name it takes over changes
hands in the same one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.records import LOAN, Extent, Member, ObjectRecord
from flightstore.catalog.scopes import SpillRecord
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import NotStorable, ObjectExists, StoreClosed, StoreFull
from flightstore.lifecycle import batches, events, extents, freeing, queue, quotas, room, sessions
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.pressure import Effort
from flightstore.lifecycle.scopes import is_visible
from flightstore.memory import allocator, kernel
from flightstore.memory.control import Control
from flightstore.memory.copying import copy_pieces
from flightstore.memory.leases import Lease
from flightstore.objects.base import Payload
from flightstore.types import ObjectID

__all__ = [
    "SMALL_BYTES",
    "Assembly",
    "NewObject",
    "abort",
    "allocate",
    "give_up",
    "new_object",
    "put",
    "refuse_taken",
    "seal",
    "seal_all",
    "undoing",
    "write_pending",
]

T = TypeVar("T")

SMALL_BYTES = 64 << 10
"""Payloads up to this size are written within the transaction that seals them."""
_INLINE_METADATA_BYTES = 512
_MAX_METADATA_BYTES = 1 << 20


@dataclass(slots=True)
class NewObject:
    """One object on its way into the store."""

    session: int
    payload: Payload
    name: str | None = None
    object_id: ObjectID | None = None
    """The caller's id; None for a generated one."""
    metadata: bytes = b""
    metadata_at: tuple[int, int] | None = None
    nbytes: int = -1
    """Payload bytes without metadata; -1 for all of the payload."""
    shared: tuple[Extent, ...] = ()
    """Extents of other objects that it is composed of. The caller holds leases on these meanwhile."""
    members: tuple[Member, ...] = ()
    """Those objects."""
    loan: SpillRecord | None = None
    """What it borrows, if `shared` lists LOAN."""
    assembly: Assembly | None = None
    """What it becomes when it is sealed, if it is made of several pending objects."""
    flags: int = 0
    """FLAG_* that it has from the beginning."""
    may_spill: bool = True
    """Whether other objects may be spilled to make room for it."""
    batch: int = 0
    """The batch that it goes with; 0 for none."""
    hold: bool = False
    """Whether to take a lease on it in the transaction that seals it."""
    held: tuple[ObjectRecord, Lease] | None = field(init=False, default=None)
    """Its record and that lease, once it is sealed."""
    id: ObjectID = field(init=False)
    serial: int = field(init=False, default=0)
    """Its number, once it is pending."""

    def __post_init__(self) -> None:
        self.id = self.object_id if self.object_id is not None else ObjectID.random()

    def record(self, conn: Connection, serial: int, extent: Extent | None) -> ObjectRecord:
        """The object's record, without what it shares."""
        payload = self.payload
        return ObjectRecord(
            serial,
            payload.kind,
            (extent,) if extent is not None else (),
            payload.layout,
            (self.name,) if self.name is not None else (),
            payload.size_bytes if self.nbytes < 0 else self.nbytes,
            payload.num_rows,
            time.time_ns(),
            os.getpid(),
            conn.client,
            self.flags,
            self.metadata,
            self.metadata_at,
            batch=self.batch,
            batches=(self.batch,) if self.batch else (),
            origin=payload.origin,
        )


class Assembly(NamedTuple):
    """A pending object and others that become one object in the commit that seals it."""

    parts: tuple[NewObject, ...]
    """All of them, the object itself included: their extents, in this order, become its extents, and the
    metadata of the first one its metadata."""
    payload: Payload
    """Kind, layout and rows that it has then."""
    nbytes: int
    """And its bytes."""


def new_object(
    session: int, payload: Payload, name: str | None, object_id: ObjectID | None, metadata: Any
) -> NewObject:
    """An object with the user's metadata: in the record when short, else behind the payload.

    Raises:
        NotStorable: msgpack cannot hold the metadata, or they are too long.
    """
    if metadata is None:
        return NewObject(session, payload, name, object_id)
    encoded = _encode_metadata(metadata)
    if len(encoded) <= _INLINE_METADATA_BYTES:
        return NewObject(session, payload, name, object_id, encoded)
    at = kernel.round_up(payload.size_bytes, allocator.UNIT)
    longer = msgspec.structs.replace(
        payload, size_bytes=at + len(encoded), pieces=[*payload.pieces, (at, encoded)]
    )
    return NewObject(session, longer, name, object_id, b"", (at, len(encoded)), payload.size_bytes)


def _encode_metadata(metadata: Any) -> bytes:
    try:
        encoded = msgspec.msgpack.encode(metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotStorable(
            f"metadata of type {type(metadata).__name__} cannot be stored: {error}",
            hint="use None, numbers, text, bytes, lists and dicts",
        ) from error
    if len(encoded) > _MAX_METADATA_BYTES:
        raise NotStorable(
            f"the metadata takes {len(encoded):,} bytes, at most {_MAX_METADATA_BYTES:,} are allowed",
            hint="put it as an object of its own",
        )
    return encoded


def put(conn: Connection, objects: Sequence[NewObject], deadline: float | None) -> None:
    """Store objects; all become visible in one commit, or none.

    Raises:
        StoreFull, CatalogFull, ObjectExists, SessionEnded, BatchEnded: nothing was stored.
    """
    if len(objects) == 1 and objects[0].payload.size_bytes <= SMALL_BYTES:
        seal_all(conn, (), objects, deadline)
        freeing.sweep_if_worthwhile(conn)
        return
    large = [new for new in objects if new.payload.size_bytes > SMALL_BYTES]
    small = [new for new in objects if new.payload.size_bytes <= SMALL_BYTES]
    stay = conn.leases.stay() if large else None  # what is pending lives as long as its client file
    try:
        for new in large:
            _copy(conn, new.payload, allocate(conn, new, deadline, holding=new is not large[0]))
        seal_all(conn, large, small, deadline)
    except BaseException:
        give_up(conn, large)
        raise
    finally:
        del stay
    freeing.sweep_if_worthwhile(conn)


def write_pending(
    conn: Connection, new: NewObject, deadline: float | None, *, holding: bool = True
) -> Extent:
    """Make a pending object and write its payload; whoever calls seals it, or gives it up.

    Args:
        conn: The store.
        new: The object.
        deadline: When (monotonic seconds) to stop waiting for room; None never stops.
        holding: As for `with_room`: True for what is made beside another pending object.

    Returns:
        Where it lies.

    Raises:
        ObjectExists, StoreFull, CatalogFull, SessionEnded: there is no pending object then.
    """
    extent = allocate(conn, new, deadline, holding=holding)
    _copy(conn, new.payload, extent)
    return extent


def refuse_taken(conn: Connection, session: int, object_id: ObjectID) -> None:
    """See early that an id is taken; the transaction that records the object looks again.

    Raises:
        ObjectExists: it is.
    """
    conn.write(lambda tx: _refuse_taken(conn, tx, session, object_id))


def _copy(conn: Connection, payload: Payload, extent: Extent) -> None:
    arena, offset = conn.arena, extent.offset
    cold = arena.needs_populate(offset, extent.length)
    whole = range(offset, offset + extent.length)

    def populate(at: int, nbytes: int) -> None:
        arena.populate(offset + at, nbytes, whole)

    copy_pieces(
        arena.write_address + offset,
        extent.length,
        payload.pieces,
        populate=populate if cold else None,
    )


def seal_all(
    conn: Connection,
    pending: Sequence[NewObject],
    small: Sequence[NewObject],
    deadline: float | None,
) -> None:
    """One transaction that seals what is pending and stores the small ones, repeated until there is room for
    those.
    """

    def work(tx: WriteTransaction, looks: int | None) -> None:
        if small:
            conn.check_catalog_room()
        for new in pending:
            _seal_pending(conn, tx, new)
        for new in small:
            _put_small(conn, tx, new, looks)

    needed = sum(kernel.round_up(new.payload.size_bytes, allocator.UNIT) for new in small)
    effort = _effort_for([*pending, *small])
    with_room(conn, work, needed, allocator.UNIT, deadline, effort, holding=bool(pending) or not needed)


def _effort_for(objects: Sequence[NewObject]) -> Effort:
    """How far to go for objects that are made together."""
    return Effort(objects[0].session, all(new.may_spill for new in objects))


class _NoRoom(Exception):
    """Leaves a transaction that found no room, changing nothing."""


Allocating = Callable[[WriteTransaction, "int | None"], T]


def with_room(
    conn: Connection,
    work: Allocating[T],
    nbytes: int,
    align: int,
    deadline: float | None,
    effort: Effort,
    *,
    holding: bool = False,
) -> T:
    """Run a transaction that allocates, making room between attempts; who waits is served in turn.

    `work` is told whether to look at every free range (``looks`` of `extents.take`). Whether the session may
    take so much is seen before: for what is refused, nobody else's room is asked for, and who waits for that
    does not queue. `holding`: it belongs to something that is pending already, and so does not queue either.

    Raises:
        StoreFull: there is no room; an event tells of it.
    """
    queues = not holding and (deadline is None or deadline > time.monotonic())

    def admitted(tx: WriteTransaction, looks: int | None) -> T:
        if effort.session:
            quotas.admit(conn, tx, effort.session, kernel.round_up(nbytes, align))
        return work(tx, looks)

    try:
        while True:
            try:
                return _with_room(conn, admitted, nbytes, align, deadline, effort, queues=queues)
            except quotas.OverQuota as over:
                quotas.make_room_in_session(conn, over, deadline, effort)
    except StoreFull:
        events.record_full(conn, effort.session, nbytes)
        raise


def _with_room(
    conn: Connection,
    work: Allocating[T],
    nbytes: int,
    align: int,
    deadline: float | None,
    effort: Effort,
    *,
    queues: bool,
) -> T:
    """At once if possible, else in turn."""

    def at_once(tx: WriteTransaction) -> T:
        if queues and tx.counters.waiting:
            raise _NoRoom  # others were here before
        return work(tx, allocator.LOOKS)

    try:
        return conn.write(at_once)
    except _NoRoom:
        place = queue.Place(conn, nbytes, deadline, queues=queues)
        return _in_turn(conn, work, align, place, effort)


def _in_turn(conn: Connection, work: Allocating[T], align: int, place: queue.Place, effort: Effort) -> T:
    """Repeat the transaction until there is room; a ticket that was taken is given back, whatever happens."""
    abandon = place.abandon
    try:
        return _until_it_fits(conn, work, align, place, effort)
    except StoreFull as error:
        place.explain(error)
        raise
    finally:
        abandon()
        place.settle()


def _until_it_fits(
    conn: Connection, work: Allocating[T], align: int, place: queue.Place, effort: Effort
) -> T:
    nbytes, deadline = place.nbytes, place.deadline
    patience: float | None = None
    looks: int | None = allocator.LOOKS

    def attempt(tx: WriteTransaction) -> T:
        if not place.admits(tx):
            raise _NoRoom
        result = work(tx, looks)
        place.leave(tx)
        return result

    lacking = not place.queues  # else all that is known yet is that others were here before
    while True:
        if not place.wait_for_turn():
            raise room.store_full(conn, nbytes)
        if lacking:
            patience = patience or time.monotonic() + conn.busy_timeout_s
            thorough = room.make_room(conn, nbytes, align, deadline, patience, effort)
            looks = None if thorough else allocator.LOOKS
        try:
            result = conn.write(attempt)
            place.done()
            return result
        except _NoRoom:
            lacking = True


def _put_small(conn: Connection, tx: WriteTransaction, new: NewObject, looks: int | None) -> None:
    if new.object_id is not None:
        _refuse_taken(conn, tx, new.session, new.object_id)
    extent = None
    payload = new.payload
    if payload.size_bytes:
        extent = extents.take(tx, payload.size_bytes, session=new.session, looks=looks)
        if extent is None:
            raise _NoRoom
        copy_pieces(conn.arena.write_address + extent.offset, extent.length, payload.pieces)
    record = _sharing(tx, new, new.record(conn, tx.next_serial(), extent))
    _make_visible(conn, tx, new, record, ring_id=new.object_id is not None)


def _sharing(tx: WriteTransaction, new: NewObject, record: ObjectRecord) -> ObjectRecord:
    """The record with what it shares, counted. In the transaction that seals it, so that nothing shared is
    ever part of a pending object.
    """
    if not new.shared and not new.members:
        return record
    shared = [
        tx.borrow(new.loan) if new.loan and extent == LOAN else tx.share_extent(extent)
        for extent in new.shared
    ]
    return msgspec.structs.replace(record, extents=(*record.extents, *shared), members=new.members)


def _refuse_taken(conn: Connection, tx: WriteTransaction, session: int, object_id: ObjectID) -> None:
    """Ids are never overwritten; but one of an object whose scope is over is free, wherever its memory is."""
    record = tx.sealed(session, object_id)
    if record is not None and not is_visible(conn, tx.txn.get, session, record):
        tx.retire(session, object_id, record)
    if tx.id_is_taken(session, object_id):
        raise ObjectExists(
            f"an object with the id {object_id} exists already",
            hint="ids are never overwritten: delete it first",
        )


def _make_visible(
    conn: Connection, tx: WriteTransaction, new: NewObject, record: ObjectRecord, *, ring_id: bool
) -> None:
    session, object_id = new.session, new.id
    if record.batch:
        batches.open_batch(conn, tx, session, record.batch)
    record = tx.join_members(session, record)  # before names change hands: a member outlives its name
    for name in record.names:
        freeing.release_name(tx, session, name, object_id)
        tx.ring(Control.bell_of(keys.name_key(session, name)))
    tx.add_sealed(session, object_id, record)
    if ring_id:
        tx.ring(Control.bell_of(keys.object_key(session, object_id)))
    if new.hold:
        new.held = record, Lease(conn.leases, record.serial)


def allocate(
    conn: Connection,
    new: NewObject,
    deadline: float | None,
    align: int = allocator.UNIT,
    *,
    holding: bool = False,
) -> Extent:
    """Make a pending object with room for its payload; `holding` as for `with_room`.

    Raises:
        ObjectExists, StoreFull, CatalogFull, SessionEnded: there is no pending object then.
    """
    nbytes = max(new.payload.size_bytes, 1)

    def work(tx: WriteTransaction, looks: int | None) -> Extent:
        conn.check_catalog_room()
        _refuse_taken(conn, tx, new.session, new.id)
        extent = extents.take(tx, nbytes, align, session=new.session, looks=looks)
        if extent is None:
            raise _NoRoom
        new.serial = tx.next_serial()
        tx.add_pending(new.session, new.id, new.record(conn, new.serial, extent))
        return extent

    return with_room(conn, work, nbytes, align, deadline, _effort_for([new]), holding=holding)


def seal(conn: Connection, new: NewObject) -> None:
    """Make a pending object visible.

    Raises:
        SessionEnded: its session is over.
        StoreClosed: it was aborted, by its owner or because its owner was taken for dead.
        BatchEnded: the batch that it was to go with is over; it is still pending.
    """
    conn.write(lambda tx: _seal_pending(conn, tx, new))
    freeing.sweep_if_worthwhile(conn)


def _seal_pending(conn: Connection, tx: WriteTransaction, new: NewObject) -> None:
    if new.session:
        sessions.required(conn, tx, new.session)
    record = tx.pending(new.session, new.id)
    if record is None:
        raise StoreClosed(f"the object {new.id} is no longer being created: it was aborted")
    if new.assembly is None:
        tx.drop_pending(new.session, new.id)
    else:
        record = _assembled(tx, new, new.assembly, record)
    _make_visible(conn, tx, new, _sharing(tx, new, record), ring_id=True)


def _assembled(
    tx: WriteTransaction, new: NewObject, assembly: Assembly, record: ObjectRecord
) -> ObjectRecord:
    """The record with the extents of all parts, which are pending no more."""
    extents: list[Extent] = []
    head: ObjectRecord | None = None
    for part in assembly.parts:
        found = tx.pending(part.session, part.id)
        if found is None or found.serial != part.serial:
            raise StoreClosed(f"a part of the object {new.id} is no longer being created: it was aborted")
        tx.drop_pending(part.session, part.id)
        extents += found.extents
        head = head or found
    assert head is not None
    return msgspec.structs.replace(
        record,
        kind=assembly.payload.kind,
        layout=assembly.payload.layout,
        extents=tuple(extents),
        nbytes=assembly.nbytes,
        num_rows=assembly.payload.num_rows,
        metadata=head.metadata,
        metadata_at=head.metadata_at,
    )


def abort(conn: Connection, session: int, object_id: ObjectID) -> bool:
    """Make a pending object of this process vanish; False when there is none.

    Its extent goes through the dying objects, because a view of a builder may still map it.
    """

    def work(tx: WriteTransaction) -> bool:
        record = tx.pending(session, object_id)
        return record is not None and record.client == conn.client and tx.abort_pending(session, object_id)

    return conn.write(work)


def give_up(conn: Connection, objects: Sequence[NewObject]) -> None:
    """Abort those of the objects that are pending, because of an exception that is on its way.

    Whatever happens meanwhile, no later than with this process's next write.
    """
    begun = [undoing(new) for new in objects if new.serial]
    if begun:
        conn.undo(begun)


def undoing(new: NewObject) -> Callable[[WriteTransaction], object]:
    """What aborts an object if it is pending, and keeps nothing of it alive.

    Its serial is known since before the commit that made it pending: not even an interrupt right after that
    commit leaves it behind.
    """
    session, object_id, serial = new.session, new.id, new.serial
    return lambda tx: tx.abort_pending(session, object_id, serial)
