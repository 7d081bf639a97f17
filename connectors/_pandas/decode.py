"""Arrow columns back to pandas arrays, by the facts that `encode` left: exactly what was put, sharing its
memory.

A column may have been replaced, joined with others or cast since. Each decoder looks whether the column is
still of its making, and returns None if not: then it is a column without facts. May call all of `encode`'s
rooms.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.arrays import MASKED_DTYPES, codes_of, marked, masked, zoned
from flightstore.connectors._pandas.buffers import NUMPY_TYPES, NumPy, joined, numpy_view, valid_mask
from flightstore.connectors._pandas.defaults import DEFAULT, Conversion, decode_plain
from flightstore.connectors._pandas.embedded import embedded
from flightstore.connectors._pandas.encode import checksum, readable
from flightstore.connectors._pandas.literals import read_literal
from flightstore.connectors._pandas.objects import decode_objects
from flightstore.errors import NotConvertible

__all__ = ["decode_array", "decode_dictionary", "decode_level", "is_exact_only"]

Facts: TypeAlias = dict[str, Any]
Column: TypeAlias = Any
"""``pa.Array`` or ``pa.ChunkedArray``."""

_OWN_FORMS = ("extension", "interval", "numpy", "period", "sparse")


def is_exact_only(facts: Facts) -> bool:
    """Whether the Arrow column means nothing without its facts, whatever form is asked for."""
    return facts.get("dtype") in _OWN_FORMS or "form" in facts or "objects" in facts


def decode_array(column: Column, facts: Facts | None, wanted: Conversion = DEFAULT) -> Any:
    """The pandas or NumPy array of a column.

    Args:
        column: The values.
        facts: What `encode` said of them; None for a column of somebody else.
        wanted: What the caller asked for; another backend than pandas' own wins over facts where it can.

    Raises:
        NotConvertible: the library whose dtype it is has not been imported.
    """
    if facts and (wanted.backend is None or is_exact_only(facts)):
        decoder = _DECODERS.get(facts.get("dtype", ""))
        found = decoder(column, facts) if decoder else None
        if found is not None:
            return found
    return decode_plain(column, wanted)


def _decode_numpy(column: Column, facts: Facts) -> Any:
    dtype, kind = np.dtype(facts["numpy"]), column.type
    array = joined(column)
    if array.null_count:
        return None
    if pa.types.is_fixed_size_list(kind) and kind.list_size == 2 and dtype.kind == "c":
        part = NUMPY_TYPES.get(kind.value_type)
        if part is None or part.itemsize * 2 != dtype.itemsize:
            return None
        parts = numpy_view(array.values, part)[2 * array.offset : 2 * (array.offset + len(array))]
        return parts.view(dtype)
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == dtype.itemsize:
        return numpy_view(array, dtype)
    if NUMPY_TYPES.get(kind) == dtype.newbyteorder("="):
        return numpy_view(array, NUMPY_TYPES[kind]).astype(dtype)
    return None


def _decode_zoned(column: Column, facts: Facts) -> Any:
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        return None
    dtype = pd.DatetimeTZDtype(column.type.unit, read_literal(facts["tz"]))
    return zoned(marked(joined(column)), dtype)


def _decode_masked(column: Column, facts: Facts) -> Any:
    dtype = MASKED_DTYPES[facts["dtype"]]
    if column.type != pa.from_numpy_dtype(dtype.numpy_dtype):
        return None
    return masked(joined(column), dtype)


def _decode_string(column: Column, facts: Facts) -> Any:
    dtype = pd.StringDtype(facts["storage"], na_value=np.nan if facts["na"] == "nan" else pd.NA)
    if "objects" in facts:
        objects = decode_objects(column, facts["objects"])
        return None if objects is None else pd.array(objects, dtype=dtype, copy=False)
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return None
    return dtype.__from_arrow__(column)


def _decode_arrow(column: Column, facts: Facts) -> Any:
    return pd.arrays.ArrowExtensionArray(column)


def _decode_period(column: Column, facts: Facts) -> Any:
    array = joined(column)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if array.type != pa.int64():
        return None
    return pd.arrays.PeriodArray(marked(array), dtype=pd.PeriodDtype(facts["freq"]))


def _decode_interval(column: Column, facts: Facts) -> Any:
    array = joined(column)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if not pa.types.is_struct(array.type) or {f.name for f in array.type} != {"left", "right"}:
        return None
    left, right = (decode_array(array.field(name), facts["sides"]) for name in ("left", "right"))
    if array.null_count and not pd.isna(left[~valid_mask(array)]).all():
        return None
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=facts["closed"])


def _decode_categorical(column: Column, facts: Facts) -> Any:
    if not pa.types.is_dictionary(column.type):
        return None
    codes, categories = decode_dictionary(column, facts["values"])
    if categories.hasnans or not categories.is_unique:
        return None
    dtype = pd.CategoricalDtype(categories, column.type.ordered)
    return pd.Categorical.from_codes(codes, dtype=dtype, validate=False)


def decode_dictionary(column: Column, facts: Facts) -> tuple[NumPy, pd.Index]:
    """Codes, -1 for null, and the values they mean, of a dictionary column."""
    label = read_literal(facts.get("label"))
    try:
        array = joined(column)
    except pa.ArrowNotImplementedError:  # dictionaries that differ, of a type that Arrow cannot merge
        dense = pa.concat_arrays([chunk.dictionary_decode() for chunk in column.chunks])
        codes, values = decode_level(dense, facts.get("facts", facts), label).factorize()
        return codes, values
    return codes_of(array.indices), _dictionary_values(array.dictionary, facts, label)


def _dictionary_values(dictionary: pa.Array, facts: Facts, label: Any) -> pd.Index:
    if "range" in facts:
        index = pd.RangeIndex(*facts["range"], name=label)
        if not len(dictionary) or dictionary.equals(pa.array(index.to_numpy())):
            return index
    if "embedded" in facts:
        stored = embedded(facts["embedded"])
        index = decode_level(stored, facts["facts"], label)
        if not len(dictionary) or readable(stored, index).equals(dictionary):
            return index
        facts = facts["facts"]
    return decode_level(dictionary, facts, label)


def _decode_sparse(column: Column, facts: Facts) -> Any:
    array = joined(column)
    if not pa.types.is_run_end_encoded(array.type):
        return None
    fill, subtype = read_literal(facts["fill"]), np.dtype(facts["subtype"])
    ends, values = _logical_runs(array, facts["values"])
    if values.dtype != subtype:
        return None
    lengths = np.diff(ends, prepend=0)
    is_fill = pd.isna(values) if pd.isna(fill) else values == fill
    explicit = np.isin(ends - 1, facts["explicit"]) & (lengths == 1)
    kept = ~is_fill | explicit
    rows = np.repeat(ends[kept] - np.cumsum(lengths[kept]), lengths[kept]) + np.arange(lengths[kept].sum())
    points = np.repeat(values[kept], lengths[kept])
    return _sparse_array(points, rows.astype(np.int32), len(array), fill, facts["kind"])


def _sparse_array(points: NumPy, rows: NumPy, length: int, fill: Any, kind: str) -> Any:
    made = getattr(pd.arrays.SparseArray, "from_indices", None)
    if made is not None:
        return made(points, rows, length, fill, kind, points.dtype)
    from pandas._libs.sparse import IntIndex

    index = IntIndex(length, rows)
    index = index.to_block_index() if kind == "block" else index
    return pd.arrays.SparseArray(points, sparse_index=index, dtype=pd.SparseDtype(points.dtype, fill))


def _logical_runs(array: Any, facts: Facts | None) -> tuple[NumPy, NumPy]:
    """Ends and values of the runs of a run-end encoded array, of its own rows only if it is a slice."""
    ends = array.run_ends.to_numpy().astype(np.int64) - array.offset
    values = decode_array(array.values, facts)
    first = int(np.searchsorted(ends, 0, side="right"))
    last = int(np.searchsorted(ends, len(array), side="left")) + 1
    return np.minimum(ends[first:last], len(array)), np.asarray(values[first:last])


def _decode_extension(column: Column, facts: Facts) -> Any:
    if "pickled" in facts:
        dtype = read_literal(facts["pickled"])
        objects = decode_objects(column, facts["objects"])
        return (
            None
            if objects is None
            else dtype.construct_array_type()._from_sequence(list(objects), dtype=dtype)
        )
    try:
        dtype = pd.api.types.pandas_dtype(facts["name"])
    except TypeError as error:
        module = facts["of"].partition(".")[0]
        raise NotConvertible(
            f"pandas does not know the dtype {facts['name']} in this process ({facts['of']})",
            hint="take obj.to_arrow() instead" if module in sys.modules else f"import {module} first",
        ) from error
    return dtype.__from_arrow__(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column]))


_DECODERS: dict[str, Callable[[Column, Facts], Any]] = {
    "arrow": _decode_arrow,
    "category": _decode_categorical,
    "datetimetz": _decode_zoned,
    "extension": _decode_extension,
    "interval": _decode_interval,
    "numpy": _decode_numpy,
    "object": decode_objects,
    "period": _decode_period,
    "sparse": _decode_sparse,
    "string": _decode_string,
    **dict.fromkeys(MASKED_DTYPES, _decode_masked),
}


def decode_level(column: Column, facts: Facts | None, name: Any, wanted: Conversion = DEFAULT) -> pd.Index:
    """An index of one level, its frequency included."""
    values = decode_array(column, facts, wanted)
    index = pd.Index(values, dtype=values.dtype, copy=False, name=name, tupleize_cols=False)
    freq = _frequency(index, facts or {})
    if freq is not None:
        _set_frequency(index, freq)
    return index


def _frequency(index: Any, facts: Facts) -> Any:
    """The frequency that the index had, if it still is that index."""
    is_regular = "freq" in facts and isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex)
    return read_literal(facts["freq"]) if is_regular and checksum(index.asi8) == facts["check"] else None


def _set_frequency(index: Any, freq: Any) -> None:
    """Give an index its frequency back, unchecked: pandas' own check looks at every value."""
    for holder in (index, getattr(index, "_data", index)):
        if hasattr(holder, "_freq"):
            holder._freq = freq
            if index.freq == freq:
                return
    index.freq = freq
