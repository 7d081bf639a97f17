"""Arrow arrays from their parts: the layouts that no builder of Arrow makes, and every slice of them.

Calls nothing else of ours. Each function takes the type, so that names, nullability and metadata of nested
fields are as wanted, and `valid`: which rows are not null, or None for no bitmap. What lies in null rows is
the caller's affair, and is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import types as pt

__all__ = [
    "Valid",
    "bitmap",
    "bools",
    "byte_spans",
    "byte_views",
    "dictionary",
    "extension",
    "fixed",
    "fixed_lists",
    "integers",
    "list_views",
    "lists",
    "maps",
    "runs",
    "structs",
    "union",
]

Valid: TypeAlias = Sequence[bool] | None
"""Which rows are not null; None for all, without a bitmap."""

_LARGE = (pt.is_large_list, pt.is_large_list_view, pt.is_large_string, pt.is_large_binary)


def bitmap(flags: Iterable[bool]) -> pa.Buffer:
    """One bit for each flag."""
    return pa.py_buffer(np.packbits(np.array(list(flags), bool), bitorder="little").tobytes())


def integers(values: Iterable[int], kind: pa.DataType) -> pa.Buffer:
    """The numbers, as integers of an Arrow type."""
    return pa.py_buffer(np.array(list(values), kind.to_pandas_dtype()).tobytes())


def _array(
    kind: pa.DataType, length: int, valid: Valid, buffers: list[Any], children: Any = None
) -> pa.Array:
    validity = None if valid is None else bitmap(valid)
    return pa.Array.from_buffers(kind, length, [validity, *buffers], children=children)


def fixed(kind: pa.DataType, cells: Sequence[bytes], valid: Valid = None) -> pa.Array:
    """Values of fixed width, each as its bytes."""
    return _array(kind, len(cells), valid, [pa.py_buffer(b"".join(cells))])


def bools(flags: Sequence[bool], valid: Valid = None) -> pa.Array:
    """Booleans."""
    return _array(pa.bool_(), len(flags), valid, [bitmap(flags)])


def _offset_type(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if any(test(kind) for test in _LARGE) else pa.int32()


def _offsets(values: Iterable[int], kind: pa.DataType) -> pa.Buffer:
    return integers(values, _offset_type(kind))


def byte_spans(
    kind: pa.DataType,
    values: Sequence[bytes],
    valid: Valid = None,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> pa.Array:
    """Strings or binaries; `before` and `after` lie in the data and belong to no row."""
    lengths = [len(before), *map(len, values)]
    data = pa.py_buffer(b"".join((before, *values, after)))
    return _array(kind, len(values), valid, [_offsets(np.cumsum(lengths), kind), data])


def byte_views(
    kind: pa.DataType,
    values: Sequence[bytes],
    valid: Valid = None,
    *,
    places: Sequence[int] = (),
    num_buffers: int = 1,
) -> pa.Array:
    """String or binary views.

    Args:
        kind: ``string_view`` or ``binary_view``.
        values: The bytes of each row; those of up to 12 bytes lie in the view.
        valid: Which rows are not null.
        places: For each row, the buffer its bytes go to, counted from 0; the first unless given.
        num_buffers: How many data buffers there are, those that nobody refers to included.
    """
    data = [bytearray() for _ in range(num_buffers)]
    views = bytearray()
    for row, value in enumerate(values):
        views += len(value).to_bytes(4, "little")
        if len(value) <= 12:
            views += value.ljust(12, b"\0")
            continue
        place = places[row] if places else 0
        views += value[:4] + place.to_bytes(4, "little") + len(data[place]).to_bytes(4, "little")
        data[place] += value
    buffers = [pa.py_buffer(bytes(part)) for part in (views, *data)]
    return _array(kind, len(values), valid, buffers)


def lists(kind: pa.DataType, offsets: Sequence[int], items: pa.Array, valid: Valid = None) -> pa.Array:
    """Lists or large lists: row i has the items from offsets[i] to offsets[i + 1]."""
    return _array(kind, len(offsets) - 1, valid, [_offsets(offsets, kind)], [items])


def maps(
    kind: pa.DataType, offsets: Sequence[int], keys: pa.Array, values: pa.Array, valid: Valid = None
) -> pa.Array:
    """Maps: row i has the entries from offsets[i] to offsets[i + 1]."""
    entries = structs(kind.field(0).type, len(keys), [keys, values])
    return _array(kind, len(offsets) - 1, valid, [_offsets(offsets, kind)], [entries])


def list_views(
    kind: pa.DataType, offsets: Sequence[int], sizes: Sequence[int], items: pa.Array, valid: Valid = None
) -> pa.Array:
    """List views or large ones: row i has sizes[i] items from offsets[i] on; rows may share items."""
    return _array(kind, len(offsets), valid, [_offsets(offsets, kind), _offsets(sizes, kind)], [items])


def fixed_lists(kind: pa.DataType, length: int, items: pa.Array, valid: Valid = None) -> pa.Array:
    """Lists of one size."""
    return _array(kind, length, valid, [], [items])


def structs(kind: pa.DataType, length: int, children: Sequence[pa.Array], valid: Valid = None) -> pa.Array:
    """Structs of arrays that are at least as long."""
    return _array(kind, length, valid, [], list(children))


def union(
    kind: pa.DataType,
    codes: Sequence[int],
    children: Sequence[pa.Array],
    offsets: Sequence[int] | None = None,
) -> pa.Array:
    """Unions: `codes` are type codes; dense ones have `offsets` into the child of each row."""
    buffers = [integers(codes, pa.int8())]
    if offsets is not None:
        buffers.append(integers(offsets, pa.int32()))
    return _array(kind, len(codes), None, buffers, list(children))


def dictionary(kind: pa.DataType, indices: Sequence[int], values: pa.Array, valid: Valid = None) -> pa.Array:
    """Dictionary-encoded values."""
    validity = None if valid is None else bitmap(valid)
    buffers = [validity, integers(indices, kind.index_type)]
    return pa.DictionaryArray.from_buffers(kind, len(indices), buffers, values)


def runs(kind: pa.DataType, ends: Sequence[int], values: pa.Array, length: int) -> pa.Array:
    """Run-end encoded values; the last run may end beyond `length`."""
    run_ends = fixed(kind.run_end_type, [integers([end], kind.run_end_type).to_pybytes() for end in ends])
    return pa.RunEndEncodedArray.from_buffers(kind, length, [None], children=[run_ends, values])


def extension(kind: pa.DataType, storage: pa.Array) -> pa.Array:
    """An extension type's array over its storage."""
    return pa.ExtensionArray.from_storage(kind, storage)
