"""What a conversion shares and what it copies: found by converting, and comparing addresses. May call
conversion.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.conversion import (
    convert,
    convert_table,
    is_for_arrow,
    table_of,
    wanted_of,
    why_refused,
)
from flightstore.connectors._pandas.encode import array_of
from flightstore.connectors._pandas.frames import column_arrays
from flightstore.connectors._pandas.layout import known_layout
from flightstore.connectors._pandas.standard import STANDARD_KEY
from flightstore.types import ColumnConversion, ConversionReport

__all__ = ["measure", "memory_of"]


def measure(obj: Any, dtype_backend: str | None, strict: bool, options: dict[str, Any]) -> ConversionReport:
    """See ``flightstore.connectors.pandas.report``."""
    wanted = wanted_of(dtype_backend, strict)
    table = table_of(obj)
    if table is None:
        convert(
            obj, dtype_backend, strict, options
        )  # says why not, or finds that there is nothing to convert
        return ConversionReport("pandas", ())
    result = convert_table(table, wanted, options)
    layout = known_layout(table.schema)
    extents = _Extents(table)
    columns = []
    for position, parts in _parts(table, result, bool(options)).items():
        column = table.column(position)
        memory = [span for part in parts for span in memory_of(part)]
        shared = sum(size for address, size in memory if extents.hold(address, size))
        copied = sum(size for _, size in memory) - shared
        why = why_refused(column, position, layout, wanted) if not strict else ""
        if why:
            why += f": converted to {_dtype_name(parts[0])}"
        elif copied:
            why = _reason(column, parts[0], shared)
        name = table.schema.field(position).name
        columns.append((position, ColumnConversion(name, str(column.type), shared, copied, why)))
    return ConversionReport(
        "pandas", tuple(column for _, column in sorted(columns, key=lambda item: item[0]))
    )


def _parts(table: pa.Table, result: Any, by_arrow: bool) -> dict[int, list[Any]]:
    """For each column of the table the arrays of the result that are made of it."""
    layout = known_layout(table.schema)
    levels, values = list(layout.levels), list(layout.values)
    if by_arrow or is_for_arrow(table):
        standard = json.loads((table.schema.metadata or {}).get(STANDARD_KEY, "{}"))
        names = [name for name in standard.get("index_columns", ()) if isinstance(name, str)]
        levels = [table.schema.get_field_index(name) for name in names if name in table.column_names]
        values = [position for position in range(table.num_columns) if position not in levels]
    index = result if isinstance(result, pd.Index) else result.index
    found = dict(zip(levels, _index_parts(index, len(levels)), strict=True))
    if isinstance(result, pd.Series):
        found[values[0]] = [array_of(result)]
    elif isinstance(result, pd.DataFrame):
        arrays = column_arrays(result)
        found |= {position: [arrays[place]] for place, position in enumerate(values)}
    return found


def _index_parts(index: pd.Index, levels: int) -> list[list[Any]]:
    if isinstance(index, pd.MultiIndex):
        pairs = zip(index.codes, index.levels, strict=True)
        return [[np.asarray(codes), _index_array(level)] for codes, level in pairs]
    return [[_index_array(index)]] if levels else []


def _index_array(index: pd.Index) -> Any:
    return np.empty(0, np.int64) if isinstance(index, pd.RangeIndex) else array_of(index)


def memory_of(array: Any) -> Iterator[tuple[int, int]]:
    """(address, bytes) of all the memory of a pandas or NumPy array; of objects, of the references to
    them.
    """
    if isinstance(array, np.ndarray):
        yield array.__array_interface__["data"][0], array.nbytes
    elif isinstance(array, pd.Categorical):
        yield from memory_of(array.codes)
        yield from memory_of(_index_array(array.categories))
    elif isinstance(array, pd.arrays.IntervalArray):
        yield from memory_of(_index_array(array.left))
        yield from memory_of(_index_array(array.right))
    elif isinstance(array, pd.arrays.SparseArray):
        yield from memory_of(array.sp_values)
        yield from memory_of(array.sp_index.to_int_index().indices)
    elif isinstance(array, pd.arrays.ArrowExtensionArray):
        yield from _arrow_memory(array.__arrow_array__())
    elif hasattr(array, "_mask"):
        yield from memory_of(array._data)
        yield from memory_of(array._mask)
    elif hasattr(array, "asi8"):
        yield from memory_of(array.asi8)
    else:
        yield 0, array.nbytes


def _arrow_memory(column: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    for chunk in column.chunks:
        yield from _buffers(chunk)


def _buffers(array: pa.Array) -> Iterator[tuple[int, int]]:
    yield from (
        (buffer.address, buffer.size) for buffer in array.buffers() if buffer is not None and buffer.size
    )
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        yield from _buffers(array.dictionary)


class _Extents:
    """The memory of a table's columns."""

    def __init__(self, table: pa.Table) -> None:
        spans = sorted({span for column in table.itercolumns() for span in _arrow_memory(column)})
        self._starts = [start for start, _ in spans]
        self._ends = [start + size for start, size in spans]

    def hold(self, address: int, size: int) -> bool:
        """Whether all of these bytes are the table's."""
        place = bisect_right(self._starts, address) - 1
        return size > 0 and place >= 0 and address + size <= self._ends[place]


def _dtype_name(array: Any) -> str:
    return str(array.dtype)


def _reason(column: pa.ChunkedArray, array: Any, shared: int) -> str:
    """Why something of a column was copied."""
    kind = column.type
    is_arrow = isinstance(array, pd.arrays.ArrowExtensionArray)
    if column.num_chunks > 1 and not is_arrow:
        return f"its {column.num_chunks} chunks are joined"
    if pa.types.is_dictionary(kind) and not isinstance(array, pd.Categorical) and not is_arrow:
        return "pandas has no such categories: its dictionary is written out"
    if isinstance(array, pd.Categorical):
        return "pandas keeps codes in as few bytes as will do, -1 for null, and categories as any column"
    if isinstance(array, pd.arrays.ArrowStringArray):
        return "pandas keeps 64-bit offsets to the text" + (", which is shared" if shared else "")
    if is_arrow:
        return "pandas knows no views: they are written out"
    if hasattr(array, "_mask"):
        return "pandas keeps a byte for each value's null, Arrow a bit"
    if isinstance(array, pd.arrays.SparseArray):
        return "pandas keeps points, Arrow runs"
    return _reason_of_numpy(column, array.dtype)


def _reason_of_numpy(column: pa.ChunkedArray, dtype: Any) -> str:
    if dtype == np.dtype(bool):
        return "pandas keeps booleans in bytes, Arrow in bits"
    if dtype == np.dtype(object) or isinstance(dtype, pd.StringDtype):
        return "pandas keeps it as Python objects"
    if column.null_count and dtype == np.float64 and column.type != pa.float64():
        return f"pandas has no nulls in {column.type}: floats, with NaN for null"
    if column.null_count:
        return "pandas keeps NaN or NaT where Arrow has null"
    return "pandas keeps it in another form"
