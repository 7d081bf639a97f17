"""The part of a remote store that takes tables of unknown length: they are gathered in private memory, and
sent by the seal. So nothing is in the store before it; a writer that is forgotten, or whose process dies,
leaves nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from flightstore.errors import FlightStoreError, InvalidArgument, NotOffered, StoreClosed
from flightstore.lifecycle.streaming import check_section
from flightstore.objects.composition import empty_columns
from flightstore.objects.ipc import expressible, refusing
from flightstore.remote.attached import Attached
from flightstore.store.attached import check_new, deadline_of
from flightstore.store.streaming import check_schema, checked_group
from flightstore.types import ObjectID

if TYPE_CHECKING:
    from flightstore.remote.store import RemoteStore

__all__ = ["RemoteTableWriter", "Streaming"]

_OPTIONS = pa.ipc.IpcWriteOptions(compression=None)


class RemoteTableWriter:
    """A table that is written batch by batch; implements abc.TableWriter."""

    def __init__(self, store: RemoteStore, schema: pa.Schema, object_id: ObjectID | None, put: Any) -> None:
        expressible(schema)
        self._store = store
        self._schema = schema
        self._id = object_id if object_id is not None else ObjectID.random()
        self._put = put
        self._sections: dict[int, RemoteSection] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._state = "open"

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        return self._id

    @property
    def schema(self) -> pa.Schema:
        """The table's schema."""
        return self._schema

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        return sum([section.num_rows for section in list(self._sections.values())])

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows to section 0.

        Raises:
            InvalidArgument: they are of another schema; nothing happened.
            StoreClosed: the table was sealed or aborted.
        """
        self.section(0).write(rows)

    def section(self, number: int) -> RemoteSection:
        """The rows that come after those of sections of lower numbers.

        Raises:
            InvalidArgument: it is no number from 0.
            StoreClosed: the table was sealed or aborted.
        """
        check_section(number)
        self.check()
        with self._lock:
            return self._sections.setdefault(number, RemoteSection(self))

    def seal(self) -> ObjectID:
        """Send the table and make it visible. Idempotent.

        Raises:
            StoreFull: there is no room; the writer is aborted.
            ObjectExists: its id is taken.
            StoreClosed: it was aborted.
        """
        if self._state != "sealed":
            self.check()
            try:
                self._put(self._table(), self._id)
            except BaseException:
                self.abort()
                raise
            self._state = "sealed"
            self._sections = {}
        return self._id

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed."""
        if self._state == "open":
            self._state = "aborted"
            self._sections = {}

    def check(self) -> None:
        """Refuse to go on with what was sealed or aborted, or with another process's writer.

        Raises:
            StoreClosed, FlightStoreError: it is so.
        """
        if self._pid != os.getpid():
            raise FlightStoreError(
                f"the table {self._id} is being written by process {self._pid}",
                hint="a forked child cannot go on with its parent's writer: begin another one",
            )
        if self._state != "open":
            raise StoreClosed(f"the table {self._id} was {self._state}", hint="begin another one")

    def _table(self) -> pa.Table:
        if not len(self._schema):
            return empty_columns(self._schema, self.num_rows)
        batches = [batch for _, section in sorted(self._sections.items()) for batch in section.batches()]
        return pa.Table.from_batches(batches, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._state == "open":
            self.seal()


class RemoteSection:
    """Rows that follow each other, as an Arrow stream in private memory; implements abc.TableSection."""

    def __init__(self, writer: RemoteTableWriter) -> None:
        self._writer = writer
        self.num_rows = 0
        self._sink = pa.BufferOutputStream()
        self._stream: Any = None

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows.

        Raises:
            As `RemoteTableWriter.write`.
        """
        self._writer.check()
        schema = self._writer.schema
        if not rows.schema.equals(schema):
            raise InvalidArgument(
                f"rows of the columns {rows.schema.names} do not fit a table of {schema.names}, or its types",
                hint="all batches of a table have its schema",
            )
        if len(schema) and rows.num_rows:
            with refusing(schema):
                if self._stream is None:
                    self._stream = pa.ipc.new_stream(self._sink, schema, options=_OPTIONS)
                self._stream.write(rows)
        self.num_rows += rows.num_rows

    def close(self) -> None:
        """Nothing is to be done: what was written stays where it is until the seal."""

    def batches(self) -> list[pa.RecordBatch]:
        """What was written."""
        if self._stream is None:
            return []
        self._stream.close()
        return list(pa.ipc.open_stream(self._sink.getvalue()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._writer.abort()


class Streaming(Attached):
    """create_stream, seal_many."""

    def create_stream(
        self,
        schema: pa.Schema,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
        group_bytes: int | None = None,
    ) -> RemoteTableWriter:
        """As that of a local store, in private memory: `timeout`, for room, is that of the seal."""
        from flightstore.remote.store import RemoteStore

        assert isinstance(self, RemoteStore)
        store = self
        check_new(name, object_id)
        check_schema(schema)
        deadline_of(timeout)

        checked_group(group_bytes, 1)

        def put(table: pa.Table, made: ObjectID) -> None:
            store.put(table, name, object_id=made, metadata=metadata, timeout=timeout)

        return RemoteTableWriter(store, schema, object_id, put)

    def seal_many(self, writers: Iterable[Any], *, timeout: float | None = 0) -> list[ObjectID]:
        """Not offered: tables are sent one by one.

        Raises:
            NotOffered: always.
        """
        raise NotOffered(f"tables cannot be sealed together at {self.url}", hint="put_many() stores several")
