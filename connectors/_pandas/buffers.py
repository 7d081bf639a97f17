"""NumPy memory as Arrow memory and back. Nothing is copied but what Arrow lays out differently: booleans,
which it packs in bits, masks, and arrays with gaps.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

__all__ = [
    "NUMPY_TYPES",
    "arrow_type",
    "bits",
    "fixed_width",
    "joined",
    "numpy_view",
    "packed",
    "slots",
    "valid_mask",
]

NumPy: TypeAlias = np.ndarray[Any, Any]

_PLAIN = {
    np.dtype(name): getattr(pa, name)()
    for name in [
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    ]
}
_UNITS = ("s", "ms", "us", "ns")
NUMPY_TYPES: dict[pa.DataType, np.dtype[Any]] = {
    **{kind: dtype for dtype, kind in _PLAIN.items()},
    **{pa.timestamp(unit): np.dtype(f"M8[{unit}]") for unit in _UNITS},
    **{pa.duration(unit): np.dtype(f"m8[{unit}]") for unit in _UNITS},
}
"""Arrow types whose values NumPy has in the same bytes, and its dtype for them."""
_ARROW_TYPES = {dtype: kind for kind, dtype in NUMPY_TYPES.items()}


def arrow_type(dtype: np.dtype[Any]) -> pa.DataType | None:
    """The Arrow type with the same bytes, None where there is none."""
    return _ARROW_TYPES.get(dtype)


def packed(values: NumPy) -> NumPy:
    """The array without gaps: itself, or a copy."""
    return values if values.flags.c_contiguous else np.ascontiguousarray(values)


def bits(flags: NumPy) -> pa.Buffer:
    """Booleans as Arrow packs them, eight to a byte."""
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def fixed_width(values: NumPy, kind: pa.DataType, valid: NumPy | None = None) -> pa.Array:
    """An Arrow array over the memory of a NumPy array.

    Args:
        values: One-dimensional, of any dtype of as many bytes as `kind` has.
        kind: The Arrow type.
        valid: False where a value is null; None where none is. The values under nulls stay as they are.
    """
    data = packed(values)
    memory = pa.py_buffer(data if data.dtype.kind in "iufc" else data.view("u1"))
    if valid is None:
        return pa.Array.from_buffers(kind, len(data), [None, memory], 0)
    nulls = len(data) - int(np.count_nonzero(valid))
    return pa.Array.from_buffers(kind, len(data), [bits(valid) if nulls else None, memory], nulls)


def numpy_view(array: pa.Array, dtype: np.dtype[Any]) -> NumPy:
    """The values of an Arrow array of fixed width, in its memory, read-only; what lies under nulls
    included.
    """
    memory = array.buffers()[1]
    if memory is None or not len(array):
        view = np.empty(0 if memory is None else len(array), dtype)
        if len(view) < len(array):  # no memory at all: every value is null
            view = np.zeros(len(array), dtype)
    else:
        view = np.frombuffer(memory, dtype, len(array), array.offset * dtype.itemsize)
    view.flags.writeable = False
    return view


def slots(memory: pa.Buffer | None, offset: int, length: int) -> NumPy:
    """`length` booleans that Arrow packed into bits, from the bit at `offset`."""
    if memory is None or not length:
        return np.zeros(length, bool)
    first = offset // 8
    data = np.frombuffer(memory, np.uint8, (offset + length + 7) // 8 - first, first)
    begin = offset % 8
    return np.unpackbits(data, count=begin + length, bitorder="little")[begin:].view(bool)


def valid_mask(array: pa.Array) -> NumPy:
    """False where a value is null."""
    memory = array.buffers()[0]
    if memory is None:
        return np.full(len(array), not array.null_count)
    return slots(memory, array.offset, len(array))


def joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece: the piece it is, or a copy of its pieces; dictionaries are merged."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if not column.num_chunks:
        return pa.nulls(0, column.type)
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return pa.concat_arrays(column.chunks)
