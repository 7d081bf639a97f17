"""A frame or series of polars as an Arrow table that says all of it. Calls nothing but Arrow and markers.

Text goes as string views: polars' own layout, shared instead of rewritten. Columns keep their chunks: to line
them up, as ``DataFrame.to_arrow`` does, would copy them twice.

What Arrow has no type for, and how it is stored:

- Int128, UInt128: binary values of 16 bytes, little endian, with a marker on their field;
- Object, where pickle is allowed: the pickle of each value, with a marker;
- a Series: a table of one column, with a marker on the schema.

Categories of Categorical and Enum are in metadata that polars writes itself. Not kept: flags that a column is
sorted, since they would go wrong where rows of stored tables are joined.
"""

from __future__ import annotations

import pickle as pickles
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from flightstore.connectors.polars.markers import KEY, OBJECT, SERIES
from flightstore.connectors.polars.wide import export_wide
from flightstore.errors import NotStorable
from flightstore.objects.extras import require

__all__ = ["adapt", "build", "parts"]

WIDE = frozenset({"Int128", "UInt128"})
SIMPLE = frozenset({
    "Boolean", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64",
    "Decimal", "String", "Binary", "Date", "Time", "Datetime", "Duration", "Categorical", "Enum", "Null",
})  # fmt: skip
"""dtypes that hold no others, and that Arrow has."""
PICKLE_PROTOCOL = 5


def build(value: Any, *, pickle: bool) -> pa.Table:
    """An Arrow table of a data frame or a series; shares its memory.

    Raises:
        NotStorable: it is lazy; or a column is of a type that is not kept exactly, Python objects without
            `pickle` for one. Names the column.
    """
    polars = require("polars", "putting a polars frame")
    if isinstance(value, polars.LazyFrame):
        refusal = NotStorable("a polars LazyFrame is a plan, no data", hint="put frame.collect()")
        refusal.pickle_helps = False
        raise refusal
    is_series = isinstance(value, polars.Series)
    frame = value.to_frame() if is_series else value
    names = frame.columns
    special = {name: found for name, dtype in frame.schema.items() if (found := _special(name, dtype))}
    if any("\0" in name for name in names):  # in Arrow's C interface a NUL ends a name, and polars panics
        frame = frame.clone()
        frame.columns = [f"{i}" for i in range(len(names))]
        special = {f"{i}": special[name] for i, name in enumerate(names) if name in special}
    table = _table(polars, frame, special, pickle)
    if frame.columns != names:
        table = table.rename_columns(names)
    return table.replace_schema_metadata({KEY: SERIES}) if is_series else table


def adapt(schema: pa.Schema, num_rows: int) -> pa.Schema:
    """A series that got more columns, or lost its only one, is a data frame from then on."""
    if len(schema) == 1 or KEY not in (schema.metadata or {}):
        return schema
    return schema.with_metadata({key: schema.metadata[key] for key in schema.metadata if key != KEY} or None)


def _table(polars: Any, frame: Any, special: dict[str, str], pickle: bool) -> pa.Table:
    newest = polars.CompatLevel.newest()
    if not special and all(chunks == 1 for chunks in frame.n_chunks("all")):
        return frame.to_arrow(compat_level=newest)
    plain = frame.clear()
    for name in special:
        plain.drop_in_place(name)  # drop() would take "*" for all of them
    schema = plain.to_arrow(compat_level=newest).schema
    fields, columns = [], []
    for series in frame.iter_columns():
        if series.name not in special:
            # Each chunk of a Categorical would have categories of its own, and other codes.
            whole = series.rechunk() if type(series.dtype).__name__ == "Categorical" else series
            field, column = schema.field(series.name), pa.chunked_array(whole)
        elif special[series.name] in WIDE:
            field, column = export_wide(series)
        else:
            field, column = _pickled(series, pickle)
        fields.append(field)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _special(name: str, dtype: Any) -> str | None:
    """What is special about a column: the name of a dtype that Arrow has not, or None.

    Raises:
        NotStorable: polars does not read back what it exports of this dtype.
    """
    found = None
    if type(dtype).__name__ in SIMPLE:
        return None
    for depth, part in parts(dtype):
        kind = type(part).__name__
        if kind == "Array" and part.size == 0 and (depth or _has_extension(part)):
            why = "polars reads back no arrays of width 0 inside another type, or of an extension type"
            refusal = _refusal(name, dtype, why)
            refusal.pickle_helps = False  # it writes such pickles, too, and does not read them
            raise refusal
        if hasattr(part, "ext_storage") and _has(part.ext_storage(), "Categorical", "Enum"):
            raise _refusal(name, dtype, "polars reads no extension types over categories")
        if any("\0" in field.name for field in getattr(part, "fields", ())):
            raise _refusal(name, dtype, "Arrow's C interface takes no names with a NUL")
        if kind in WIDE or kind == "Object":
            found = kind
    return found


def _refusal(name: str, dtype: Any, why: str) -> NotStorable:
    return NotStorable(f"column {name!r} of this polars frame is of type {dtype}: {why}", hint="cast it")


def _has_extension(dtype: Any) -> bool:
    return any(hasattr(part, "ext_storage") for _, part in parts(dtype))


def _has(dtype: Any, *kinds: str) -> bool:
    return any(type(part).__name__ in kinds for _, part in parts(dtype))


def parts(dtype: Any, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """The dtype and all those in it, with their depth."""
    yield depth, dtype
    inner = [getattr(dtype, name, None) for name in ("inner", "key", "value")]
    if hasattr(dtype, "ext_storage"):
        inner.append(dtype.ext_storage())
    for field in getattr(dtype, "fields", ()):
        inner.append(field.dtype)
    for part in inner:
        if part is not None:
            yield from parts(part, depth + 1)


def _pickled(series: Any, pickle: bool) -> tuple[pa.Field, pa.ChunkedArray]:
    """A column of Python objects, each pickled; None is null."""
    if not pickle:
        raise NotStorable(
            f"column {series.name!r} of this polars frame holds Python objects",
            hint="cast it to a type that Arrow knows, or allow pickle",
        )
    try:
        values = [
            None if value is None else pickles.dumps(value, PICKLE_PROTOCOL) for value in series.to_list()
        ]
    except MemoryError:
        raise
    except Exception as error:
        raise NotStorable(
            f"column {series.name!r} of this polars frame holds Python objects that pickle refuses: {error}",
            hint="cast it to a type that Arrow knows",
        ) from error
    kind = pa.large_binary()
    return pa.field(series.name, kind, metadata={KEY: OBJECT}), pa.chunked_array([pa.array(values, kind)])
