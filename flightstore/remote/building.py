"""The part of a remote store that builds in place: in private memory, which is sent by the seal.

So nothing of an object is in the store before its seal: room is asked for then, and the id is taken then. A
builder that is forgotten, or whose process dies, leaves nothing.
"""

from __future__ import annotations

import os
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from flightstore.errors import BatchEnded, FlightStoreError, InvalidArgument, StoreClosed
from flightstore.lifecycle.building import blob_payload
from flightstore.lifecycle.tablebuilding import TableBuilder
from flightstore.objects.base import Payload
from flightstore.objects.encoding import encode_table
from flightstore.objects.ipc import open_table
from flightstore.remote.attached import Attached
from flightstore.remote.private import writable_memory
from flightstore.store.attached import check_new, deadline_of
from flightstore.types import ObjectID

if TYPE_CHECKING:
    from flightstore.remote.store import RemoteStore
    from flightstore.wire.frames import FrameHeader

__all__ = ["Building", "RemoteBuilder", "RemoteTableBuilder"]


class RemoteBuilder:
    """A blob being built; implements BlobBuilder."""

    def __init__(
        self, store: RemoteStore, payload: Payload, header: FrameHeader, timeout: float | None
    ) -> None:
        self._store = store
        self._payload = payload
        self._header = header
        self._timeout = timeout
        self._pid = os.getpid()
        self._state = "open"
        self._view = writable_memory(payload.size_bytes)
        for offset, piece in payload.pieces:
            raw = memoryview(piece).cast("B")
            self._view[offset : offset + raw.nbytes] = raw

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        return ObjectID.from_text(str(self._header.id))

    @property
    def is_open(self) -> bool:
        """Whether it was neither sealed nor aborted."""
        return self._state == "open"

    @property
    def is_sealed(self) -> bool:
        """Whether it was sealed."""
        return self._state == "sealed"

    @property
    def buffer(self) -> memoryview:
        """The memory that will be sent, writable, zeroed. After seal, writes to it reach nobody.

        Raises:
            StoreClosed: it was sealed or aborted.
        """
        self.check()
        return self._view

    def seal(self) -> ObjectID:
        """Send the object and make it visible. Idempotent.

        Raises:
            StoreClosed: it was aborted.
            StoreFull: there is no room; the builder stays as it is.
            ObjectExists: its id is taken.
            BatchEnded: the batch in which it was created is over; it is aborted.
        """
        whole = pa.py_buffer(self._view) if self.is_open else None
        return self.seal_as(Payload(self._payload.kind, self._payload.layout, len(self._view), ((0, whole),)))

    def seal_as(self, payload: Payload) -> ObjectID:
        """The same, with bytes that were made of the memory."""
        if self._state != "sealed":
            self.check()
            header = self._header
            header.kind, header.layout, header.size_bytes = payload.kind, payload.layout, payload.size_bytes
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            try:
                self._store._put_payload(header, payload, deadline, ours=False)
            except BatchEnded:
                self.abort()
                raise
            self._state = "sealed"
        return self.id

    def abort(self) -> None:
        """Make the object vanish as if it had never been. Idempotent; does nothing once sealed."""
        if self._state == "open":
            self._state = "aborted"

    def check(self) -> None:
        """Refuse to go on with what was sealed or aborted, or with another process's builder.

        Raises:
            StoreClosed, FlightStoreError: it is so.
        """
        if self._pid != os.getpid():
            raise FlightStoreError(
                f"the object {self.id} is being built by process {self._pid}",
                hint="a forked child cannot go on with its parent's builder: create in the child",
            )
        if self._state != "open":
            raise StoreClosed(f"the object {self.id} was {self._state}", hint="create another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._state == "open":
            self.seal()


class RemoteTableBuilder(TableBuilder):
    """A table being built in private memory: filled as a local one, and sent by the seal."""

    _builder: RemoteBuilder  # type: ignore[assignment]

    def __init__(
        self,
        store: RemoteStore,
        schema: pa.Schema,
        num_rows: int,
        header_of: Any,
        timeout: float | None,
    ) -> None:
        payload = self._planned(schema, num_rows)
        self._long_metadata = False
        builder = RemoteBuilder(store, payload, header_of(payload), timeout)
        self._builder = builder  # pyright: ignore[reportIncompatibleVariableOverride]
        self._builder._header.num_rows = num_rows

    @property
    def builder(self) -> RemoteBuilder:
        """What holds its memory."""
        return self._builder

    def _seal_with_helper(self) -> ObjectID:
        """Columns that were given whole make the table another stream than was planned."""
        fixed = open_table(pa.py_buffer(self._builder.buffer), self._plan.stream.layout)
        columns = [
            self._given[field.name] if field.name in self._given else fixed.column(field.name)
            for field in self._schema
        ]
        return self._builder.seal_as(encode_table(pa.Table.from_arrays(columns, schema=self._schema)))


class Building(Attached):
    """create, create_now, create_table, abort."""

    _open_builders: weakref.WeakValueDictionary[ObjectID, RemoteBuilder]

    def create(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> RemoteBuilder:
        """As that of a local store, in private memory: `timeout`, for room, is that of the seal."""
        deadline_of(timeout)
        check_new(name, object_id)
        payload = blob_payload(nbytes)
        self._refuse_too_much(nbytes)
        header = self._of_store._header(payload, name, object_id, metadata)
        return self._known(RemoteBuilder(self._of_store, payload, header, timeout))

    def create_now(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
    ) -> RemoteBuilder:
        """:meth:`create` whose seal does not wait. (It may spill: a gateway's put cannot be told not to.)"""
        return self.create(nbytes, name, object_id=object_id, metadata=metadata)

    def create_table(
        self,
        schema: pa.Schema,
        num_rows: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> RemoteTableBuilder:
        """As that of a local store, in private memory: `timeout`, for room, is that of the seal."""
        deadline_of(timeout)
        check_new(name, object_id)
        store = self._of_store

        def header_of(payload: Payload) -> FrameHeader:
            self._refuse_too_much(payload.size_bytes)
            return store._header(payload, name, object_id, metadata)

        builder = RemoteTableBuilder(store, schema, num_rows, header_of, timeout)
        self._known(builder.builder)
        return builder

    def abort(self, ref: ObjectID) -> bool:
        """Abort a builder of this handle; False if there is none."""
        builder = self._builders().get(ref)
        if builder is None or not builder.is_open:
            return False
        builder.abort()
        return True

    def _refuse_too_much(self, nbytes: int) -> None:
        if nbytes > self.capacity_bytes:
            from flightstore.errors import StoreFull

            error = StoreFull(f"{nbytes:,} bytes do not fit into the store at {self.url}")
            error.asked_bytes, error.capacity_bytes = nbytes, self.capacity_bytes
            raise error

    @property
    def _of_store(self) -> RemoteStore:
        from flightstore.remote.store import RemoteStore

        assert isinstance(self, RemoteStore)
        return self

    def _builders(self) -> weakref.WeakValueDictionary[ObjectID, RemoteBuilder]:
        if "_open_builders" not in vars(self):
            self._open_builders = weakref.WeakValueDictionary()
        return self._open_builders

    def _known(self, builder: RemoteBuilder) -> RemoteBuilder:
        known = self._builders()
        other = known.get(builder.id)
        if other is not None and other.is_open:
            raise InvalidArgument(f"the object {builder.id} is being built already")
        known[builder.id] = builder
        return builder
