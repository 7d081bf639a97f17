"""Whole pandas objects: to one Arrow table, and from it, without a copy of what can be shared.

Neighbouring columns of one dtype become one block again: a view with a stride over the columns' memory, which
lies in order in the store. So a frame of a thousand columns has few blocks, as pandas likes it.

May call every other module of this package.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.blocks import Blocks, assemble
from flightstore.connectors._pandas.decode import decode_array
from flightstore.connectors._pandas.defaults import DEFAULT, Conversion
from flightstore.connectors._pandas.encode import array_of, encode_array, encode_plain
from flightstore.connectors._pandas.facts import VERSION, write_schema
from flightstore.connectors._pandas.indexes import (
    Columns,
    decode_columns,
    decode_index,
    encode_columns,
    encode_index,
    encode_label,
)
from flightstore.connectors._pandas.layout import Facts, Layout
from flightstore.connectors._pandas.literals import Writer, read_literal
from flightstore.connectors._pandas.sharing import protect, protect_index
from flightstore.errors import NotConvertible

__all__ = ["column_arrays", "decode_table", "encode_frame", "encode_lone_index", "encode_series"]


def encode_frame(frame: pd.DataFrame, *, may_pickle: bool) -> pa.Table:
    """The table of a data frame; its arrays share the frame's memory.

    Raises:
        NotStorable: names the column, or the part of the frame, that only pickle could take or nothing.
    """
    columns = encode_columns(frame.columns, Writer(may_pickle, "the label of a column"))
    whole = {"kind": "frame", "columns": columns.described}
    return _encode(frame, column_arrays(frame), columns, whole, may_pickle)


def encode_series(series: pd.Series, *, may_pickle: bool) -> pa.Table:
    """The table of a series: one column, beside its index."""
    columns = encode_label(series.name, Writer(may_pickle, "the name"))
    whole = {"kind": "series", "series": columns.names[0]}
    return _encode(series, [array_of(series)], columns, whole, may_pickle)


def encode_lone_index(index: pd.Index, *, may_pickle: bool) -> pa.Table:
    """The table of an index by itself."""
    levels = encode_index(index, Writer(may_pickle, "the index"), set())
    whole = {"kind": "index", "index": levels.described, "pandas": pd.__version__}
    return _table(levels.names, levels.arrays, levels.facts, whole, len(index))


def _encode(value: Any, arrays: list[Any], columns: Columns, whole: Facts, may_pickle: bool) -> pa.Table:
    found, facts = [], list(columns.facts)
    for place, array in enumerate(arrays):
        plain = encode_plain(array)
        if plain is not None:
            found.append(plain)
            continue
        encoded = encode_array(array, f"column {_label(value, place)!r}", may_pickle=may_pickle)
        found.append(encoded.array)
        facts[place] = {**(encoded.facts or {}), **(facts[place] or {})} or None
    names = list(columns.names)
    levels = encode_index(value.index, Writer(may_pickle, "the index"), set(names))
    whole |= {"index": levels.described, "pandas": pd.__version__}
    if value.attrs:
        whole["attrs"] = Writer(may_pickle, "attrs").write(dict(value.attrs))
    if not value.flags.allows_duplicate_labels:
        whole["unique_labels"] = True
    return _table(names + levels.names, found + levels.arrays, facts + levels.facts, whole, len(value))


def _label(value: Any, place: int) -> Any:
    return value.columns[place] if isinstance(value, pd.DataFrame) else value.name


def column_arrays(frame: pd.DataFrame) -> list[Any]:
    """The array of each column, not copied."""
    count = len(frame.columns)
    if hasattr(frame, "_itercolumn_arrays"):
        return list(frame._itercolumn_arrays())
    return [array_of(frame.iloc[:, place]) for place in range(count)]


def _table(
    names: list[str], arrays: list[Any], facts: list[Facts | None], whole: Facts, rows: int
) -> pa.Table:
    schema = write_schema(names, [array.type for array in arrays], facts, whole, rows)
    if arrays:
        return pa.Table.from_arrays(arrays, schema=schema)
    batch = pa.record_batch({"rows": pa.nulls(rows)}).select([])
    return pa.Table.from_batches([batch.replace_schema_metadata(schema.metadata)])


def decode_table(table: pa.Table, layout: Layout, wanted: Conversion = DEFAULT) -> Any:
    """The frame, series or index that a table holds.

    Raises:
        NotConvertible: it was written by a later version, or a dtype's library is missing.
    """
    whole = layout.whole
    if whole["version"] > VERSION:
        raise NotConvertible(
            f"this pandas object was stored by a later flightstore (its format is {whole['version']})",
            hint="upgrade flightstore, or take obj.to_arrow()",
        )
    index = protect_index(decode_index(table, layout, wanted))
    if layout.kind == "index":
        return index
    made = _decode_series if layout.kind == "series" else _decode_frame
    value = protect(made(table, layout, index, wanted))
    if "attrs" in whole:
        value.attrs = read_literal(whole["attrs"])
    if whole.get("unique_labels") and _has_unique_labels(value):
        value.flags.allows_duplicate_labels = False
    return value


def _has_unique_labels(value: Any) -> bool:
    return all(axis.is_unique for axis in value.axes)


def _dtype_facts(facts: Facts | None) -> Facts | None:
    return facts if facts and "dtype" in facts else None


def _decode_series(table: pa.Table, layout: Layout, index: pd.Index, wanted: Conversion) -> pd.Series:
    (position,) = layout.values
    array = decode_array(table.column(position), _dtype_facts(layout.fields[position]), wanted)
    name = read_literal(layout.label(position))
    return pd.Series(array, index=index, dtype=array.dtype, name=name, copy=False)


def _decode_frame(table: pa.Table, layout: Layout, index: pd.Index, wanted: Conversion) -> pd.DataFrame:
    columns = decode_columns(layout)
    blocks = Blocks(table.num_rows)
    for place, position in enumerate(layout.values):
        column, dtype = table.column(position), layout.dtypes[position]
        if dtype is None or wanted.backend is not None or not blocks.add_shared(place, column, dtype):
            blocks.add(place, decode_array(column, _dtype_facts(layout.fields[position]), wanted))
    return assemble(blocks, index, columns)
