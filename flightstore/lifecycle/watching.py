"""One look at a store for somebody who watches it: usage, the foremost objects, who holds what.

Reads only: no write transaction, no lease.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import Extent, ObjectRecord, decode_record, unfolded
from flightstore.catalog.transaction import decode_counters
from flightstore.lifecycle import reports
from flightstore.lifecycle.connection import Connection
from flightstore.memory import kernel
from flightstore.objects.registry import kind_name
from flightstore.types import ObjectID, StoreStats

__all__ = ["ORDERS", "Look", "WatchedClient", "WatchedObject", "look", "matching_ids", "matching_names"]

_STATES = {keys.OBJECT: "sealed", keys.PENDING: "pending", keys.DYING: "dying"}
_COMMAND_BYTES = 200
_ID_AT = 5  # a letter and a session come before the id
_LONG_KEY_BYTES = len(keys.name_key(0, "x" * keys.MAX_NAME_BYTES))
_SHORTEST_CUT = 400  # so much of a long name is in its key


@dataclass(frozen=True, slots=True)
class WatchedObject:
    """One object, as it was at the moment of the look."""

    id: ObjectID | None
    """Its id; None once it is deleted."""
    name: str | None
    """Its first name."""
    kind: str
    """``table``, ``tensor``, ``blob`` or ``object``."""
    state: str
    """``sealed``; ``pending`` while it is being made; ``dying`` once deleted, while its memory is held."""
    nbytes: int
    """Bytes of its payload."""
    num_rows: int | None
    """Rows of a table."""
    created_ns: int
    """When it was made."""
    creator_pid: int
    """Process that made it."""
    refs: int
    """References held on it, in all processes."""


@dataclass(frozen=True, slots=True)
class WatchedClient:
    """One process that is connected to the store."""

    pid: int
    """Process id; 0 for a child that is being forked at this moment."""
    process: str
    """The process's name."""
    command: str
    """Its command line, the beginning of a long one."""
    state: str
    """``alive``, ``stopped`` or ``dead``."""
    leases: int
    """References it holds."""
    objects: int
    """Objects it holds references on."""
    held_bytes: int
    """Memory that these objects keep."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw."""

    moment_s: float
    """When, by the monotonic clock."""
    stats: StoreStats
    """Usage of the whole store."""
    made: int
    """Objects ever made in the store, whatever became of them."""
    objects: list[WatchedObject]
    """The foremost objects in the order asked for."""
    clients: list[WatchedClient]
    """All clients, those that hold most first."""


ORDERS: Mapping[str, Callable[[ObjectRecord, int], Any]] = {
    "size": lambda record, refs: -record.nbytes,
    "recent": lambda record, refs: -record.created_ns,
    "refs": lambda record, refs: (-refs, -record.nbytes),
    "name": lambda record, refs: (not record.names, record.names[:1]),
}
"""The orders that objects can be asked for in; each by a key made of a record and its references."""


def look(conn: Connection, order: str, most: int) -> Look:
    """Look at a store once.

    Args:
        conn: The store.
        order: A key of ORDERS.
        most: How many objects are wanted.

    Raises:
        StoreClosed: the store was destroyed.
    """
    conn.refuse_destroyed()
    moment_s = time.monotonic()
    stats = reports.usage(conn)
    next_serial, records = _snapshot(conn)
    refs = conn.clients.counts()
    place = ORDERS[order]
    foremost = heapq.nsmallest(most, records, key=lambda one: place(one[1], refs[one[1].serial]))
    objects = [_watched(key, record, refs[record.serial]) for key, record in foremost]
    return Look(moment_s, stats, next_serial - 1, objects, _clients(conn, records))


def _snapshot(conn: Connection) -> tuple[int, list[tuple[bytes, ObjectRecord]]]:
    """The next serial number, and all records of objects with their keys, as of one moment."""
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            counters = decode_counters(txn.get(keys.COUNTERS))
            items = (item for letter in _STATES for item in scan(txn, letter))
            return counters.next_serial, [(key, unfolded(decode_record(raw), txn.get)) for key, raw in items]
        finally:
            txn.abort()


def _watched(key: bytes, record: ObjectRecord, refs: int) -> WatchedObject:
    letter = key[:1]
    return WatchedObject(
        id=None if letter == keys.DYING else ObjectID(key[_ID_AT:]),
        name=record.names[0] if record.names else None,
        kind=kind_name(record.kind),
        state=_STATES[letter],
        nbytes=record.nbytes,
        num_rows=record.num_rows,
        created_ns=record.created_ns,
        creator_pid=record.creator_pid,
        refs=refs,
    )


def _clients(conn: Connection, records: Iterable[tuple[bytes, ObjectRecord]]) -> list[WatchedClient]:
    infos = conn.clients.infos()
    held = {info.name: set(conn.clients.entries(info.name)) - {0} for info in infos}
    wanted = set().union(*held.values())
    extents = {record.serial: record.extents for _, record in records if record.serial in wanted}
    found = [
        WatchedClient(
            pid=info.pid,
            process=kernel.process_name(info.pid) if info.pid else "",
            command=_command(info.pid) if info.pid else "",
            state=_client_state(info.pid, info.alive),
            leases=info.leases,
            objects=len(held[info.name]),
            held_bytes=_bytes_of(extents.get(serial, ()) for serial in held[info.name]),
        )
        for info in infos
    ]
    return sorted(found, key=lambda client: (-client.held_bytes, -client.leases, client.pid))


def _command(pid: int) -> str:
    """A process's command line, arguments parted by blanks; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read(_COMMAND_BYTES)
    except OSError:
        return ""
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def _client_state(pid: int, alive: bool) -> str:
    if not alive:
        return "dead"
    return "stopped" if pid and kernel.process_state(pid) in ("T", "t") else "alive"


def _bytes_of(extents: Iterable[Iterable[Extent]]) -> int:
    """Bytes of the extents, each counted once however many objects use it."""
    distinct = {(one.file, one.offset): one.length for several in extents for one in several}
    return sum(distinct.values())


def matching_names(conn: Connection, prefix: str, session: int = 0) -> list[str]:
    """Names of objects that begin with `prefix`. Reads the names, not the objects."""
    start = keys.session_prefix(keys.NAME, session)
    found = conn.catalog.items(start + prefix.encode(errors="surrogateescape")[:_SHORTEST_CUT])
    names = (_name_of(conn, session, key, object_id) for key, object_id in found)
    return [name for name in names if name is not None and name.startswith(prefix)]


def _name_of(conn: Connection, session: int, key: bytes, object_id: bytes) -> str | None:
    """The name behind a name's key; of a long one the key holds the beginning only, the record the whole."""
    if len(key) != _LONG_KEY_BYTES:
        return key[_ID_AT:].decode()
    raw = conn.catalog.get(keys.object_key(session, object_id))
    names = () if raw is None else decode_record(raw).names
    return next((name for name in names if keys.name_key(session, name) == key), None)


def matching_ids(conn: Connection, prefix: str, session: int = 0) -> list[str]:
    """Ids of sealed objects, as text, that begin with `prefix`."""
    start = keys.session_prefix(keys.OBJECT, session)
    ids = (str(ObjectID(key[len(start) :])) for key, _ in conn.catalog.items(start))
    return [text for text in ids if text.startswith(prefix)]
