"""Tables of unknown length: rows taken one batch after the other, written as they come.

Small batches are gathered: copied into private memory as one Arrow stream, until there are GROUP_BYTES of
them; what the caller handed over may go at once. Each full group, and each batch that is large by itself,
becomes a *part*: a pending object of the session that the table is for. So whatever was written counts
against the quota, is seen by nobody, and is aborted when this client dies or gives up. The first part bears
the table's name and id. At the end one commit makes a single object of all parts: one of the kind "composed",
whose columns lie in part 1, 2, 3, ... What ends before its first group is full is put like any other table.

Rows may also come in *sections*, each written by a thread of its own while others write theirs: which rows
come before which is settled at the seal, by the sections' numbers, so that nobody has to wait, or to keep
decoded rows, until it is their turn. What the sections share (the list of parts, the state) changes under a
lock that is never held while bytes are copied or room is waited for. A part belongs to the thread that writes
it until it is written: only that one may abort it, since memory must not be given back while somebody copies
into it.

Bounds: private memory holds one group for each open section, that is GROUP_BYTES, and twice the dictionaries
where there are any: each part holds the dictionaries that its rows refer to, so groups grow with them. A part
waits for room without queueing once an earlier one is there, since who holds room must not wait for those who
want it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa

from flightstore.errors import FlightStoreError, InvalidArgument, StoreClosed
from flightstore.lifecycle import freeing, sealing
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

__all__ = ["GROUP_BYTES", "Section", "TableWriter", "check_section", "seal_together", "stream_bytes"]

GROUP_BYTES = 16 << 20
"""Batches are gathered until they are so large together."""
_OPTIONS = pa.ipc.IpcWriteOptions(compression=None)


class TableWriter:
    """A table that is written batch by batch; invisible until it is sealed. Implements abc.TableWriter.

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
        self._lock = threading.Lock()
        self._parts: list[_Part] = []
        self._sections: dict[int, _Rows] = {}
        self._num_rows = 0
        self._stay: Lease | None = conn.leases.stay()  # what is pending lives as long as its client file
        self._state = "open"

    @property
    def id(self) -> ObjectID:
        """The id the table will have."""
        return self._id

    @property
    def schema(self) -> pa.Schema:
        """The table's columns."""
        return self._schema

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        return self._num_rows + sum([section.num_rows for section in list(self._sections.values())])

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows to section 0; for one thread at a time. Their memory may go, or change, when this
        returns.

        Raises:
            InvalidArgument: they are of another schema; nothing happened.
            StoreFull, CatalogFull, QuotaExceeded, SessionEnded, ...: the table is aborted.
            StoreClosed: the table was sealed or aborted.
        """
        self.section(0).write(rows)

    def section(self, number: int) -> Section:
        """The rows that come after those of sections of lower numbers.

        Sections may be written at the same time, each by one thread at a time, and closed when they are
        complete; those that nobody closed are closed by the seal.

        Raises:
            InvalidArgument: it is no number from 0.
            StoreClosed: the table was sealed or aborted.
        """
        check_section(number)
        self._check()
        with self._lock:
            return Section(self, self._sections.setdefault(number, _Rows()))

    def seal(self) -> ObjectID:
        """Make the table immutable and visible, when all threads are done with it. Idempotent.

        Raises:
            InvalidArgument: another thread is writing to it; nothing happened.
            StoreFull, CatalogFull, SessionEnded, BatchEnded, ObjectExists: nothing was stored.
            StoreClosed: it was aborted.
        """
        if self._state != "sealed":
            self._check()
            seal_together(self._conn, (self,), self._deadline())
        return self._id

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed.

        A thread that is writing to a section meets StoreClosed.
        """
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
        if getattr(self, "_state", "sealed") != "sealed" and self._parts and self._pid == os.getpid():
            self._conn.abandoned.extend(
                [sealing.undoing(part.new) for part in self._parts if part.new.serial]
            )

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
        """Abort what is pending; what another thread is writing is aborted by that one, when it is done."""
        mine = threading.get_ident()
        with self._lock:
            self._state = "aborted"
            parts = [part for part in self._parts if part.thread in (0, mine)]
        sealing.give_up(self._conn, [part.new for part in parts])
        with self._lock:
            self._parts = [part for part in self._parts if part.thread not in (0, mine)]
        self._finish("aborted")

    def _finish(self, state: str) -> None:
        self._state = state
        self._num_rows, self._sections = self.num_rows, {}
        if state == "sealed" or not self._parts:
            self._stay = None

    def _refuse_unfinished(self) -> None:
        with self._lock:
            if any(part.thread for part in self._parts):
                raise InvalidArgument(
                    f"a section of the table {self._id} is still being written",
                    hint="wait for the threads that write, then seal",
                )

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _write_part(self, table: pa.Table) -> _Part:
        """Write rows as a pending object."""
        streams, places = parts_of(table)
        with self._lock:
            if self._state == "aborted":
                self._check()
            part = _Part(self._new_part(payload_of_part(streams)), table.num_rows, threading.get_ident())
            self._parts.append(part)
            first = len(self._parts) == 1
        new = part.new
        extent = sealing.write_pending(self._conn, new, self._deadline(), holding=not first)
        new.payload = msgspec.structs.replace(new.payload, pieces=())  # they keep the group's memory
        segments = [segment._replace(extent=extent) for segment in own_segments(streams)]
        part.columns = [Piece(segments[number], column) for number, column in places]
        if first:
            part.streams = [(stream._replace(pieces=[]), schema) for stream, schema in streams]
        with self._lock:
            part.thread = 0
        if self._state == "aborted":  # by another thread, which has left this part to us
            self._give_up()
            self._check()
        return part

    def _new_part(self, payload: Payload) -> NewObject:
        if self._parts:
            return new_object(self._session, payload, None, None, None)
        metadata = self._metadata if self._inline else None
        return self._bearing(new_object(self._session, payload, self._name, self._id, metadata))

    def _bearing(self, new: NewObject) -> NewObject:
        """What becomes the table."""
        new.batch, new.flags = self._batch, self._flags
        return new

    def _in_order(self) -> list[_Rows]:
        return [self._sections[number] for number in sorted(self._sections)]

    def belongs_to(self, conn: Connection, session: int) -> bool:
        """Whether that is where the table is to be."""
        return self._conn is conn and self._session == session

    def ready(self) -> NewObject:
        """Write what is not yet written, and say what is to be sealed: pending, or small enough to be put by
        the commit itself.
        """
        self._check()
        self._refuse_unfinished()
        with self._lock:
            self._state = "being sealed"
        return self._ready_parts() if self._parts else self._ready_whole()

    def sealed(self) -> None:
        """It is visible."""
        self._finish("sealed")
        self._parts = []

    def give_up(self) -> None:
        """It will not be sealed."""
        if self._state != "sealed":
            self._give_up()

    def _ready_whole(self) -> NewObject:
        """What was gathered as one table."""
        if len(self._schema):
            batches = [batch for section in self._in_order() for batch in section.gathered()]
            table = pa.Table.from_batches(batches, batches[0].schema if batches else self._schema)
        else:
            table = empty_columns(self._schema, self.num_rows)
        new = new_object(self._session, encode_table(table), self._name, self._id, self._metadata)
        if self._bearing(new).payload.size_bytes > sealing.SMALL_BYTES:
            self._parts.append(_Part(new))
            sealing.write_pending(self._conn, new, self._deadline(), holding=False)
        return new

    def _ready_parts(self) -> NewObject:
        sections = self._in_order()
        for section in sections:
            section.flush(self)
        parts = [part for section in sections for part in section.parts]
        table = self._parts[0]
        if len(parts) == len(table.streams) == 1 and self._inline:
            payload = stream_payload(table.streams[0][0])
            table.new.assembly = Assembly((table.new,), payload, payload.size_bytes)
        else:
            columns = [tuple([part.columns[index] for part in parts]) for index in range(len(self._schema))]
            composition = compose(Source(self._schema, sum([part.num_rows for part in parts]), columns))
            head = _Part(new_object(self._session, composition.payload, None, None, self._metadata))
            self._parts.append(head)
            sealing.write_pending(self._conn, head.new, self._deadline())
            assembled = (head.new, *[part.new for part in parts])
            table.new.assembly = Assembly(assembled, composition.payload, composition.nbytes)
        return table.new


