"""The first row in which two Arrow arrays of one type differ, by value and exactly.

Calls nothing else of ours. How: two arrays are compared at chosen rows, all at once, and in turn those rows
of their children that they refer to. So it does not matter how either lies in memory: offsets, slices, the
order of list views, what null slots hold, how dictionaries and runs are cut. What is fixed in width is
compared bit by bit: a NaN is equal to the same NaN, and 0.0 is not equal to -0.0. A null in a dictionary and
a null index are both null.

Nothing of Arrow's own comparison or casts is used: most of them do not take every type, and what is to be
checked should not vouch for itself. Buffers are read through NumPy, which checks their bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import types as pt

__all__ = ["first_difference"]

Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
"""Rows of an array, counted from its own beginning, wherever that lies in its buffers."""
Flags: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

BLOCK_ROWS = 1 << 16
"""Rows compared at a time: bounds the memory that this needs."""

_LARGE = (pt.is_large_list, pt.is_large_list_view, pt.is_large_string, pt.is_large_binary)
_SPANS_OF_BYTES = (pt.is_string, pt.is_large_string, pt.is_binary, pt.is_large_binary)
_BYTE_VIEWS = (pt.is_string_view, pt.is_binary_view)
_LISTS = (pt.is_list, pt.is_large_list, pt.is_map)
_LIST_VIEWS = (pt.is_list_view, pt.is_large_list_view)


def first_difference(expected: Any, actual: Any) -> int | None:
    """The first row in which two (chunked) arrays of the same type and length differ, None if none."""
    row = 0
    for left, left_at, right, right_at, count in _side_by_side(_chunks(expected), _chunks(actual)):
        for begin in range(0, count, BLOCK_ROWS):
            rows = np.arange(begin, min(count, begin + BLOCK_ROWS))
            found = np.flatnonzero(_differ(left, left_at + rows, right, right_at + rows))
            if found.size:
                return row + begin + int(found[0])
        row += count
    return None


def _chunks(value: Any) -> list[pa.Array]:
    return list(value.chunks) if isinstance(value, pa.ChunkedArray) else [value]


def _side_by_side(
    left: list[pa.Array], right: list[pa.Array]
) -> Iterator[tuple[pa.Array, int, pa.Array, int, int]]:
    """Pieces of both that face each other: (left, first row in it, right, first row in it, rows)."""
    others = iter([chunk for chunk in right if len(chunk)])
    other, other_at = None, 0
    for chunk in left:
        at = 0
        while at < len(chunk):
            if other is None or other_at == len(other):
                other, other_at = next(others), 0
            count = min(len(chunk) - at, len(other) - other_at)
            yield chunk, at, other, other_at, count
            at, other_at = at + count, other_at + count


def _differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    """For each pair of rows, whether the values differ."""
    if not len(left_rows):
        return np.zeros(0, bool)
    kind = left.type
    if isinstance(kind, pa.BaseExtensionType):
        return _differ(left.storage, left_rows, right.storage, right_rows)
    if pt.is_run_end_encoded(kind):
        return _differ(left.values, _runs(left, left_rows), right.values, _runs(right, right_rows))
    valid = _valid(left, left_rows)
    differ: Flags = valid != _valid(right, right_rows)
    both = np.flatnonzero(valid & ~differ)
    if both.size:
        differ[both] = _comparison(kind)(left, left_rows[both], right, right_rows[both])
    return differ


def _comparison(kind: pa.DataType) -> Callable[[Any, Rows, Any, Rows], Flags]:
    """How values that are not null are compared."""
    if pt.is_boolean(kind):
        return _bools_differ
    if any(test(kind) for test in (*_SPANS_OF_BYTES, *_BYTE_VIEWS)):
        return _bytes_differ
    if any(test(kind) for test in (*_LISTS, *_LIST_VIEWS)) or pt.is_fixed_size_list(kind):
        return _lists_differ
    if pt.is_struct(kind):
        return _structs_differ
    if pt.is_union(kind):
        return _unions_differ
    if pt.is_dictionary(kind):
        return _dictionaries_differ
    return _fixed_differ


def _valid(array: Any, rows: Rows) -> Flags:
    """Which rows are not null. A row of a union never is: what it refers to may be."""
    kind = array.type
    if pt.is_null(kind):
        return np.zeros(len(rows), bool)
    if isinstance(kind, pa.BaseExtensionType):
        return _valid(array.storage, rows)
    if pt.is_run_end_encoded(kind):
        return _valid(array.values, _runs(array, rows))
    bitmap = None if pt.is_union(kind) else array.buffers()[0]
    valid = np.ones(len(rows), bool) if bitmap is None else _bits(bitmap, array.offset + rows)
    if pt.is_dictionary(kind):
        known = np.flatnonzero(valid)
        valid[known] = _valid(array.dictionary, _indices(array, rows[known]))
    return valid


def _bits(buffer: pa.Buffer, positions: Rows) -> Flags:
    packed = np.frombuffer(buffer, np.uint8)
    flags: Flags = (packed[positions >> 3] >> (positions & 7).astype(np.uint8) & 1).astype(bool)
    return flags


def _numbers(buffer: pa.Buffer, dtype: Any, positions: Rows) -> Rows:
    """Integers at these positions of a buffer."""
    size = np.dtype(dtype).itemsize
    whole = np.frombuffer(buffer, dtype, buffer.size // size)
    return whole[positions].astype(np.int64)


def _runs(array: Any, rows: Rows) -> Rows:
    """The run that each row belongs to."""
    ends = array.run_ends
    if not len(rows):
        return rows
    positions = np.arange(len(ends)) + ends.offset
    every_end = _numbers(ends.buffers()[1], ends.type.to_pandas_dtype(), positions)
    found: Rows = np.searchsorted(every_end, array.offset + rows, side="right")
    return found


def _indices(array: Any, rows: Rows) -> Rows:
    if not len(rows):
        return rows
    dtype = array.type.index_type.to_pandas_dtype()
    return _numbers(array.buffers()[1], dtype, array.offset + rows)


def _bools_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    sides = ((left, left_rows), (right, right_rows))
    first, second = (_bits(array.buffers()[1], array.offset + rows) for array, rows in sides)
    differ: Flags = first != second
    return differ


def _fixed_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    width = left.type.bit_width // 8
    sides = ((left, left_rows), (right, right_rows))
    return _cells_differ(*(_cells(array.buffers()[1], width, array.offset + rows) for array, rows in sides))


def _cells(buffer: pa.Buffer | None, width: int, positions: Rows) -> np.ndarray[Any, Any]:
    """The bytes of values of fixed width, a row for each."""
    if not width:
        return np.zeros((len(positions), 0), np.uint8)
    whole = np.frombuffer(buffer or b"", np.uint8)
    cells: np.ndarray[Any, Any] = whole[: len(whole) // width * width].reshape(-1, width)[positions]
    return cells


def _cells_differ(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> Flags:
    flags: Flags = (left != right).any(axis=1)
    return flags


def _dictionaries_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    return _differ(left.dictionary, _indices(left, left_rows), right.dictionary, _indices(right, right_rows))


def _structs_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    differ = np.zeros(len(left_rows), bool)
    for number in range(left.type.num_fields):
        differ |= _differ(left.field(number), left_rows, right.field(number), right_rows)
    return differ


def _unions_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    codes, other = (
        _numbers(array.buffers()[1], np.int8, array.offset + rows)
        for array, rows in ((left, left_rows), (right, right_rows))
    )
    differ: Flags = codes != other
    for number, code in enumerate(left.type.type_codes):
        here = np.flatnonzero((codes == code) & ~differ)
        if here.size:
            child_rows = (_in_child(left, left_rows[here]), _in_child(right, right_rows[here]))
            differ[here] = _differ(left.field(number), child_rows[0], right.field(number), child_rows[1])
    return differ


def _in_child(union: Any, rows: Rows) -> Rows:
    """Where a union's rows lie in their child; those of a sparse one are cut as the union is."""
    if union.type.mode == "sparse":
        return rows
    return _numbers(union.buffers()[2], np.int32, union.offset + rows)


