"""What all parts of the facade stand on: a connection, and the session whose objects are meant."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from flightstore.catalog.keys import check_name
from flightstore.errors import InvalidArgument, StoreClosed
from flightstore.lifecycle import reading
from flightstore.lifecycle.connection import Connection
from flightstore.objects.base import Object
from flightstore.objects.registry import open_object
from flightstore.store import current
from flightstore.store.forked import renewed_in_children
from flightstore.store.view import View
from flightstore.types import ObjectID, Ref

__all__ = ["Attached", "check_new", "checked", "deadline_of", "listed"]


class Attached:
    """One handle on a store."""

    mapped = True
    """Whether it works on the store's memory, with no gateway between."""

    def __init__(self, conn: Connection, session: int = 0) -> None:
        self._session = session
        self._closing = threading.Lock()
        renewed_in_children(self, "_closing")
        self._connection: Connection | None = conn

    @property
    def _conn(self) -> Connection:
        conn = self._attached
        conn.refuse_destroyed()
        return conn

    @property
    def _attached(self) -> Connection:
        conn = self._connection
        if conn is None:
            raise StoreClosed("this store handle was closed", hint="connect again")
        return conn

    @property
    def path(self) -> str:
        """Directory of the store."""
        return self._attached.path

    @property
    def capacity_bytes(self) -> int:
        """Upper bound of the memory for payload."""
        return self._attached.capacity_bytes

    @property
    def _current(self) -> int:
        """Number of the batch that new objects go with; 0 for none."""
        if not current.any_entered():
            return 0
        found = current.current(self._conn.control.identity.nonce, self._session)
        return found.number if found is not None else 0

    def get(self, ref: Ref, *, timeout: float | None = 0) -> Object:
        """A reference on a sealed object; see :meth:`flightstore.abc.AbstractStore.get`."""
        conn = self._conn
        acquired = reading.acquire(conn, self._session, ref)
        if acquired is None:
            if timeout == 0:
                raise reading.not_found(conn, ref, None)
            acquired = reading.wait_for(conn, self._session, ref, deadline_of(timeout))
            if acquired is None:
                raise reading.not_found(conn, ref, timeout)
        return self._open(conn, acquired)

    def _open(self, conn: Connection, acquired: reading.Acquired) -> Object:
        return open_object(reading.handle_for(conn, View(conn, self._session), acquired))


def check_new(name: str | None, object_id: ObjectID | None) -> None:
    """Refuse what cannot be a new object's name or id."""
    if name is not None:
        check_name(name)
    if object_id is not None and not isinstance(object_id, ObjectID):
        raise InvalidArgument(f"object_id is an ObjectID, got {type(object_id).__name__}")


def checked(ref: Ref) -> Ref:
    if not isinstance(ref, ObjectID):
        check_name(ref)
    return ref


def listed(refs: Ref | Iterable[Ref]) -> list[Ref]:
    """One reference, or several, as a list; refuses what cannot be one."""
    return [checked(ref) for ref in ([refs] if isinstance(refs, str | bytes) else refs)]


def deadline_of(timeout: float | None) -> float | None:
    """When (monotonic seconds) a timeout ends; None for never.

    Raises:
        InvalidArgument: it is not a number of seconds.
    """
    if timeout is None:
        return None
    if not timeout >= 0:
        raise InvalidArgument(f"a timeout of {timeout} s: give seconds, 0 not to wait, None to wait for ever")
    return time.monotonic() + timeout
