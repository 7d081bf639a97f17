"""Quotas: what a session may take of the memory.

An extent counts against the session that allocated it, from then until it is free again: while its object is
pending, sealed or dying, and while objects of other sessions share it. The sum is kept by the transaction
that changes it, so the check and what it admits are one commit.

The check comes before anything is allocated. So a session that is at its end asks for no room: nobody else's
objects are swept, moved or given up for a create that would be refused all the same.

May call sessions, recovery and pressure; sealing calls this.
"""

from __future__ import annotations

import time

from flightstore.catalog import keys
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import QuotaExceeded, SpillFailed
from flightstore.lifecycle import pressure, recovery, sessions
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.pressure import Effort
from flightstore.memory.control import Control

__all__ = ["OverQuota", "admit", "make_room_in_session"]

_POLL_S = 0.05  # leases are given back without a bell: look again this often while waiting


class OverQuota(Exception):
    """Leaves a transaction that would take a session beyond its quota, changing nothing."""

    def __init__(self, session: int, nbytes: int, quota_bytes: int) -> None:
        super().__init__(session, nbytes, quota_bytes)
        self.session = session
        self.nbytes = nbytes
        self.quota_bytes = quota_bytes


def admit(conn: Connection, tx: WriteTransaction, session: int, nbytes: int) -> None:
    """Refuse what a session may not do any more, or not take.

    Args:
        conn: The store.
        tx: The transaction that is about to allocate.
        session: In which session; not for 0, the store itself, which may take all there is.
        nbytes: Bytes of the extents, with their padding.

    Raises:
        SessionEnded: it is over.
        OverQuota: it has no room for so much at this moment.
    """
    quota = sessions.required(conn, tx, session).quota_bytes
    if quota and nbytes and tx.used_by_session(session) + nbytes > quota:
        raise OverQuota(session, nbytes, quota)


def make_room_in_session(conn: Connection, over: OverQuota, deadline: float | None, effort: Effort) -> None:
    """Make room within a session's quota, or wait for it a moment; the caller tries again.

    What nobody needs any more is given back first: what is dying, and what dead clients were making. Then
    objects of this session, and of no other, are evicted or spilled.

    Args:
        conn: The store.
        over: What was refused.
        deadline: When (monotonic seconds) to stop waiting; None never stops.
        effort: On whose behalf, and how far it may go.

    Raises:
        QuotaExceeded: there is no room, and waiting is over; SpillFailed where spilling could have helped.
    """
    if over.nbytes > over.quota_bytes:
        raise _exceeded(conn, over)
    seen = conn.control.bell(Control.ROOM_BELL)
    recovery.recover(conn, thorough=False)
    lacking = _used(conn, over.session) + over.nbytes - over.quota_bytes
    try:
        if lacking <= 0 or pressure.relieve_session(conn, lacking, effort):
            return
    except SpillFailed:
        if deadline is not None and time.monotonic() >= deadline:
            raise
    left = _POLL_S if deadline is None else deadline - time.monotonic()
    if left <= 0:
        raise _exceeded(conn, over)
    conn.control.sleep(Control.ROOM_BELL, seen, min(_POLL_S, left))


def _used(conn: Connection, session: int) -> int:
    return int.from_bytes(conn.catalog.get(keys.quota_key(session)) or b"", "big")


def _exceeded(conn: Connection, over: OverQuota) -> QuotaExceeded:
    """The error for a request beyond a session's quota, with its numbers."""
    used = _used(conn, over.session)
    error = QuotaExceeded(
        f"session {over.session} of {conn.path} has a quota of {over.quota_bytes:,} bytes: {used:,} are "
        f"used, {over.nbytes:,} more were asked for",
        hint="delete objects of this session, release what is held of deleted ones, or allow more time",
    )
    error.session = over.session
    error.quota_bytes = over.quota_bytes
    error.used_bytes = used
    error.asked_bytes = over.nbytes
    error.capacity_bytes = conn.capacity_bytes
    return error
