"""Objects that came over the network: the same kinds and connectors as for local ones, on private memory.

A record is rebuilt from the frame's header, so that whatever opens a local object opens a fetched one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.catalog.records import ARENA_FILE, Extent, Member, ObjectRecord
from flightstore.errors import StoreClosed
from flightstore.objects.base import Handle, Object
from flightstore.objects.registry import open_object
from flightstore.types import Holder, ObjectID
from flightstore.wire.frames import FrameHeader

if TYPE_CHECKING:
    from flightstore.remote.attached import Attached

__all__ = ["RemoteView", "arrived", "opened", "opened_later"]


class RemoteView:
    """What a fetched object may ask of the store it came from."""

    __slots__ = ("id", "source")

    def __init__(self, source: Attached, object_id: ObjectID) -> None:
        self.source = source
        self.id = object_id

    def holders_of(self, serial: int) -> list[Holder]:
        """The processes on the store's machine that hold it: this one's copy holds nothing there."""
        return self.source.holders(self.id)

    def borrows(self, record: ObjectRecord) -> bool:
        """Never: what was fetched is this process's own."""
        return False

    def loan_check(self, handle: Handle) -> Callable[[], None] | None:
        """None."""
        return None

    def persisted(self, handle: Handle, timeout: float | None) -> Handle:
        """The same."""
        return handle

    def departing(self, object_id: ObjectID) -> tuple[Callable[..., Object], tuple[Any, ...]]:
        source = self.source
        return arrived, (source.url, source.nonce, source.session_text, bytes(object_id))


def arrived(url: str, nonce: bytes, session: str | None, object_id: bytes) -> Object:
    """An object that travelled here, fetched again through its gateway.

    A handle that this process has on that gateway lends its credentials; otherwise FLIGHTSTORE_TOKEN is used.

    Raises:
        GatewayUnreachable, NotAuthenticated, StoreClosed: it cannot be reached from here, wants a token, or
            has another store by now.
        ObjectNotFound: it was deleted since.
    """
    from flightstore.remote.connecting import handle_for, nonce_of

    with handle_for(url, session) as store:
        if nonce_of(store) != nonce:
            raise StoreClosed(
                f"the store at {url} that {ObjectID(object_id)} came from is gone, another is there now"
            )
        return store.get(ObjectID(object_id))


def opened(source: Attached, header: FrameHeader, payload: pa.Buffer) -> Object:
    """A fetched object."""
    object_id = ObjectID.from_text(str(header.id))
    view = RemoteView(source, object_id)
    return open_object(Handle(view, object_id, _record(header), None, payload))


def opened_later(source: Attached, object_id: ObjectID) -> Object:
    """A table that is there, and is fetched when something of it but its id is asked for."""
    from flightstore.objects.table import Table

    return Table(_LaterHandle(source, object_id))


def _record(header: FrameHeader) -> ObjectRecord:
    size = header.size_bytes
    return ObjectRecord(
        header.serial,
        header.kind,
        (Extent(ARENA_FILE, 0, size),) if size else (),
        header.layout,
        (header.name,) if header.name is not None else (),
        size,  # of what lies here: a composed table was made a plain one
        header.num_rows,
        header.created_ns,
        header.creator_pid,
        metadata=header.metadata_raw,
        members=tuple(Member(bytes.fromhex(member), 0) for member in header.members),
        origin=header.origin,
    )


class _LaterHandle(Handle):
    """A handle whose record and payload are fetched together, when either is asked for."""

    __slots__ = ("_fetched",)

    def __init__(self, source: Attached, object_id: ObjectID) -> None:
        self.store = RemoteView(source, object_id)
        self.id = object_id
        self.lease = None
        self.others = ()
        self._fetched: Handle | None = None

    def _fetch(self) -> Handle:
        if self._fetched is None:
            view = self.store
            assert isinstance(view, RemoteView)
            self._fetched = view.source.fetch(self.id)._live
        return self._fetched

    @property
    def record(self) -> ObjectRecord:  # type: ignore[override]
        return self._fetch().record

    @property
    def payload(self) -> pa.Buffer:
        return self._fetch().payload
