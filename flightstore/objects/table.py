"""Tables: Arrow tables, record batches, and the data frames that travel through Arrow. May call objects.ipc.

pandas and polars are imported when a caller asks for their form, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.errors import InvalidArgument, NotStorable
from flightstore.objects.base import Handle, Object, Payload
from flightstore.objects.ipc import (
    ORIGIN_BATCH,
    TableLayout,
    decode_layout,
    encode_batches,
    open_batches,
    open_table,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Table",
    "encode_arrow_producer",
    "encode_batch",
    "encode_reader",
    "encode_table",
]


def encode_table(table: pa.Table) -> Payload:
    """Payload of an Arrow table."""
    return encode_batches(table.schema, table.to_batches(), keepalive=table)


def encode_batch(batch: pa.RecordBatch) -> Payload:
    """Payload of one record batch."""
    return encode_batches(batch.schema, (batch,), origin=ORIGIN_BATCH, keepalive=batch)


def encode_reader(reader: pa.RecordBatchReader) -> Payload:
    """Payload of all batches that are left in a reader, which is used up."""
    schema = reader.schema
    return encode_batches(schema, reader)


def encode_arrow_producer(value: Any) -> Payload:
    """Payload of anything with ``__arrow_c_stream__`` or ``__arrow_c_array__`` that yields a table.

    Raises:
        NotStorable: what it yields is not a table.
    """
    try:
        if hasattr(value, "__arrow_c_stream__"):
            return encode_reader(pa.RecordBatchReader.from_stream(value))
        return encode_table(pa.Table.from_batches([pa.record_batch(value)]))
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, NotStorable | MemoryError):
            raise
        raise NotStorable(f"{type(value).__name__} does not yield an Arrow table: {error}") from error


class Table(Object):
    """A table in the store."""

    __slots__ = ("_table",)
    kind = "table"

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle)
        self._table: pa.Table | None = None

    def to_arrow(self) -> pa.Table:
        """The table in the store's memory, read-only; valid as long as anything taken from it lives."""
        table = self._table
        if table is None:
            handle = self._live
            table = self._table = open_table(handle.payload, decode_layout(handle.record.layout))
        return table

    def release(self) -> None:
        """Give this reference back now. Tables and frames taken from the object stay valid.

        Idempotent.
        """
        self._table = None
        super().release()

    @property
    def _layout(self) -> TableLayout:
        return decode_layout(self._live.record.layout)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, metadata included."""
        return self.to_arrow().schema

    @property
    def num_rows(self) -> int:
        """Rows."""
        return self._live.record.num_rows or 0

    @property
    def num_columns(self) -> int:
        """Columns."""
        return len(self.schema)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        names: list[str] = self.schema.names
        return names

    def to_pandas(self, **options: Any) -> Any:
        """A pandas data frame; numeric columns without nulls and of one batch share the store's memory,
        read-only.

        Args:
            options: Handed to ``pyarrow.Table.to_pandas``; `split_blocks` is True unless given.

        Raises:
            MissingExtra: pandas is not installed.
        """
        return self.to("pandas", **options)

    def to_polars(self, **options: Any) -> Any:
        """A polars data frame that shares the store's memory wherever polars' types allow.

        Raises:
            MissingExtra: polars is not installed.
        """
        return self.to("polars", **options)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The values of a table of one column; shared where the type allows (numbers without nulls, one
        batch).

        Raises:
            InvalidArgument: the table has not exactly one column.
        """
        table = self.to_arrow()
        if table.num_columns != 1:
            raise InvalidArgument(
                f"only a table of one column is an array, this one has {table.num_columns}",
                hint="take the column: obj.to_arrow()['name'].to_numpy()",
            )
        column = table.column(0)
        if column.num_chunks == 1:
            array: np.ndarray[Any, Any] = column.chunk(0).to_numpy(zero_copy_only=False)
            return array
        gathered: np.ndarray[Any, Any] = column.to_numpy()
        return gathered

    def _value(self) -> Any:
        if self._layout.origin == ORIGIN_BATCH:
            return open_batches(self._live.payload, self._layout)[1][0]
        return self.to_arrow()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Arrow's PyCapsule protocol: how pandas, polars, DuckDB and others read the table, not copied."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return self.num_rows
