"""What an object knows of the store it came from, and how it travels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flightstore.catalog.records import SPILL_FILE, ObjectRecord
from flightstore.errors import StoreClosed
from flightstore.lifecycle import reading, reports
from flightstore.lifecycle.connection import Connection
from flightstore.objects.base import Handle, Object
from flightstore.types import Holder, ObjectID

__all__ = ["View", "arrived"]


class View:
    """What an object may ask of the store it came from."""

    __slots__ = ("_conn", "_session")

    def __init__(self, conn: Connection, session: int) -> None:
        self._conn = conn
        self._session = session

    def holders_of(self, serial: int) -> list[Holder]:
        return reports.holders(self._conn, serial)

    def borrows(self, record: ObjectRecord) -> bool:
        from flightstore.lifecycle import lending  # needs what only writers need

        return lending.is_borrowed(self._conn, record)

    def loan_check(self, handle: Handle) -> Callable[[], None] | None:
        if all(extent.file != SPILL_FILE for extent in handle.record.extents) and not handle.record.more:
            return None
        from flightstore.lifecycle import lending

        return lending.check_of(self._conn, handle)

    def persisted(self, handle: Handle, timeout: float | None) -> Handle:
        from flightstore.lifecycle import lending
        from flightstore.store.attached import deadline_of  # calls this module

        conn = self._conn
        lending.persist(conn, handle.id, handle.record, deadline_of(timeout))
        return reading.handle_for(conn, self, (handle.id, handle.record, handle.lease))

    def departing(self, object_id: ObjectID) -> tuple[Callable[..., Object], tuple[Any, ...]]:
        identity = self._conn.control.identity
        return arrived, (self._conn.path, identity.nonce, self._session, bytes(object_id))


def arrived(path: str, nonce: bytes, session: int, object_id: bytes) -> Object:
    """An object that travelled here, got again from its store.

    Raises:
        NotAStore, StoreClosed: its store is not on this machine, or was destroyed since.
        ObjectNotFound: it was deleted since.
    """
    from flightstore.store.local import connect

    with connect(path, create=False) as store:
        if store._conn.control.identity.nonce != nonce:
            raise StoreClosed(
                f"the store {path} that {ObjectID(object_id)} came from was destroyed, another is there now"
            )
        store._session = session
        return store.get(ObjectID(object_id))
