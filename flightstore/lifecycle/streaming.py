"""Tables of unknown length: record batches taken one after the other, written as they come.

Small batches are gathered: copied into private memory as one Arrow stream, until there are GROUP_BYTES of
them; what the caller handed over may go at once. Each full group, and each batch that is large by itself,
becomes a *part*: a pending object of the session that the table is for. So whatever was written counts
against the quota, is seen by nobody, and is aborted when this client dies or gives up. The first part bears
the table's name and id. At the end one commit makes a single object of all parts: one of the kind "composed",
whose columns lie in part 1, 2, 3, ... What ends before its first group is full is put like any other table.

Bounds: private memory holds one group, that is GROUP_BYTES, and twice the dictionaries where there are any:
each part holds the dictionaries that its rows refer to, so groups grow with them. A part waits for room
without queueing once an earlier one is there, since who holds room must not wait for those who want it.
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa

from flightstore.errors import FlightStoreError, InvalidArgument, StoreClosed
from flightstore.lifecycle import sealing
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.sealing import Assembly, NewObject, new_object
from flightstore.memory.leases import Lease
from flightstore.objects.base import Payload
from flightstore.objects.composition import (
    Piece,
    Source,
    compose,
    empty_columns,
    own_segments,
    payload_of_part,
)
from flightstore.objects.encoding import encode_table, parts_of
from flightstore.objects.ipc import Stream, expressible, refusing, stream_payload
from flightstore.types import ObjectID

__all__ = ["GROUP_BYTES", "TableWriter", "stream_bytes"]

GROUP_BYTES = 16 << 20
"""Batches are gathered until they are so large together."""
_OPTIONS = pa.ipc.IpcWriteOptions(compression=None)


class TableWriter:
    """A table that is written batch by batch; invisible until it is sealed. For one thread at a time.

    Whatever ends it before that (`abort`, an exception, an interrupt, garbage collection, death) leaves
    nothing behind.
    """

    def __init__(
        self,
        conn: Connection,
        session: int,
        schema: pa.Schema,
        name: str | None = None,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
        *,
        batch: int = 0,
        flags: int = 0,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        """Begin a table; nothing is stored yet.

        Args:
            conn: The store.
            session: Session that the table belongs to; 0 for none.
            schema: Its columns.
            name: Its name; an object that has it loses it when the table is sealed.
            object_id: Its id; None for a generated one.
            metadata: What is attached to it.
            timeout: Seconds to wait for room, for each part; None for ever.
            batch: The batch that it goes with; 0 for none.
            flags: FLAG_* that it has from the beginning.
            group_bytes: How much is gathered before it is written.

        Raises:
            NotStorable: Arrow's stream format cannot say the schema, or the metadata cannot be stored.
            ObjectExists: the id is taken.
        """
        expressible(schema)
        nothing = Payload(0, b"", 0, ())
        self._inline = new_object(session, nothing, name, object_id, metadata).metadata_at is None
        if object_id is not None:
            sealing.refuse_taken(conn, session, object_id)
        self._conn = conn
        self._session = session
        self._schema = schema
        self._name = name
        self._metadata = metadata
        self._timeout = timeout
        self._batch = batch
        self._flags = flags
        self._group_bytes = group_bytes
        self._pid = os.getpid()
        self._id = object_id if object_id is not None else ObjectID.random()
        self._parts: list[NewObject] = []
        self._columns: list[list[Piece]] = [[] for _ in schema]
        self._first: list[tuple[Stream, pa.Schema]] = []
        self._rows = self._written_rows = 0
        self._group: _Group | None = None
        self._memory: pa.Buffer | None = None
        self._stay: Lease | None = conn.leases.stay()  # what is pending lives as long as its client file
        self._state = "open"

    @property
    def id(self) -> ObjectID:
        """The id the table will have."""
        return self._id

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        return self._rows

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch's rows. Its memory may go, or change, when this returns.

        Raises:
            InvalidArgument: it is of another schema; nothing happened.
            StoreFull, CatalogFull, QuotaExceeded, SessionEnded, ...: the table is aborted.
            StoreClosed: the table was sealed or aborted.
        """
        self._check()
        if not batch.schema.equals(self._schema):
            raise InvalidArgument(
                f"a batch of columns {_shown(batch.schema)} in a table of columns {_shown(self._schema)}",
                hint="all batches of a table have its schema",
            )
        try:
            if batch.num_rows and len(self._schema):
                self._take(batch)
            self._rows += batch.num_rows
        except BaseException:
            self._give_up()
            raise

    def seal(self) -> ObjectID:
        """Make the table immutable and visible. Idempotent.

        Raises:
            StoreFull, CatalogFull, SessionEnded, BatchEnded, ObjectExists: nothing was stored.
            StoreClosed: it was aborted.
        """
        if self._state != "sealed":
            self._check()
            try:
                if self._parts:
                    self._seal_parts()
                else:
                    self._put_whole()
            except BaseException:
                self._give_up()
                raise
            self._finish("sealed")
        return self._id

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed."""
        if self._state == "open" and self._pid == os.getpid():
            self._give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._state == "open":
            self.seal()

    def __del__(self) -> None:
        """A writer that is forgotten unsealed is aborted by the next write of this process."""
        if getattr(self, "_state", "") == "open" and self._pid == os.getpid():
            self._conn.abandoned.extend([sealing.undoing(part) for part in self._parts if part.serial])

    # --- inside ---

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise FlightStoreError(
                f"the table {self._id} is being written by process {self._pid}",
                hint="a forked child cannot go on with its parent's writer: begin another one",
            )
        if self._state != "open":
            raise StoreClosed(f"the table {self._id} was {self._state}", hint="begin another one")

    def _give_up(self) -> None:
        sealing.give_up(self._conn, self._parts)
        self._finish("aborted")

    def _finish(self, state: str) -> None:
        self._state = state
        self._group = self._memory = None
        self._parts = []
        self._stay = None

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _take(self, batch: pa.RecordBatch) -> None:
        """Gather a batch, or write it at once if it is large."""
        if self._group is not None:
            if self._group.take(batch):
                return
            self._write_group()
        whole, records = stream_bytes(self._schema, batch), pa.ipc.get_record_batch_size(batch)
        if records >= max(self._group_bytes // 2, whole - records):
            self._write_part(pa.Table.from_batches([batch], self._schema))
            return
        room = self._group_bytes + 2 * (whole - records)
        if self._memory is None or self._memory.size < room:
            self._memory = None
            self._memory = pa.allocate_buffer(room)
        self._group = _Group(self._schema, self._memory)
        self._group.take(batch)

    def _write_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            self._write_part(group.table())

    def _write_part(self, table: pa.Table) -> None:
        """Write rows as a pending object."""
        streams, places = parts_of(table)
        new = self._new_part(payload_of_part(streams))
        self._parts.append(new)
        extent = sealing.write_pending(self._conn, new, self._deadline(), holding=len(self._parts) > 1)
        new.payload = msgspec.structs.replace(new.payload, pieces=())  # they keep the group's memory
        segments = [segment._replace(extent=extent) for segment in own_segments(streams)]
        for pieces, (number, column) in zip(self._columns, places, strict=True):
            pieces.append(Piece(segments[number], column))
        if len(self._parts) == 1:
            self._first = [(stream._replace(pieces=[]), schema) for stream, schema in streams]
        self._written_rows += table.num_rows

    def _new_part(self, payload: Payload) -> NewObject:
        if self._parts:
            return new_object(self._session, payload, None, None, None)
        metadata = self._metadata if self._inline else None
        return self._bearing(new_object(self._session, payload, self._name, self._id, metadata))

    def _bearing(self, new: NewObject) -> NewObject:
        """What becomes the table."""
        new.batch, new.flags = self._batch, self._flags
        return new

    def _put_whole(self) -> None:
        """Put what was gathered as one table."""
        if len(self._schema):
            batches = self._group.batches() if self._group is not None else []
            table = pa.Table.from_batches(batches, batches[0].schema if batches else self._schema)
        else:
            table = empty_columns(self._schema, self._rows)
        new = new_object(self._session, encode_table(table), self._name, self._id, self._metadata)
        sealing.put(self._conn, (self._bearing(new),), self._deadline())

    def _seal_parts(self) -> None:
        self._write_group()
        table = self._parts[0]
        if len(self._parts) == len(self._first) == 1 and self._inline:
            payload = stream_payload(self._first[0][0])
            table.assembly = Assembly((table,), payload, payload.size_bytes)
        else:
            columns = [tuple(pieces) for pieces in self._columns]
            composition = compose(Source(self._schema, self._written_rows, columns))
            head = new_object(self._session, composition.payload, None, None, self._metadata)
            parts = (head, *self._parts)
            self._parts.append(head)
            sealing.write_pending(self._conn, head, self._deadline())
            table.assembly = Assembly(parts, composition.payload, composition.nbytes)
        sealing.seal(self._conn, table)


class _Group:
    """Batches that were copied into private memory, as one stream."""

    def __init__(self, schema: pa.Schema, memory: pa.Buffer) -> None:
        self._schema = schema
        self._memory = memory
        self._counted = pa.MockOutputStream()
        self._counter = pa.ipc.new_stream(self._counted, schema, options=_OPTIONS)
        self._sink = pa.FixedSizeBufferWriter(memory)
        self._writer = pa.ipc.new_stream(self._sink, schema, options=_OPTIONS)

    def take(self, batch: pa.RecordBatch) -> bool:
        """Copy a batch; False when there is no room for it, and the group is full."""
        with refusing(self._schema):
            self._counter.write_batch(batch)
            if self._counted.size() > self._memory.size:
                return False
            self._writer.write_batch(batch)
        return True

    def batches(self) -> list[pa.RecordBatch]:
        """The batches, in the group's memory."""
        return list(pa.ipc.open_stream(self._memory.slice(0, self._sink.tell())))

    def table(self) -> pa.Table:
        """The batches as a table."""
        return pa.Table.from_batches(self.batches())


def stream_bytes(schema: pa.Schema, batch: pa.RecordBatch) -> int:
    """Bytes of an Arrow stream of one batch, schema and dictionaries included; nothing is copied."""
    counted = pa.MockOutputStream()
    with refusing(schema), pa.ipc.new_stream(counted, schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
        nbytes: int = counted.size()
    return nbytes


def _shown(schema: pa.Schema) -> str:
    text = ", ".join(f"{field.name}: {field.type}" for field in schema)
    return text if len(text) < 300 else text[:300] + " ..."
