"""Tables in the store: Arrow tables, and everything that is stored as one. May call objects.ipc and
composition.

pandas and polars are imported when a caller asks for their form, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.errors import InvalidArgument, NotConvertible
from flightstore.objects.base import KIND_COMPOSED, Handle, Object
from flightstore.objects.composition import open_composed
from flightstore.objects.ipc import (
    CONTAINER_ARRAY,
    CONTAINER_BATCH,
    CONTAINER_CHUNKED,
    CONTAINER_SCALAR,
    CONTAINER_TABLE,
    decode_layout,
    open_batches,
    open_table,
)
from flightstore.types import ObjectID

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Table"]


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
            if handle.record.kind == KIND_COMPOSED:
                table = open_composed(handle)
            else:
                table = open_table(handle.payload, decode_layout(handle.record.layout))
            self._table = table
        return table

    def release(self) -> None:
        """Give this reference back now. Tables and frames taken from the object stay valid.

        Idempotent.
        """
        self._forget()
        super().release()

    def _forget(self) -> None:
        self._table = None

    @property
    def members(self) -> list[ObjectID]:
        """The objects whose columns this one shares; none for a table that was put as a whole.

        Some may have been deleted since: their columns stay as long as this object does.
        """
        return [ObjectID(member.id) for member in self._live.record.members]

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

    def to_pandas(self, *, dtype_backend: str | None = None, strict: bool = True, **options: Any) -> Any:
        """The table as pandas has it: the frame, series or index that was put, or a frame of any other table.

        Columns share the store's memory wherever pandas' types allow (`conversion_report` tells). The frame
        can be modified: pandas copies the columns that are touched, the store never changes.

        Args:
            dtype_backend: None, "numpy_nullable" or "pyarrow", as in ``pandas.read_parquet``; "pyarrow"
                shares every column but views, which pandas does not know.
            strict: False converts what pandas cannot hold as nearly as can be; it is an error otherwise.
            options: Handed to ``pyarrow.Table.to_pandas``, which then does the conversion.

        Raises:
            MissingExtra: pandas is not installed.
            NotConvertible: pandas cannot hold a column; names it and its type.
            InvalidArgument: no such `dtype_backend`.
        """
        return self.to("pandas", dtype_backend=dtype_backend, strict=strict, **options)

    def to_polars(self, **options: Any) -> Any:
        """A polars data frame, or the series that was put as one, that shares the store's memory wherever
        polars' types allow; ``conversion_report("polars")`` tells where.

        Args:
            options: ``strict=False`` converts what polars has no equal of, keeping all values, instead of
                refusing it.

        Raises:
            MissingExtra: polars is not installed.
            NotConvertible: polars cannot hold it; names the column and its type.
        """
        return self.to("polars", **options)

    def to_duckdb(self, con: Any = None, **options: Any) -> Any:
        """The table as a DuckDB relation that shares the store's memory, and keeps it while it lives.

        Args:
            con: The DuckDB connection it is of; None for a new one in memory.
            options: ``strict=False`` converts what DuckDB has no equal of, instead of refusing it.

        Raises:
            MissingExtra: DuckDB is not installed.
            NotConvertible: DuckDB cannot hold it; names the column and its type.
        """
        return self.to("duckdb", con=con, **options)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The values of a table of one column; shared where the type allows (numbers without nulls, one
        batch).

        Raises:
            InvalidArgument: the table has not exactly one column.
            NotConvertible: NumPy cannot hold its type; names it.
        """
        table = self.to_arrow()
        if table.num_columns != 1:
            raise InvalidArgument(
                f"only a table of one column is an array, this one has {table.num_columns}",
                hint="take the column: obj.to_arrow()['name'].to_numpy()",
            )
        column = table.column(0)
        try:
            if column.num_chunks == 1:
                array: np.ndarray[Any, Any] = column.chunk(0).to_numpy(zero_copy_only=False)
                return array
            gathered: np.ndarray[Any, Any] = column.to_numpy()
            return gathered
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise NotConvertible(
                f"column {table.column_names[0]!r} is of type {column.type}, which NumPy cannot hold",
                hint="obj.to_arrow() holds everything",
            ) from error

    def _value(self) -> Any:
        handle = self._live
        if handle.record.kind == KIND_COMPOSED:
            return self.to_arrow()
        layout = decode_layout(handle.record.layout)
        container = layout.container
        if container == CONTAINER_TABLE:
            return self.to_arrow()
        if container == CONTAINER_BATCH:
            return open_batches(handle.payload, layout)[1][0]
        column = self.to_arrow().column(0)
        if container == CONTAINER_CHUNKED:
            return column
        if container == CONTAINER_SCALAR:
            return column[0]
        assert container == CONTAINER_ARRAY, container
        return column.chunk(0)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Arrow's PyCapsule protocol: how pandas, polars, DuckDB and others read the table, not copied."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return self.num_rows
