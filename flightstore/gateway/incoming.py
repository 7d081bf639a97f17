"""Uploads: what arrives over a network becomes an object of the store.

Nothing that arrives is believed. A table's batches (TableUpload) are validated one by one and copied out of
the transport's memory; a frame's payload (FrameUpload) is received straight into the object's own pages and
checked there before it is sealed. Until then nobody sees either, both count against the session's quota, and
whatever ends an upload leaves nothing behind. One thread at a time may use an upload.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from flightstore.catalog.records import FLAG_EVICTABLE
from flightstore.errors import InvalidArgument, StoreFull
from flightstore.lifecycle.building import Builder
from flightstore.lifecycle.sealing import new_object
from flightstore.lifecycle.streaming import TableWriter, stream_bytes
from flightstore.objects.base import Payload
from flightstore.objects.foreign import check_batch, check_origin, check_payload, check_schema
from flightstore.store.attached import check_new, deadline_of
from flightstore.store.local import Store
from flightstore.types import ObjectID
from flightstore.wire.frames import FrameHeader
from flightstore.wire.messages import PutCommand, unpack

__all__ = ["MAX_BATCH_BYTES", "MAX_ROOM_WAIT_S", "FrameUpload", "TableUpload"]

MAX_ROOM_WAIT_S = 30.0
"""No upload waits longer for room, at a time."""
MAX_BATCH_BYTES = 512 << 20
"""Larger batches are refused, unless the limit is set otherwise."""
_MOST_BYTES = 1 << 48  # what is shorter, and too long all the same, is refused by the store with its figures
MAX_BATCH_ROWS = (1 << 31) - 1
"""As Flight has it; rows of some types take no bytes."""


class TableUpload:
    """A table of unknown length, from untrusted batches; a context manager that aborts unless finished."""

    def __init__(
        self,
        store: Store,
        command: PutCommand,
        schema: pa.Schema,
        *,
        batch: int | None = None,
        max_object_bytes: int | None = None,
        max_batch_bytes: int = MAX_BATCH_BYTES,
    ) -> None:
        """Begin an upload; nothing is stored yet.

        Args:
            store: The store, or the session, that the table goes to.
            command: Name, id, metadata, and how to store it.
            schema: Schema of all batches.
            batch: The batch that it goes with; None for the command's, or else the current one.
            max_object_bytes: A longer table is refused; None for no limit.
            max_batch_bytes: A longer batch is refused.

        Raises:
            InvalidArgument: name, id, metadata or timeout are none.
            NotStorable: the stream format cannot say the schema.
            ObjectExists: the id is taken.
        """
        object_id = command.object_id
        check_new(command.name, object_id)
        check_schema(schema)
        self._schema = schema
        self._limit = max_object_bytes
        self._batch_limit = max_batch_bytes
        self.nbytes = 0
        """Bytes taken so far."""
        self._writer = TableWriter(
            store._conn,
            store._session,
            schema,
            command.name,
            object_id,
            command.users_metadata,
            _timeout(command.timeout_s),
            batch=command.batch or store._current if batch is None else batch,
            flags=FLAG_EVICTABLE if command.evictable else 0,
        )

    @property
    def id(self) -> ObjectID:
        """The id the table will have."""
        return self._writer.id

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        return self._writer.num_rows

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch. Its memory may go when this returns; any error ends the upload.

        Raises:
            InvalidArgument: it does not fit the schema, it is too long, or its buffers do not hold what its
                schema says.
            StoreFull, QuotaExceeded, SessionEnded, ...: it cannot be stored.
            StoreClosed: the upload is over.
        """
        try:
            self._refuse(batch)
            self._writer.write(batch)
        except BaseException:
            self.abort()
            raise

    def finish(self) -> ObjectID:
        """Make the table visible, all of it at once. Idempotent.

        Raises:
            StoreFull, SessionEnded, BatchEnded, ObjectExists, ...: nothing was stored.
            StoreClosed: it was aborted.
        """
        return self._writer.seal()

    def abort(self) -> None:
        """Make the upload vanish as if it had never been. Idempotent; does nothing once finished."""
        self._writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _refuse(self, batch: pa.RecordBatch) -> None:
        """See whether a batch is as it should be, and no longer than it may be.

        Buffers of a message may overlap, so a short one can say a long batch: sizes come first. What it takes
        to write it, dictionaries included, is asked once it is known to be valid.
        """
        if not batch.schema.equals(self._schema):
            raise InvalidArgument("a batch of another schema than the upload's")
        if batch.num_rows > MAX_BATCH_ROWS:
            raise InvalidArgument(f"a batch of {batch.num_rows:,} rows, at most {MAX_BATCH_ROWS:,} are taken")
        self._refuse_long(sum(buffer.size for column in batch for buffer in column.buffers() if buffer))
        check_batch(batch)
        nbytes = stream_bytes(self._schema, batch) if len(self._schema) else 0
        self._refuse_long(nbytes)
        _refuse_longer(self.nbytes + nbytes, self._limit)
        self.nbytes += nbytes

    def _refuse_long(self, nbytes: int) -> None:
        if nbytes > self._batch_limit:
            raise InvalidArgument(
                f"a batch of {nbytes:,} bytes, at most {self._batch_limit:,} are taken",
                hint="send the table in smaller batches",
            )


