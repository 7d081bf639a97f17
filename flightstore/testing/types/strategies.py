"""Hypothesis strategies of Arrow values: every type, every layout, every way to cut them.

Puts together strategies_types and strategies_arrays, and adds chunked arrays, batches and tables. Sizes are
small, and a hundred tables take some seconds; examples shrink to few rows of simple types.
"""

from __future__ import annotations

import pyarrow as pa

from flightstore.testing.types.strategies_types import data_types, fields, metadata

# The line above says what is missing where hypothesis is.
from hypothesis import strategies as st  # isort: skip
from hypothesis.strategies import DrawFn, SearchStrategy  # isort: skip

from flightstore.testing.types.strategies_arrays import arrays  # isort: skip

__all__ = ["any_arrays", "arrays", "chunked_arrays", "data_types", "fields", "record_batches", "tables"]

MAX_ROWS = 6


@st.composite
def any_arrays(draw: DrawFn, *, max_depth: int = 2) -> pa.Array:
    """Arrays of any type."""
    return draw(arrays(draw(data_types(max_depth=max_depth)), draw(st.integers(0, MAX_ROWS))))


@st.composite
def _pieces(draw: DrawFn, field: pa.Field, size: int | None = None) -> pa.ChunkedArray:
    """Chunked arrays of a field's type with `size` rows, or any number."""
    if size is None:
        size = draw(st.integers(0, MAX_ROWS))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=3)))
    sizes = [end - begin for begin, end in zip([0, *cuts], [*cuts, size], strict=True)]
    if not size and draw(st.booleans()):
        sizes = []
    chunks = [draw(arrays(field.type, count, nullable=field.nullable)) for count in sizes]
    return pa.chunked_array(chunks, field.type)


@st.composite
def chunked_arrays(draw: DrawFn, kind: pa.DataType | None = None, *, max_depth: int = 2) -> pa.ChunkedArray:
    """Chunked arrays of a type, or of any; empty chunks and none at all among them."""
    if kind is None:
        kind = draw(data_types(max_depth=max_depth))
    return draw(_pieces(pa.field("", kind)))


@st.composite
def tables(draw: DrawFn, *, max_columns: int = 3, max_depth: int = 2) -> pa.Table:
    """Tables of any columns, each cut into chunks in its own way; some are cut once more as a whole."""
    rows = draw(st.integers(0, MAX_ROWS))
    schema = draw(_schemas(max_columns, max_depth))
    if not len(schema):
        return pa.table({"rows": pa.nulls(rows)}).replace_schema_metadata(schema.metadata).select([])
    table = pa.table([draw(_pieces(field, rows)) for field in schema], schema)
    return table.slice(draw(st.integers(1, rows))) if rows and draw(st.booleans()) else table


@st.composite
def record_batches(draw: DrawFn, *, max_columns: int = 3, max_depth: int = 2) -> pa.RecordBatch:
    """Record batches of any columns."""
    rows = draw(st.integers(0, MAX_ROWS))
    schema = draw(_schemas(max_columns, max_depth).filter(len))
    columns = [draw(arrays(field.type, rows, nullable=field.nullable)) for field in schema]
    return pa.record_batch(columns, schema=schema)


def _schemas(max_columns: int, max_depth: int) -> SearchStrategy[pa.Schema]:
    columns = st.lists(fields(max_depth=max_depth), max_size=max_columns)
    return st.builds(pa.schema, columns, metadata())
