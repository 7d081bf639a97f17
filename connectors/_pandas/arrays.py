"""pandas' arrays over the memory of Arrow arrays.

Where pandas marks missing values in the values themselves (NaT, NaN, -1 among codes) the mark is put under
Arrow's nulls, by a copy, unless it lies there already: what pandas wrote is shared, nulls or not. May call
buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.buffers import NUMPY_TYPES, NumPy, numpy_view, slots, valid_mask

__all__ = ["MASKED_DTYPES", "codes_of", "marked", "masked", "with_nan", "zoned"]

NAT = np.iinfo(np.int64).min
MASKED_DTYPES: dict[str, Any] = {
    dtype.name: dtype
    for dtype in (
        *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype()),
        *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype()),
        *(pd.Float32Dtype(), pd.Float64Dtype(), pd.BooleanDtype()),
    )
}
"""pandas' nullable dtypes, whose arrays have a mask, by name."""


def marked(array: pa.Array) -> NumPy:
    """The ticks of an Arrow array of 64-bit times, NaT's for null; shared where they lie so already."""
    ticks = numpy_view(array, np.dtype("i8"))
    if not array.null_count:
        return ticks
    valid = valid_mask(array)
    return ticks if (ticks[~valid] == NAT).all() else np.where(valid, ticks, NAT)


def with_nan(array: pa.Array, dtype: np.dtype[Any]) -> NumPy:
    """The values of an Arrow array of floats, NaN for null; shared where they lie so already."""
    values = numpy_view(array, dtype)
    if not array.null_count:
        return values
    valid = valid_mask(array)
    return values if np.isnan(values[~valid]).all() else np.where(valid, values, dtype.type(np.nan))


def zoned(ticks: NumPy, dtype: pd.DatetimeTZDtype) -> Any:
    """Ticks of UTC as pandas' array of zoned times, over the same memory."""
    memory = pa.py_buffer(ticks)
    kind = pa.timestamp(dtype.unit, "UTC")
    return dtype.__from_arrow__(pa.Array.from_buffers(kind, len(ticks), [None, memory], 0))


def masked(array: pa.Array, dtype: Any) -> Any:
    """A pandas array with a mask; the values share the memory, unless they are booleans."""
    if dtype.numpy_dtype.kind == "b":
        data = slots(array.buffers()[1], array.offset, len(array))
    else:
        data = numpy_view(array, dtype.numpy_dtype)
    mask = ~valid_mask(array) if array.null_count else np.zeros(len(array), bool)
    return dtype.construct_array_type()(data, mask)


def codes_of(indices: pa.Array) -> NumPy:
    """The indices of a dictionary array as pandas' codes: -1 for null; shared where they are that already."""
    dtype = NUMPY_TYPES[indices.type]
    codes = numpy_view(indices, dtype)
    if dtype.kind == "u":
        signed = np.dtype(f"i{min(8, 2 * dtype.itemsize)}")
        codes = codes.astype(signed)
    if not indices.null_count:
        return codes
    valid = valid_mask(indices)
    return codes if (codes[~valid] == -1).all() else np.where(valid, codes, codes.dtype.type(-1))