class FrameUpload:
    """The payload of a frame of known size; a context manager that aborts unless finished."""

    def __init__(self, store: Store, header: FrameHeader, *, max_object_bytes: int | None = None) -> None:
        """Make room for a payload.

        Args:
            store: The store, or the session, that the object goes to.
            header: What the payload is, and how to store it.
            max_object_bytes: A longer payload is refused; None for no limit.

        Raises:
            InvalidArgument: the header is not one.
            ObjectExists: the id is taken.
            StoreFull, QuotaExceeded, SessionEnded, ...: there is no room.
        """
        object_id = ObjectID.from_text(header.id) if header.id is not None else None
        check_new(header.name, object_id)
        check_origin(header.origin)
        _refuse_longer(header.size_bytes, max_object_bytes)
        if header.size_bytes > _MOST_BYTES:
            raise StoreFull(f"{header.size_bytes:,} bytes do not fit into {store.capacity_bytes:,}")
        self._header = header
        payload = Payload(
            header.kind, header.layout, header.size_bytes, (), header.num_rows, origin=header.origin
        )
        metadata: Any = unpack(header.metadata_raw)
        new = new_object(store._session, payload, header.name, object_id, metadata)
        new.batch = header.batch or store._current
        new.flags = FLAG_EVICTABLE if header.evictable else 0
        self._builder = Builder(store._conn, new, deadline_of(_timeout(header.timeout_s)))

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        return self._builder.id

    @property
    def target(self) -> memoryview:
        """Where the payload goes: the object's own pages, writable, as long as the payload, zeros at first.

        Raises:
            StoreClosed: it was finished or aborted.
        """
        return self._builder.buffer

    @property
    def builder(self) -> Builder:
        """What holds its memory."""
        return self._builder

    def check(self) -> None:
        """Check the payload that was received; what is written to `target` later reaches nobody. Any error
        ends the upload.

        Raises:
            InvalidArgument: it is not what the header says.
            StoreClosed: the upload was aborted.
        """
        builder, header = self._builder, self._header
        try:
            received = pa.py_buffer(builder.freeze())  # nobody changes it after it was checked
            check_payload(header.kind, header.layout, received, header.num_rows)
        except BaseException:
            builder.abort()
            raise

    def finish(self) -> ObjectID:
        """Check the payload and make the object visible. Idempotent. Any error ends the upload.

        Raises:
            InvalidArgument: the payload is not what the header says.
            SessionEnded, BatchEnded: nothing was stored.
            StoreClosed: it was aborted.
        """
        if self._builder.is_open:
            self.check()
        try:
            return self._builder.seal()
        except BaseException:
            self._builder.abort()
            raise

    def abort(self) -> None:
        """Make the upload vanish as if it had never been. Idempotent; does nothing once finished."""
        self._builder.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def _refuse_longer(nbytes: int, limit: int | None) -> None:
    if limit is not None and nbytes > limit:
        raise InvalidArgument(
            f"an object of {nbytes:,} bytes, at most {limit:,} are taken here",
            hint="put it in several objects",
        )


def _timeout(seconds: float) -> float:
    if not seconds >= 0:
        raise InvalidArgument(f"a timeout of {seconds} s: give seconds, 0 not to wait")
    return min(seconds, MAX_ROOM_WAIT_S)
