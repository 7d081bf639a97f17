"""Arrow columns of any origin as pandas arrays: what pandas itself would make of them, sharing what it can
share.

`refusal` tells beforehand what pandas cannot hold. May call arrays, buffers, objects and views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flightstore.connectors._pandas.arrays import MASKED_DTYPES, codes_of, marked, masked, with_nan, zoned
from flightstore.connectors._pandas.buffers import NUMPY_TYPES, joined, numpy_view, slots
from flightstore.connectors._pandas.objects import object_array
from flightstore.connectors._pandas.views import without_views

__all__ = ["DEFAULT", "EXACT_FLOAT", "Conversion", "decode_plain", "nullable_dtype", "refusal"]

BACKENDS = (None, "numpy_nullable", "pyarrow")
EXACT_FLOAT = 2**53
"""Integers up to here are floats exactly."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a caller asks of a conversion."""

    backend: str | None = None
    """One of BACKENDS, with pandas' meanings."""
    strict: bool = True
    """Whether what pandas cannot hold is an error."""


DEFAULT = Conversion()


def _holds(kind: pa.DataType, *tests: Any) -> bool:
    """Whether a type, or a type in it, passes a test."""
    if any(test(kind) for test in tests):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _holds(kind.storage_type, *tests)
    if pa.types.is_dictionary(kind):
        return _holds(kind.value_type, *tests)
    if pa.types.is_run_end_encoded(kind):
        return _holds(kind.value_type, *tests)
    return any(_holds(kind.field(i).type, *tests) for i in range(kind.num_fields))


def refusal(column: pa.ChunkedArray, wanted: Conversion) -> str:
    """Why pandas cannot hold a column without facts as it is; empty if it can."""
    kind = column.type
    if _holds(kind, pa.types.is_union):
        return "pandas has no unions"
    if _holds(kind, pa.types.is_run_end_encoded):
        return "pandas has no run-end encoding"
    if pa.types.is_timestamp(kind) and kind.tz is not None and not _is_zone(kind.tz):
        return "this machine does not know its time zone"
    if getattr(kind, "extension_name", "") in _MEANINGLESS:
        return refusal(_storage(column), wanted)
    if wanted.backend == "pyarrow":
        return "pandas has no calendar intervals" if _holds(kind, pa.types.is_interval) else ""
    if (
        wanted.backend is None
        and kind in (pa.int64(), pa.uint64())
        and column.null_count
        and _is_beyond(column)
    ):
        return "with nulls pandas makes floats of integers, which are not exact beyond 2**53"
    if kind == pa.time64("ns") and _has_nanoseconds(column):
        return "Python's times have no nanoseconds"
    return ""


def _is_beyond(column: pa.ChunkedArray) -> bool:
    bounds = pc.min_max(column)
    return any(abs(bounds[end].as_py() or 0) > EXACT_FLOAT for end in ("min", "max"))


def _has_nanoseconds(column: pa.ChunkedArray) -> bool:
    return any((numpy_view(chunk.fill_null(0), np.dtype("i8")) % 1000).any() for chunk in column.chunks)


def _is_zone(name: str) -> bool:
    try:
        pd.DatetimeTZDtype("ns", name)
    except (KeyError, ValueError, TypeError, OSError):
        return False
    return True


def decode_plain(column: pa.Array | pa.ChunkedArray, wanted: Conversion = DEFAULT) -> Any:
    """The pandas array of a column without facts. What `refusal` names is converted as nearly as can be."""
    kind = column.type
    if wanted.backend == "pyarrow":
        return _decode_arrow(column)
    if getattr(kind, "extension_name", "") in _MEANINGLESS:
        return decode_plain(_storage(column), wanted)
    if wanted.backend == "numpy_nullable":
        found = _decode_nullable(joined(column)) if kind in _NULLABLE else None
        if found is None and _is_string(kind):
            found = pd.StringDtype(na_value=pd.NA).__from_arrow__(column)
        if found is not None:
            return found
    if kind in NUMPY_TYPES:
        return _decode_fixed(joined(column))
    if _is_string(kind) and _infers_strings():
        return pd.StringDtype(na_value=np.nan).__from_arrow__(column)
    if pa.types.is_boolean(kind) or _is_bool8(kind):
        return _decode_bool(joined(column))
    if pa.types.is_timestamp(kind):
        return _decode_zoned(joined(column))
    if pa.types.is_dictionary(kind):
        return _decode_dictionary(column, wanted)
    return _decode_other(column)


