"""A session, as its users have it: a store of its own ids and names, on the connection of its store."""

from __future__ import annotations

import os

from flightstore.abc import AbstractSession
from flightstore.lifecycle import sessions
from flightstore.lifecycle.connection import Connection
from flightstore.store.local import Store

__all__ = ["Session"]


class Session(Store, AbstractSession):
    """A session of a store: its own ids and names. Made by :meth:`Store.session`; thread-safe, and usable on
    both sides of a fork.

    It has all methods of a store. :meth:`stats`, :meth:`recover`, :meth:`fsck` and :meth:`destroy` are
    those of the whole store. Once the session is over, reads find nothing; writing, or waiting
    for something, raises SessionEnded.
    """

    def __init__(self, conn: Connection, entry: sessions.Entry) -> None:
        record = entry.record
        self._session_name = record.name if record is not None else ""
        self._owned = entry if entry.owns and record is not None and record.ephemeral else None
        self._owner_pid = os.getpid()
        entry.handed_over = True
        super().__init__(conn, entry.number)

    @property
    def number(self) -> int:
        """The session's number, by which it can be attached to; unique in the store for ever."""
        return self._session

    @property
    def session_name(self) -> str | None:
        """The session's name, if it has one."""
        return self._session_name or None

    def end(self) -> None:
        """End the session for everybody: its ids and names are gone at once, whoever owns it.

        Objects that somebody holds stay readable to them. The memory is given back by the next creates, or
        by :meth:`recover`. Pins keep nothing here. Idempotent.

        Raises:
            StoreBusy: another process holds the writers' lock.
        """
        sessions.end(self._conn, self._session)

    def close(self) -> None:
        """Give up this handle. The owner's handle of an ephemeral session ends it."""
        conn, owned = self._connection, self._owned
        if conn is not None and owned is not None and self._owner_pid == os.getpid():
            conn.undo((sessions.ending(owned),))
        self._owned = None
        super().close()

    def __del__(self) -> None:
        """The same for a handle that is forgotten: by this process's next write, which a finalizer must not
        wait for.
        """
        conn, owned = getattr(self, "_connection", None), getattr(self, "_owned", None)
        if conn is not None and owned is not None and self._owner_pid == os.getpid():
            conn.abandoned.append(sessions.ending(owned))
            self._owned = None
        super().__del__()

    def __repr__(self) -> str:
        conn = self._connection
        name = f" {self._session_name!r}" if self._session_name else ""
        return f"<Session {self._session}{name} of {conn.path if conn else 'a closed store'}>"