def seal_together(conn: Connection, writers: Sequence[TableWriter], deadline: float | None) -> None:
    """Make tables visible in one commit; after an error none of them is, and all are aborted.

    Raises:
        InvalidArgument: one is still being written; they stay as they are.
        StoreFull, CatalogFull, SessionEnded, BatchEnded, ObjectExists, StoreClosed: nothing was stored.
    """
    for writer in writers:
        writer._refuse_unfinished()
    try:
        new = [writer.ready() for writer in writers]
        pending = [one for one in new if one.serial]
        sealing.seal_all(conn, pending, [one for one in new if not one.serial], deadline)
    except BaseException:
        for writer in writers:
            writer.give_up()
        raise
    for writer in writers:
        writer.sealed()
    freeing.sweep_if_worthwhile(conn)


@dataclass(slots=True, eq=False)
class _Part:
    """Rows that are a pending object, or about to be."""

    new: NewObject
    num_rows: int = 0
    thread: int = 0
    """The thread that is writing it; 0 once it is written."""
    columns: list[Piece] = field(default_factory=list)
    """For each column of the table, where its rows lie."""
    streams: list[tuple[Stream, pa.Schema]] = field(default_factory=list)
    """How it lies, of the first part only."""


class Section:
    """Rows of a table that follow each other, written by one thread at a time. Made by `TableWriter.section`.

    As a context manager it closes on a normal exit, and aborts the table when an exception leaves the block.
    """

    def __init__(self, writer: TableWriter, rows: _Rows) -> None:
        self._writer = writer
        self._rows = rows

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        return self._rows.num_rows

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows. Their memory may go, or change, when this returns.

        Raises:
            As `TableWriter.write`.
        """
        writer = self._writer
        writer._check()
        if not rows.schema.equals(writer._schema):
            raise InvalidArgument(
                f"a batch of columns {_shown(rows.schema)} in a table of columns {_shown(writer._schema)}",
                hint="all batches of a table have its schema",
            )
        try:
            if rows.num_rows and len(writer._schema):
                self._rows.take(writer, rows)
            self._rows.num_rows += rows.num_rows
        except BaseException:
            writer._give_up()
            raise

    def close(self) -> None:
        """Write what is gathered of it, and give back its private memory. It may be written to again.

        Raises:
            As `TableWriter.write`.
        """
        self._writer._check()
        try:
            self._rows.flush(self._writer)
        except BaseException:
            self._writer._give_up()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.abort()


class _Rows:
    """What was taken of a section."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.parts: list[_Part] = []
        """What was written of it."""
        self._group: _Group | None = None
        self._memory: pa.Buffer | None = None

    def gathered(self) -> list[pa.RecordBatch]:
        """What was taken and not yet written."""
        return self._group.batches() if self._group is not None else []

    def flush(self, writer: TableWriter) -> None:
        """Write what was gathered, and keep no memory."""
        self._write_group(writer)
        self._memory = None

    def take(self, writer: TableWriter, rows: pa.RecordBatch | pa.Table) -> None:
        """Gather rows, or write them at once if they are many."""
        if not isinstance(rows, pa.Table):
            self._take_batch(writer, rows)
        elif rows.nbytes >= writer._group_bytes // 2:
            self._write_group(writer)
            self._write_part(writer, pa.Table.from_arrays(rows.columns, schema=writer._schema))
        else:
            for batch in rows.to_batches():
                self._take_batch(writer, batch)

    def _take_batch(self, writer: TableWriter, batch: pa.RecordBatch) -> None:
        if self._group is not None:
            if self._group.take(batch):
                return
            self._write_group(writer)
        whole, records = stream_bytes(writer._schema, batch), pa.ipc.get_record_batch_size(batch)
        if records >= max(writer._group_bytes // 2, whole - records):
            self._write_part(writer, pa.Table.from_batches([batch], writer._schema))
            return
        room = writer._group_bytes + 2 * (whole - records)
        if self._memory is None or self._memory.size < room:
            self._memory = None
            self._memory = pa.allocate_buffer(room)
        self._group = _Group(writer._schema, self._memory)
        self._group.take(batch)

    def _write_group(self, writer: TableWriter) -> None:
        group, self._group = self._group, None
        if group is not None:
            self._write_part(writer, group.table())

    def _write_part(self, writer: TableWriter, table: pa.Table) -> None:
        self.parts.append(writer._write_part(table))


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


def check_section(number: int) -> None:
    """Refuse what is not the number of a section.

    Raises:
        InvalidArgument: it is so.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InvalidArgument(f"{number!r} is not the number of a section", hint="sections count from 0")


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
