"""Scopes: batches and sessions, as far as every reader must know them.

An object is *visible* when its record is there, its session is not over, and the batch that it goes with is
not over. One record's change ends a scope for everybody, and nobody needs to make that change: a scope whose
time is over, or whose last owner is gone, is over from that instant. What is left of it is reclaimed by the
next create, `recover` or sweep (lifecycle.batches, lifecycle.sessions).

Readers look at the scope's record after they have published their lease, like at the object's. Whoever
reclaims has committed the scope's end before the barrier. So the argument of memory.leases covers it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flightstore.catalog import keys
from flightstore.catalog.records import ObjectRecord
from flightstore.catalog.scopes import (
    ACTIVE,
    CLOSED,
    BatchRecord,
    Owner,
    SessionRecord,
    decode_batch,
    decode_session,
)
from flightstore.lifecycle.connection import Connection

__all__ = ["Sight", "batch_lives", "is_visible", "now_ns", "owners_live", "session_lives"]

Get = Callable[[bytes], bytes | None]


def now_ns() -> int:
    """The clock of batches' deadlines: goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def is_visible(conn: Connection, get: Get, session: int, record: ObjectRecord) -> bool:
    """Whether a sealed object's scopes are not over. `get` reads a key of the catalog.

    A pinned object stays when its batch ends.
    """
    if session and not _session_is_there(conn, get, session):
        return False
    return not record.batch or record.pins > 0 or _batch_is_there(conn, get, record.batch)


def _session_is_there(conn: Connection, get: Get, session: int) -> bool:
    raw = get(keys.session_key(session))
    return raw is not None and session_lives(conn, decode_session(raw))


def _batch_is_there(conn: Connection, get: Get, batch: int) -> bool:
    raw = get(keys.batch_key(batch))
    return raw is not None and batch_lives(conn, decode_batch(raw))


class Sight:
    """`is_visible` for many objects of one moment: asks about each scope once."""

    def __init__(self, conn: Connection, get: Get) -> None:
        self._conn = conn
        self._get = get
        self._sessions: dict[int, bool] = {0: True}
        self._batches: dict[int, bool] = {0: True}

    def sees(self, session: int, record: ObjectRecord) -> bool:
        """Whether the object is visible."""
        if session not in self._sessions:
            self._sessions[session] = _session_is_there(self._conn, self._get, session)
        if not self._sessions[session]:
            return False
        batch = record.batch if not record.pins else 0
        if batch not in self._batches:
            self._batches[batch] = _batch_is_there(self._conn, self._get, batch)
        return self._batches[batch]


def session_lives(conn: Connection, session: SessionRecord) -> bool:
    """Whether a session is not over."""
    if session.state != ACTIVE:
        return False
    return not session.ephemeral or owners_live(conn, (session.owner,))


def batch_lives(conn: Connection, batch: BatchRecord) -> bool:
    """Whether a batch's objects are to be seen: it is active, or was closed without cleaning up."""
    if batch.state != ACTIVE:
        return batch.state == CLOSED
    if batch.expires_ns and now_ns() >= batch.expires_ns:
        return False
    return owners_live(conn, batch.owners)


def owners_live(conn: Connection, owners: Iterable[Owner]) -> bool:
    """Whether one of the owners lives."""
    mine = conn.client
    clients = [owner.client for owner in owners]
    return mine in clients or any(conn.clients.lives(client) for client in clients)