def _lists_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    left_at, lengths = _spans(left, left_rows)
    right_at, other_lengths = _spans(right, right_rows)
    differ: Flags = lengths != other_lengths
    same = np.flatnonzero(~differ)
    owner, within = _spread(lengths[same])
    items = _differ(left.values, left_at[same][owner] + within, right.values, right_at[same][owner] + within)
    differ[same[owner[items]]] = True
    return differ


def _spread(lengths: Rows) -> tuple[Rows, Rows]:
    """For spans of these lengths, each item's span and its place in it."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.cumsum(lengths) - lengths
    return owner, np.arange(len(owner)) - begins[owner]


def _spans(array: Any, rows: Rows) -> tuple[Rows, Rows]:
    """Where a list's or string's items begin, and how many there are."""
    kind = array.type
    positions = array.offset + rows
    if pt.is_fixed_size_list(kind):
        return positions * kind.list_size, np.full(len(rows), kind.list_size)
    dtype = np.int64 if any(test(kind) for test in _LARGE) else np.int32
    buffers = array.buffers()
    begins = _numbers(buffers[1], dtype, positions)
    if any(test(kind) for test in _LIST_VIEWS):
        return begins, _numbers(buffers[2], dtype, positions)
    return begins, _numbers(buffers[1], dtype, positions + 1) - begins


def _bytes_differ(left: Any, left_rows: Rows, right: Any, right_rows: Rows) -> Flags:
    left_at, lengths, left_in = _byte_spans(left, left_rows)
    right_at, other_lengths, right_in = _byte_spans(right, right_rows)
    differ: Flags = lengths != other_lengths
    for buffers in {*zip(left_in.tolist(), right_in.tolist(), strict=True)}:
        here = np.flatnonzero(~differ & (lengths > 0) & (left_in == buffers[0]) & (right_in == buffers[1]))
        owner, within = _spread(lengths[here])
        first = _cells(left.buffers()[buffers[0]], 1, left_at[here][owner] + within)
        second = _cells(right.buffers()[buffers[1]], 1, right_at[here][owner] + within)
        differ[here[owner[_cells_differ(first, second)]]] = True
    return differ


def _byte_spans(array: Any, rows: Rows) -> tuple[Rows, Rows, Rows]:
    """(first byte, length, number of the buffer) of strings and binaries."""
    if not any(test(array.type) for test in _BYTE_VIEWS):
        begins, lengths = _spans(array, rows)
        return begins, lengths, np.full(len(rows), 2)
    # A view is 16 bytes: the length, then up to 12 bytes in place, or 4 bytes of prefix, buffer and offset.
    positions = array.offset + rows
    views = _cells(array.buffers()[1], 16, positions).view(np.int32).astype(np.int64)
    lengths, numbers, begins = views[:, 0], views[:, 2], views[:, 3]
    inline = lengths <= 12
    return np.where(inline, 16 * positions + 4, begins), lengths, np.where(inline, 1, 2 + numbers)
