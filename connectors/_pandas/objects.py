"""Columns of Python objects: as Arrow values where exactly the same objects come back, else pickled one by
one.

A column qualifies when all its values are of one plain type, missing ones (None, NaN, NA or NaT: one sort of
them) aside; the types whose Arrow form may lose something (scale, time zone, order of keys) are converted
back and compared before they are accepted. Arrays of one dtype become lists.
"""

from __future__ import annotations

import datetime
import decimal
import pickle
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.buffers import (
    NUMPY_TYPES,
    NumPy,
    arrow_type,
    fixed_width,
    joined,
    numpy_view,
    valid_mask,
)
from flightstore.errors import NotStorable

__all__ = ["Encoded", "decode_objects", "encode_objects", "object_array"]


class Encoded(NamedTuple):
    """A column for Arrow."""

    array: Any
    """``pa.Array`` or ``pa.ChunkedArray``."""
    facts: dict[str, Any] | None = None
    """What the Arrow type does not say; None where it says all."""


_EXACT = {str: pa.large_string(), bytes: pa.large_binary(), bool: pa.bool_(), float: pa.float64()}
"""Arrow gives the same objects back, always."""
_COMPARED: dict[type, pa.DataType | None] = {
    int: None,
    datetime.date: pa.date32(),
    datetime.time: pa.time64("us"),
    datetime.datetime: pa.timestamp("us"),
    datetime.timedelta: pa.duration("us"),
    decimal.Decimal: None,
    list: None,
    dict: None,
}
"""Arrow may give the same objects back: try. None where Arrow infers the type."""
_PICKLES = pa.struct({"pickle": pa.large_binary()})
"""A type of its own, so that nothing else is ever joined to pickles, and unpickled."""
_MARKERS = {"None": None, "nan": np.nan, "NA": pd.NA, "NaT": pd.NaT}
_MISSING = {type(None): "None", type(pd.NA): "NA", type(pd.NaT): "NaT"}
_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError)


def object_array(items: Iterable[Any], length: int) -> NumPy:
    """An array of exactly these objects, lists and arrays among them included."""
    return np.fromiter(items, dtype=object, count=length)


def encode_objects(values: NumPy, where: str, *, may_pickle: bool) -> Encoded:
    """A column of objects.

    Args:
        values: One-dimensional, of dtype object.
        where: What it is, for errors: "column 'x'".
        may_pickle: Whether pickles are allowed.

    Raises:
        NotStorable: only pickle could take it and may not, or does not; names the row and its type.
    """
    kinds = set(map(type, values))
    marker, kinds = _missing(values, kinds)
    if marker is not None and len(kinds) <= 1:
        plain = _encode_plain(values, next(iter(kinds), None), marker)
        if plain is not None:
            return plain
    if not may_pickle:
        raise _refusal(values, where)
    return Encoded(_pickled(values, where), {"dtype": "object", "form": "pickle"})


def _missing(values: NumPy, kinds: set[type]) -> tuple[str | None, set[type]]:
    """The one sort of missing values, None if there are several; and the types of the others."""
    markers = {_MISSING[kind] for kind in kinds if kind in _MISSING}
    kinds = {kind for kind in kinds if kind not in _MISSING}
    if float in kinds and len(kinds) > 1 and all(v != v for v in values if type(v) is float):
        kinds.discard(float)
        markers.add("nan")
    return (None if len(markers) > 1 else next(iter(markers), "None")), kinds


def _encode_plain(values: NumPy, kind: type | None, marker: str) -> Encoded | None:
    """Values of one type as Arrow values, None where they would not come back the same."""
    facts = {"dtype": "object"} if marker == "None" else {"dtype": "object", "missing": marker}
    if kind is None:
        return Encoded(pa.nulls(len(values)), facts)
    if kind is np.ndarray:
        return _encode_arrays(values, facts)
    missing = np.fromiter((type(v) is not kind for v in values), bool, len(values))
    mask = missing if missing.any() else None
    try:
        if kind in _EXACT:
            return Encoded(pa.array(values, _EXACT[kind], mask=mask, from_pandas=False), facts)
        if kind is uuid.UUID:
            return _encode_uuids(values, missing, facts)
        if kind not in _COMPARED:
            return None
        array = _integers(values, mask) if kind is int else _converted(values, kind, mask)
        pairs = zip(values, array.to_pylist(), missing, strict=True)
        return Encoded(array, facts) if all(no or _same(mine, back) for mine, back, no in pairs) else None
    except _REFUSALS:
        return None


def _converted(values: NumPy, kind: type, mask: NumPy | None) -> pa.Array:
    return pa.array(values, _COMPARED[kind], mask=mask, from_pandas=False)


def _integers(values: NumPy, mask: NumPy | None) -> pa.Array:
    try:
        return pa.array(values, pa.int64(), mask=mask, from_pandas=False)
    except _REFUSALS:
        return pa.array(values, pa.uint64(), mask=mask, from_pandas=False)


def _encode_uuids(values: NumPy, missing: NumPy, facts: dict[str, Any]) -> Encoded | None:
    if any(value.is_safe is not uuid.SafeUUID.unknown for value in values[~missing]):
        return None
    data = [None if no else value.bytes for value, no in zip(values, missing, strict=True)]
    return Encoded(pa.ExtensionArray.from_storage(pa.uuid(), pa.array(data, pa.binary(16))), facts)


