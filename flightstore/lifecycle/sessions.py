"""Sessions: ids and names of their own, within one store.

A session is a number in the keys of its objects, and one record: who owns it, whether it goes with its owner,
its quota. Beginning, attaching and ending are one transaction each. How readers see that a session is over
is in lifecycle.scopes; what a session may take is in lifecycle.quotas.

What an ended session leaves is reclaimed in slices, by whoever puts, makes room, sweeps or recovers. Why a
slice never frees what somebody reads: under one hold of the writers' lock it lists the sessions whose end is
*committed*, then comes the barrier, then it reads all leases. A reader that had published its lease before
the barrier is seen, and what it holds becomes dying; one that comes later looks at the session's record after
it has published, and finds it ended (memory.leases, lifecycle.scopes).

Pending objects are left alone: a client that lives may be copying into their extents at this moment, and no
lease says so. Their own client aborts them, when its seal is refused; those of the dead, recovery aborts.

May call extents and scopes: everything that makes room calls this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import encode_record
from flightstore.catalog.scopes import ACTIVE, ENDED, Owner, SessionRecord, decode_session
from flightstore.catalog.transaction import WriteTransaction, decode_counters
from flightstore.errors import InvalidArgument, SessionEnded, SessionNotFound
from flightstore.lifecycle import extents
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import owners_live, session_lives
from flightstore.memory import kernel
from flightstore.types import SessionInfo

__all__ = [
    "Entry",
    "end",
    "end_orphans",
    "ending",
    "enter",
    "infos",
    "lives",
    "reclaim",
    "reclaim_all",
    "refuse_ended",
    "required",
]

_SLICE = 64  # objects reclaimed after a put: bounds what others' ends cost it
_BATCH = 512  # objects reclaimed in one transaction of a sweep: bounds how long others wait


@dataclass(slots=True)
class Entry:
    """What a caller of `session` wants, and what it got."""

    name: str = ""
    """The name asked for; empty for none."""
    asked: int = 0
    """The number asked for; 0 for none."""
    attach: bool = False
    """Whether to become the owner of one that is there."""
    quota_bytes: int = 0
    """The quota asked for; 0 for none."""
    ephemeral: bool = False
    """Whether an ephemeral one was asked for."""
    number: int = field(init=False, default=0)
    """The session's number; set within the transaction that begins it."""
    record: SessionRecord | None = field(init=False, default=None)
    """Its record."""
    begun: bool = field(init=False, default=False)
    """Whether it was begun by this call."""
    owns: bool = field(init=False, default=False)
    """Whether the caller is its owner."""
    handed_over: bool = field(init=False, default=False)
    """Whether a handle has been made of it, which closes the connection from then on."""

    def __str__(self) -> str:
        return f"session {self.asked}" if self.asked else f"session {self.name!r}"


# --- beginning, joining, attaching ---


def enter(conn: Connection, entry: Entry) -> None:
    """Begin a session, or go into one that is there; tells in `entry` which.

    Should the caller fail to make a handle of it: `conn.undo((ending(entry),))` for one that was begun.

    Raises:
        SessionNotFound: the one to attach to, or of that number, is over, or never was.
        InvalidArgument: the one that is there has another quota, or is not ephemeral.
        CatalogFull: no room for another record.
    """
    owner = Owner(conn.client, os.getpid())
    conn.write(lambda tx: _enter(conn, tx, entry, owner))


def _enter(conn: Connection, tx: WriteTransaction, entry: Entry, owner: Owner) -> None:
    get = tx.txn.get
    number = entry.asked or _latest(get, entry.name)
    record = _record(get, number)
    if record is not None and not session_lives(conn, record):
        record = None
    if record is None and (entry.attach or entry.asked):
        raise SessionNotFound(
            f"there is no {entry} in {conn.path}, or not any more",
            hint="sessions() shows what there is; session(name) begins one",
        )
    if record is None or not (entry.attach or entry.asked or owners_live(conn, (record.owner,))):
        _begin(conn, tx, entry, owner)
        return
    _check_alike(entry, number, record)
    if entry.attach:
        record = msgspec.structs.replace(record, owner=owner)
        tx.txn.put(keys.session_key(number), encode_record(record))
    entry.number, entry.record, entry.owns, entry.begun = number, record, entry.attach, False