_MEANINGLESS = ("arrow.fixed_shape_tensor", "arrow.json", "arrow.opaque")
"""Extension types whose values are to pandas what they are stored as."""


def _storage(column: Any) -> Any:
    if isinstance(column, pa.Array):
        return column.storage
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _infers_strings() -> bool:
    """Whether pandas reads text as its `str` dtype: from version 3 on, where asking it is deprecated."""
    return int(pd.__version__.partition(".")[0]) >= 3 or bool(pd.get_option("future.infer_string"))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bool8(kind: pa.DataType) -> bool:
    return bool(getattr(kind, "extension_name", "") == "arrow.bool8")


def _decode_fixed(array: pa.Array) -> Any:
    dtype = NUMPY_TYPES[array.type]
    if not array.null_count:
        return numpy_view(array, dtype)
    if dtype.kind in "mM":
        return marked(array).view(dtype)
    if dtype.kind == "f":
        return with_nan(array, dtype)
    return with_nan(array.cast(pa.float64(), safe=False), np.dtype("f8"))


def _decode_nullable(array: pa.Array) -> Any:
    return masked(array, _NULLABLE[array.type])


def _decode_bool(array: pa.Array) -> Any:
    if _is_bool8(array.type):
        stored = numpy_view(array.storage, np.dtype("u1"))
        if not array.null_count and (not len(stored) or stored.max() <= 1):
            return stored.view(bool)
        array = pc.not_equal(array.storage, 0)
    if not array.null_count:
        return slots(array.buffers()[1], array.offset, len(array))
    return object_array(array.to_pylist(), len(array))


def _decode_zoned(array: pa.Array) -> Any:
    name = array.type.tz if _is_zone(array.type.tz) else "UTC"
    return zoned(marked(array), pd.DatetimeTZDtype(array.type.unit, name))


def _decode_dictionary(column: pa.Array | pa.ChunkedArray, wanted: Conversion) -> Any:
    """A categorical, or plain values where pandas cannot have them as categories."""
    kind = column.type.value_type
    hashable = not (kind.num_fields or isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind))
    array = joined(column) if hashable else None
    if array is not None and not array.dictionary.null_count:
        values = decode_plain(array.dictionary, wanted)
        categories = pd.Index(values, dtype=values.dtype, copy=False)
        if categories.is_unique and not categories.hasnans:
            dtype = pd.CategoricalDtype(categories, column.type.ordered)
            return pd.Categorical.from_codes(codes_of(array.indices), dtype=dtype, validate=False)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    decoded = pa.chunked_array([chunk.dictionary_decode() for chunk in chunks], kind)
    return decode_plain(decoded, wanted)


def _decode_arrow(column: Any) -> Any:
    """pandas' array of an Arrow column: all of its memory shared."""
    kind = column.type
    if pa.types.is_run_end_encoded(kind):
        return _decode_arrow(_map_chunks(column, pc.run_end_decode, kind.value_type))
    if _holds(kind, pa.types.is_union, pa.types.is_run_end_encoded, pa.types.is_interval):
        return object_array(column.to_pylist(), len(column))
    if pa.types.is_timestamp(kind) and kind.tz is not None and not _is_zone(kind.tz):
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    return pd.arrays.ArrowExtensionArray(without_views(column))


def _map_chunks(column: Any, function: Any, kind: pa.DataType) -> pa.ChunkedArray:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([function(chunk) for chunk in chunks], kind)


def _decode_other(column: Any) -> Any:
    """Whatever NumPy has not: as Arrow converts it, objects mostly."""
    kind = column.type
    if pa.types.is_run_end_encoded(kind):
        return decode_plain(_map_chunks(column, pc.run_end_decode, kind.value_type))
    if _holds(kind, pa.types.is_union, pa.types.is_run_end_encoded):
        return object_array(column.to_pylist(), len(column))
    if kind == pa.time64("ns"):
        column = column.cast(pa.time64("us"), safe=False)
    series = without_views(column, fixed=True).to_pandas()
    array = series.array
    return array.to_numpy() if isinstance(array, pd.arrays.NumpyExtensionArray) else array


_NULLABLE = {pa.from_numpy_dtype(dtype.numpy_dtype): dtype for dtype in MASKED_DTYPES.values()}


def nullable_dtype(kind: pa.DataType) -> Any:
    """pandas' nullable dtype for an Arrow type, None where there is none."""
    return pd.StringDtype(na_value=pd.NA) if _is_string(kind) else _NULLABLE.get(kind)
