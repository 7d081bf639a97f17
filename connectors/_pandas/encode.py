"""pandas arrays to Arrow, by dtype: the values' own memory wherever Arrow lays them out alike.

Missing values become Arrow nulls where pandas marks them (NaT, -1 among codes, masks), so that everybody
sees them; the mark stays in the memory under the null, so that nothing has to be restored. A float NaN stays
a NaN: nobody looks for it. May call buffers, literals and objects.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.arrays import MASKED_DTYPES
from flightstore.connectors._pandas.buffers import NumPy, arrow_type, bits, fixed_width, packed
from flightstore.connectors._pandas.embedded import dense, embed
from flightstore.connectors._pandas.literals import Writer
from flightstore.connectors._pandas.objects import Encoded, encode_objects
from flightstore.errors import NotStorable

__all__ = [
    "array_of",
    "checksum",
    "encode_array",
    "encode_codes",
    "encode_dictionary",
    "encode_level",
    "encode_plain",
    "readable",
]

NAT = np.iinfo(np.int64).min
NumpyEADtype = type(pd.Series([0]).array.dtype)
"""The dtype of pandas' wrapper around NumPy's arrays."""
SAMPLES = 16


def array_of(values: pd.Series | pd.Index) -> Any:
    """The array under a series or an index of one level: NumPy's or pandas' own; not copied."""
    array = values.array
    return array.to_numpy() if isinstance(array.dtype, NumpyEADtype) else array


def encode_plain(values: Any) -> pa.Array | None:
    """A column of numbers that needs no facts, over the memory of a NumPy array; None if it is none."""
    dtype = values.dtype
    if isinstance(values, np.ndarray) and dtype.kind in "iuf":
        plain = arrow_type(dtype)
        return None if plain is None else fixed_width(values, plain)
    return None


def encode_array(values: Any, where: str, *, may_pickle: bool) -> Encoded:
    """One column.

    Args:
        values: A NumPy array or a pandas extension array.
        where: What it is, for errors: "column 'x'".
        may_pickle: Whether pickles are allowed.

    Raises:
        NotStorable: only pickle could take it and may not, or does not.
    """
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind in "mM":
            return _encode_times(values.view("i8"), arrow_type(dtype))
        if not isinstance(values, np.ndarray):
            values = values.to_numpy()
        return _encode_numpy(values, where, may_pickle)
    encoder = _ENCODERS.get(type(dtype), _encode_extension)
    return encoder(values, Writer(may_pickle, where))


def _encode_numpy(values: NumPy, where: str, may_pickle: bool) -> Encoded:
    dtype = values.dtype
    plain = arrow_type(dtype)
    if plain is not None:
        return Encoded(fixed_width(values, plain))
    if dtype.kind == "b":
        return Encoded(pa.Array.from_buffers(pa.bool_(), len(values), [None, bits(values)], 0))
    if dtype.kind == "O":
        return encode_objects(values, where, may_pickle=may_pickle)
    facts = {"dtype": "numpy", "numpy": dtype.str}
    if dtype in (np.complex64, np.complex128):
        parts = packed(values).view(np.dtype(f"f{dtype.itemsize // 2}"))
        kind = arrow_type(parts.dtype)
        return Encoded(pa.FixedSizeListArray.from_arrays(fixed_width(parts, kind), 2), facts)
    if not dtype.isnative and arrow_type(dtype.newbyteorder("=")):
        native = values.astype(dtype.newbyteorder("="))
        return Encoded(fixed_width(native, arrow_type(native.dtype)), facts)
    if dtype.hasobject or np.dtype(dtype.str) != dtype:
        raise NotStorable(f"{where} of this pandas object: NumPy's dtype {dtype} has no form in Arrow")
    return Encoded(fixed_width(values, pa.binary(dtype.itemsize)), facts)


def _encode_times(ticks: NumPy, kind: pa.DataType, facts: dict[str, Any] | None = None) -> Encoded:
    """Ticks of a clock; NaT is null, and stays under the null as it is."""
    has_nat = len(ticks) and ticks.min() == NAT
    return Encoded(fixed_width(ticks, kind, ticks != NAT if has_nat else None), facts)


def _encode_zoned(values: Any, writer: Writer) -> Encoded:
    dtype = values.dtype
    try:
        zone = pa.lib.tzinfo_to_string(dtype.tz)
    except (ValueError, pa.ArrowException):  # the ticks are UTC's whatever the zone
        zone = "UTC"
    facts = {"dtype": "datetimetz", "tz": writer.write(dtype.tz)}
    return _encode_times(values.view("i8"), pa.timestamp(dtype.unit, zone), facts)


def _encode_masked(values: Any, writer: Writer) -> Encoded:
    data, mask = values._data, values._mask
    valid = ~mask if mask.any() else None
    facts = {"dtype": values.dtype.name}
    if data.dtype.kind != "b":
        return Encoded(fixed_width(data, arrow_type(data.dtype), valid), facts)
    buffers = [None if valid is None else bits(valid), bits(data)]
    return Encoded(pa.Array.from_buffers(pa.bool_(), len(data), buffers, int(mask.sum())), facts)


def _encode_categorical(values: Any, writer: Writer) -> Encoded:
    dictionary, facts = encode_dictionary(values.dtype.categories, writer, not len(values))
    indices = encode_codes(values.codes)
    array = pa.DictionaryArray.from_arrays(indices, dictionary, ordered=values.dtype.ordered, safe=False)
    return Encoded(array, {"dtype": "category", "values": facts})


def encode_codes(codes: NumPy) -> pa.Array:
    """Codes of a categorical or an index level; -1 is null, and stays under the null as it is."""
    has_missing = len(codes) and codes.min() < 0
    return fixed_width(codes, arrow_type(codes.dtype), codes >= 0 if has_missing else None)


def encode_dictionary(index: pd.Index, writer: Writer, is_unused: bool) -> tuple[pa.Array, dict[str, Any]]:
    """Categories, or a level of a MultiIndex, as the values of an Arrow dictionary, and its facts.

    Args:
        index: The categories.
        writer: How to write what JSON has not.
        is_unused: Whether there is no row: then Arrow writes no dictionary.
    """
    if isinstance(index, pd.RangeIndex):
        facts: dict[str, Any] = {"range": [index.start, index.stop, index.step]}
        return pa.array(index.to_numpy()), _named(facts, index, writer)
    array, known = encode_level(index, writer)
    facts = dict(known or {})
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks != 1 else array.chunk(0)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    shown = readable(array, index)
    if shown is not array or is_unused:
        facts = {"embedded": embed(array), "facts": facts}
    return shown, _named(facts, index, writer)


def readable(array: pa.Array, index: pd.Index) -> pa.Array:
    """The values of an index as an Arrow dictionary that every reader takes: texts where it must be."""
    kind = array.type
    if pa.types.is_struct(kind):
        return pa.array([str(value) for value in index], pa.large_string())
    return dense(array) if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) else array


def _named(facts: dict[str, Any], index: pd.Index, writer: Writer) -> dict[str, Any]:
    return facts if index.name is None else {**facts, "label": writer.write(index.name)}


def encode_level(index: pd.Index, writer: Writer) -> Encoded:
    """The values of an index of one level."""
    array, facts = encode_array(array_of(index), writer.where, may_pickle=writer.pickle)
    freq = None if isinstance(index, pd.PeriodIndex) else getattr(index, "freq", None)
    if freq is not None:
        facts = {**(facts or {}), "freq": writer.write(freq), "check": checksum(index.asi8)}
    return Encoded(array, facts)


def checksum(ticks: NumPy) -> list[int]:
    """Tells whether an index is still the one that had a frequency: its length, and some of its values."""
    step = max(1, len(ticks) // SAMPLES)
    sample = np.append(ticks[::step], ticks[-1:])
    return [len(ticks), zlib.crc32(sample.tobytes())]


def _encode_period(values: Any, writer: Writer) -> Encoded:
    freq = values.dtype.name.removeprefix("period[").removesuffix("]")
    if pd.PeriodDtype(freq) != values.dtype:
        raise NotStorable(
            f"{writer.where} of this pandas object: periods of {values.dtype} have no plain name"
        )
    ordinals, _ = _encode_times(values.asi8, pa.int64())
    kind = values[:0].__arrow_array__().type
    return Encoded(pa.ExtensionArray.from_storage(kind, ordinals), {"dtype": "period", "freq": freq})


def _encode_interval(values: Any, writer: Writer) -> Encoded:
    sides = [
        encode_array(array_of(side), writer.where, may_pickle=writer.pickle)
        for side in (values.left, values.right)
    ]
    missing = values.isna()
    mask = pa.array(missing) if missing.any() else None
    array = pa.StructArray.from_arrays([side.array for side in sides], ["left", "right"], mask=mask)
    facts = {"dtype": "interval", "closed": values.dtype.closed, "sides": sides[0].facts}
    try:
        kind = values[:0].__arrow_array__().type
        if kind.storage_type == array.type:
            array = pa.ExtensionArray.from_storage(kind, array)
    except (TypeError, pa.ArrowException):  # pandas has no Arrow type for intervals of zoned times
        pass
    return Encoded(array, facts)


def _encode_string(values: Any, writer: Writer) -> Encoded:
    dtype = values.dtype
    facts = {"dtype": "string", "storage": dtype.storage, "na": "nan" if dtype.na_value is np.nan else "NA"}
    if dtype.storage == "pyarrow":
        return Encoded(values.__arrow_array__(), facts)
    objects = np.asarray(values, dtype=object)
    try:
        return Encoded(pa.array(objects, pa.large_string(), from_pandas=True), facts)
    except (UnicodeError, pa.ArrowException):  # not every str is Unicode
        array, form = encode_objects(objects, writer.where, may_pickle=writer.pickle)
        return Encoded(array, {**facts, "objects": form})


def _encode_arrow(values: Any, writer: Writer) -> Encoded:
    return Encoded(values.__arrow_array__(), {"dtype": "arrow"})


def _encode_sparse(values: Any, writer: Writer) -> Encoded:
    """The points of a sparse array as runs of length one, between runs of its fill value."""
    dtype, points = values.dtype, values.sp_values
    rows = values.sp_index.to_int_index().indices.astype(np.int64)
    pool = np.empty(len(points) + 1, points.dtype)
    pool[:-1] = points
    pool[-1] = values.fill_value
    ends, which = _runs(rows, len(values))
    run_values, value_facts = encode_array(pool[which], writer.where, may_pickle=writer.pickle)
    is_fill = pd.isna(points) if pd.isna(values.fill_value) else points == values.fill_value
    facts = {
        "dtype": "sparse",
        "kind": values.kind,
        "fill": writer.write(dtype.fill_value),
        "subtype": dtype.subtype.str,
        "values": value_facts,
        "explicit": rows[is_fill].tolist(),
    }
    kind = pa.int32() if len(values) < 2**31 else pa.int64()
    return Encoded(pa.RunEndEncodedArray.from_arrays(pa.array(ends, kind), run_values), facts)


def _runs(rows: NumPy, length: int) -> tuple[NumPy, NumPy]:
    """Where the runs end, and which point each is; the last number means none."""
    after = np.append(0, rows + 1)  # the first row after each point
    gaps = np.append(rows, length) > after  # whether something lies between it and the next
    order = np.empty((len(rows) + 1, 2), np.int64)
    order[:, 0], order[:-1, 1] = len(rows), np.arange(len(rows))
    ends = np.empty_like(order)
    ends[:, 0], ends[:-1, 1] = np.append(rows, length), rows + 1
    kept = np.stack([gaps, np.append(np.ones(len(rows), bool), False)], axis=1)
    return ends[kept], order[kept]


def _encode_extension(values: Any, writer: Writer) -> Encoded:
    """An array of a dtype of somebody else: through Arrow if its library can, else its values pickled."""
    return _through_arrow(values) or _through_scalars(values, writer)


def _through_arrow(values: Any) -> Encoded | None:
    dtype = values.dtype
    if not (hasattr(values, "__arrow_array__") and hasattr(dtype, "__from_arrow__")):
        return None
    try:
        array = pa.array(values)
        same = pd.api.types.pandas_dtype(str(dtype)) == dtype
        same = same and _equal(dtype.__from_arrow__(pa.chunked_array([array])), values)
    except Exception:  # somebody else's code: whatever it raises, this is not the way
        return None
    return (
        Encoded(array, {"dtype": "extension", "name": str(dtype), "of": _qualified(dtype)}) if same else None
    )


def _through_scalars(values: Any, writer: Writer) -> Encoded:
    dtype = values.dtype
    objects = np.fromiter(values, dtype=object, count=len(values))
    try:
        same = _equal(type(values)._from_sequence(list(objects), dtype=dtype), values)
    except Exception:  # as above
        same = False
    if not same:
        raise NotStorable(
            f"{writer.where} of this pandas object: its dtype {dtype} has no form in Arrow",
            hint="convert it to a dtype of pandas itself",
        )
    facts = {"dtype": "extension", "of": _qualified(dtype), "pickled": writer.write(dtype)}
    array, form = encode_objects(objects, writer.where, may_pickle=writer.pickle)
    return Encoded(array, {**facts, "objects": form})


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one.dtype == other.dtype and bool(one.equals(other))


def _qualified(dtype: Any) -> str:
    return f"{type(dtype).__module__}.{type(dtype).__qualname__}"


_ENCODERS: dict[type, Callable[[Any, Writer], Encoded]] = {
    pd.CategoricalDtype: _encode_categorical,
    pd.DatetimeTZDtype: _encode_zoned,
    pd.PeriodDtype: _encode_period,
    pd.IntervalDtype: _encode_interval,
    pd.SparseDtype: _encode_sparse,
    pd.StringDtype: _encode_string,
    pd.ArrowDtype: _encode_arrow,
    **{type(dtype): _encode_masked for dtype in MASKED_DTYPES.values()},
}