def _begin(conn: Connection, tx: WriteTransaction, entry: Entry, owner: Owner) -> None:
    conn.check_catalog_room()
    number = tx.counters.next_session
    tx.counters.next_session = number + 1
    record = SessionRecord(entry.name, owner, entry.ephemeral, entry.quota_bytes, time.time_ns())
    entry.number, entry.record, entry.owns, entry.begun = number, record, True, True
    tx.txn.put(keys.session_key(number), encode_record(record))
    if entry.name:
        tx.txn.put(keys.session_name_key(entry.name), number.to_bytes(4, "big"))


def _check_alike(entry: Entry, number: int, record: SessionRecord) -> None:
    """Refuse to go into a session that is not what the caller asked for."""
    if entry.quota_bytes and entry.quota_bytes != record.quota_bytes:
        has = f"a quota of {record.quota_bytes:,} bytes" if record.quota_bytes else "no quota"
        raise InvalidArgument(
            f"session {number} has {has}, not of {entry.quota_bytes:,}", hint="leave quota= out to go into it"
        )
    if entry.ephemeral and not record.ephemeral:
        raise InvalidArgument(
            f"session {number} is not ephemeral", hint="leave ephemeral= out, or end it and begin another"
        )


def _latest(get: Callable[[bytes], bytes | None], name: str) -> int:
    """The number that a session's name leads to; 0 for none."""
    return int.from_bytes((get(keys.session_name_key(name)) if name else None) or b"", "big")


def _record(get: Callable[[bytes], bytes | None], number: int) -> SessionRecord | None:
    if not 0 < number < 1 << 32:
        return None
    raw = get(keys.session_key(number))
    return None if raw is None else decode_session(raw)


# --- whether it lives ---


def lives(conn: Connection, number: int) -> bool:
    """Whether a session is not over."""
    record = _record(conn.catalog.get, number)
    return record is not None and session_lives(conn, record)


def required(conn: Connection, tx: WriteTransaction, number: int) -> SessionRecord:
    """The record of a session that somebody writes in.

    Raises:
        SessionEnded: it is over.
    """
    return _required(conn, tx.txn.get, number)


def refuse_ended(conn: Connection, number: int) -> None:
    """Refuse to wait for something in a session that is over: nothing appears in it any more.

    Raises:
        SessionEnded: it is. Never for 0, the store itself.
    """
    if number:
        _required(conn, conn.catalog.get, number)


def _required(conn: Connection, get: Callable[[bytes], bytes | None], number: int) -> SessionRecord:
    record = _record(get, number)
    if record is None or not session_lives(conn, record):
        name = f" {record.name!r}" if record is not None and record.name else ""
        raise SessionEnded(
            f"the session{name} (number {number}) of {conn.path} is over",
            hint="begin another: store.session(...)",
        )
    return record


# --- ending ---


def end(conn: Connection, number: int) -> bool:
    """End a session, for everybody and at once; False when it was over already."""

    def work(tx: WriteTransaction) -> bool:
        record = _record(tx.txn.get, number)
        return record is not None and _end(tx, number, record)

    return conn.write(work)


def ending(entry: Entry) -> Callable[[WriteTransaction], object]:
    """What ends the session of an entry, as long as it is the caller's, and keeps nothing else alive."""
    number, ours = entry.number, entry.record

    def step(tx: WriteTransaction) -> None:
        record = _record(tx.txn.get, number)
        if record is not None and record == ours:  # nobody has attached to it since
            _end(tx, number, record)

    return step


def end_orphans(conn: Connection) -> int:
    """End the ephemeral sessions whose owner is gone; returns how many."""

    def orphans(records: list[tuple[bytes, bytes]]) -> list[tuple[int, SessionRecord]]:
        found = [(int.from_bytes(key[1:], "big"), decode_session(raw)) for key, raw in records]
        return [one for one in found if one[1].state == ACTIVE and not session_lives(conn, one[1])]

    if not orphans(conn.catalog.items(keys.SESSION)):
        return 0
    return conn.write(lambda tx: sum(_end(tx, *one) for one in orphans(tx.records(keys.SESSION))))