def _encode_arrays(values: NumPy, facts: dict[str, Any]) -> Encoded | None:
    """Rows that are arrays of one dtype and one dimension: lists."""
    arrays = [value for value in values if type(value) is np.ndarray]
    dtype = arrays[0].dtype
    kind = arrow_type(dtype)
    if kind is None or any(array.ndim != 1 or array.dtype != dtype for array in arrays):
        return None
    valid = np.fromiter((type(v) is np.ndarray for v in values), bool, len(values))
    lengths = np.zeros(len(values) + 1, np.int64)
    lengths[1:][valid] = [len(array) for array in arrays]
    items = fixed_width(np.concatenate(arrays), kind)
    mask = None if valid.all() else pa.array(~valid)
    lists = pa.LargeListArray.from_arrays(pa.array(np.cumsum(lengths)), items, mask=mask)
    return Encoded(lists, {**facts, "form": "arrays"})


def _same(mine: Any, back: Any) -> bool:
    """Whether Arrow gave the very same value back."""
    kind = type(mine)
    if kind is not type(back):
        return False
    if kind is list:
        return len(mine) == len(back) and all(map(_same, mine, back))
    if kind is dict:
        return list(mine) == list(back) and all(
            type(key) is str and _same(mine[key], back[key]) for key in mine
        )
    if kind is float:
        return bool(mine == back or (mine != mine and back != back))
    if kind is decimal.Decimal:
        return bool(mine.as_tuple() == back.as_tuple())
    if kind in (datetime.datetime, datetime.time):
        return bool(mine.tzinfo is None and not mine.fold and mine == back)
    return bool(mine == back)


def _pickled(values: NumPy, where: str) -> pa.Array:
    data: list[bytes | None] = []
    for row, value in enumerate(values):
        try:
            data.append(None if value is None else pickle.dumps(value, protocol=5))
        except MemoryError:
            raise
        except Exception as error:
            raise NotStorable(
                f"{where} of this pandas object: row {row} holds a {_name(value)}, which cannot be "
                f"stored: {error}",
                hint="store the data in it instead",
            ) from error
    return pa.StructArray.from_arrays([pa.array(data, pa.large_binary())], ["pickle"])


def _refusal(values: NumPy, where: str) -> NotStorable:
    """Says which value it is that Arrow does not hold, or not beside the others."""
    sorts: dict[str, int] = {}
    for row, value in enumerate(values):
        sorts.setdefault(_sort(value), row)
    rows = [row for sort, row in sorts.items() if sort not in _MARKERS]
    if len(rows) < 2:
        rows = [row for sort, row in sorts.items() if sort in _MARKERS]
    odd = rows[1] if len(rows) > 1 else _culprit(values)
    beside = f", beside {_sort(values[rows[0]])} in row {rows[0]}" if len(rows) > 1 else ""
    return NotStorable(
        f"{where} of this pandas object: only pickle could store it, which is forbidden: "
        f"row {odd} holds {_sort(values[odd])}{beside}",
        hint="give it one type that Arrow knows, or allow pickle",
    )


def _culprit(values: NumPy) -> int:
    """The row that Arrow refuses, or the last of several that it refuses together."""
    begin, end = 0, len(values)
    while end - begin > 1:
        middle = (begin + end) // 2
        half = values[begin:middle]
        marker, kinds = _missing(half, set(map(type, half)))
        taken = marker is not None and _encode_plain(half, next(iter(kinds), None), marker) is not None
        begin, end = (middle, end) if taken else (begin, middle)
    return begin


def _sort(value: Any) -> str:
    """What an error calls a value: its type, or which missing value it is."""
    kind = type(value)
    return _MISSING.get(kind) or ("nan" if kind is float and value != value else _name(value))


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def decode_objects(column: pa.Array | pa.ChunkedArray, facts: dict[str, Any]) -> NumPy | None:
    """The objects of a column that `encode_objects` made; None where the column is of another making
    by now.
    """
    form = facts.get("form")
    missing = _MARKERS[facts.get("missing", "None")]
    length = len(column)
    if form == "pickle":
        if column.type != _PICKLES:
            return None
        column = joined(column).field("pickle")
        loads = pickle.loads
        return object_array((None if data is None else loads(data) for data in column.to_pylist()), length)
    if form == "arrays":
        return _decode_arrays(joined(column)) if pa.types.is_large_list(column.type) else None
    if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type):
        array = joined(column)
        values: NumPy = array.to_numpy(zero_copy_only=False).astype(object, copy=False)
        if not values.flags.writeable:
            values = values.copy()
        if missing is not None and array.null_count:
            values[~valid_mask(array)] = missing
        return values
    found = column.to_pylist()
    return object_array(found if missing is None else (missing if v is None else v for v in found), length)


def _decode_arrays(lists: pa.LargeListArray) -> NumPy | None:
    items = lists.values
    dtype = None if items.null_count else NUMPY_TYPES.get(items.type)
    if dtype is None:
        return None
    data = numpy_view(items, dtype)
    ends = lists.offsets.to_numpy()
    rows = (
        data[begin:end].copy() if there else None
        for begin, end, there in zip(ends[:-1], ends[1:], valid_mask(lists), strict=True)
    )
    return object_array(rows, len(lists))