def _end(tx: WriteTransaction, number: int, record: SessionRecord) -> bool:
    if record.state != ACTIVE:
        return False
    tx.txn.put(keys.session_key(number), encode_record(msgspec.structs.replace(record, state=ENDED)))
    tx.counters.ended += 1
    return True


# --- reclaiming ---


def reclaim_all(conn: Connection) -> tuple[int, int]:
    """Reclaim all that ended sessions left; returns how many objects were freed, and their bytes."""
    objects = freed = 0
    more = decode_counters(conn.catalog.get(keys.COUNTERS) or b"").ended > 0
    while more:
        done, nbytes, more = reclaim(conn, _BATCH)
        objects += done
        freed += nbytes
    return objects, freed


def reclaim(conn: Connection, most: int = _SLICE) -> tuple[int, int, bool]:
    """Reclaim at most so many objects of ended sessions.

    Returns:
        How many were freed, their bytes, and whether there may be more.
    """
    return conn.exclusive(lambda: _reclaim_slice(conn, most))


def _reclaim_slice(conn: Connection, most: int) -> tuple[int, int, bool]:
    # Read before the barrier, and not in the transaction below: that one may end sessions itself, those
    # whose handle was closed meanwhile, and their readers were not looked for.
    ended = [
        int.from_bytes(key[1:], "big")
        for key, raw in conn.catalog.items(keys.SESSION)
        if decode_session(raw).state == ENDED
    ]
    if not ended:
        return 0, 0, False
    kernel.membarrier()
    held = conn.clients.held()
    most = conn.catalog.batch(most)
    return conn.transact(lambda tx: _reclaim(tx, ended, held, most))


def _reclaim(tx: WriteTransaction, ended: Sequence[int], held: set[int], most: int) -> tuple[int, int, bool]:
    count = left = 0
    unheld: list[Any] = []
    for number in ended:
        prefix = keys.session_prefix(keys.OBJECT, number)
        ids = [key[len(prefix) :] for key, _ in islice(scan(tx.txn, prefix), most - count)]
        count += len(ids)
        for object_id in ids:
            record = tx.sealed(number, object_id)
            if record is None:
                continue  # it was only kept for another one of these
            record = tx.remove_sealed(number, object_id, record)
            if record.serial in held:
                tx.add_dying(record)
            else:
                tx.drop_continuations(record)
                unheld.append(record)
        if count >= most:
            left = 1
            break
        _forget(tx, number)
    freed = extents.give_back(tx, (extent for record in unheld for extent in record.extents))
    return len(unheld), freed, bool(left)


def _forget(tx: WriteTransaction, number: int) -> None:
    """Take away the record of a session that nothing is left of but what is dying."""
    record = _record(tx.txn.get, number)
    if record is None:
        return
    tx.txn.delete(keys.session_key(number))
    if _latest(tx.txn.get, record.name) == number:
        tx.txn.delete(keys.session_name_key(record.name))
    tx.counters.ended -= 1


# --- looking ---


def infos(conn: Connection) -> list[SessionInfo]:
    """All sessions that there is a record of, by number."""
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            found = [
                (int.from_bytes(key[1:], "big"), decode_session(raw)) for key, raw in scan(txn, keys.SESSION)
            ]
            figures = {number: _figures(txn, number) for number, _ in found}
        finally:
            txn.abort()
    return [_info(conn, number, record, *figures[number]) for number, record in found]


def _figures(txn: Any, number: int) -> tuple[int, int]:
    """(bytes that count against its quota, sealed objects) of a session."""
    used = int.from_bytes(txn.get(keys.quota_key(number)) or b"", "big")
    return used, sum(1 for _ in scan(txn, keys.session_prefix(keys.OBJECT, number)))


def _info(conn: Connection, number: int, record: SessionRecord, used_bytes: int, objects: int) -> SessionInfo:
    return SessionInfo(
        id=number,
        name=record.name or None,
        state="active" if session_lives(conn, record) else "ended",
        owner_pid=record.owner.pid,
        owner_alive=owners_live(conn, (record.owner,)),
        ephemeral=record.ephemeral,
        quota_bytes=record.quota_bytes or None,
        used_bytes=used_bytes,
        objects=objects,
        created_ns=record.created_ns,
    )
