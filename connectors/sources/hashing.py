"""The hash by which rows are partitioned: the same in every process, on every machine, in every version.

For each row and column a 64-bit number; equal values have equal ones, whatever else the table holds.

- Whole numbers of any width, booleans, dates, times, timestamps and durations: `mix` of the number as Arrow
  keeps it, as 64 bits. So an int8 and an int64 of the same value are the same; so are timestamps of one unit.
- Floating-point numbers: `mix` of the bits of the double; minus zero is zero, and every NaN is one value.
(The
  double 1.0 and the integer 1 differ.)
- Text and bytes, in any layout: beginning with the length, ``h = mix(h ^ word)`` for each 8 bytes,
little-endian,
  the last ones filled up with zeros. Decimals: that of their text.
- Null: the number 0x6E756C6C. Dictionaries: that of their values.

Several columns: beginning with 0, ``h = mix(h ^ of the column)``. `mix` is the finalizer of splitmix64. A row
goes to partition ``h % n``; one whose columns are all null to the partition of nulls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.errors import InvalidArgument

__all__ = ["hash_rows"]

Numbers = np.ndarray[Any, Any]
_NULL = np.uint64(0x6E756C6C)


def hash_rows(columns: Sequence[pa.Array]) -> Numbers:
    """A number for each row of some columns.

    Raises:
        InvalidArgument: a column's type has no hash.
    """
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = _mix(total ^ _hash(column))
    return total


def _mix(numbers: Numbers) -> Numbers:
    with np.errstate(over="ignore"):
        z = numbers + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _hash(array: pa.Array) -> Numbers:
    hashed = _values(array)
    if array.null_count:
        hashed = np.where(array.is_null().to_numpy(zero_copy_only=False), _NULL, hashed)
    return hashed


def _values(array: pa.Array) -> Numbers:
    """The hash of each value; anything where it is null."""
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _hash(array.storage)
    if types.is_dictionary(kind):
        codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return _hash(array.dictionary)[codes] if len(array.dictionary) else np.zeros(len(array), np.uint64)
    if types.is_null(kind):
        return np.full(len(array), _NULL)
    if types.is_boolean(kind):
        return _mix(array.fill_null(False).to_numpy(zero_copy_only=False).astype(np.uint64))
    if types.is_floating(kind):
        numbers = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        bits = np.where(np.isnan(numbers), np.float64(np.nan), numbers).view(np.uint64)
        return _mix(bits)
    if types.is_integer(kind):
        whole = array.fill_null(0).to_numpy(zero_copy_only=False)
        return _mix(whole.astype(np.int64).view(np.uint64) if whole.dtype != np.uint64 else whole)
    if types.is_temporal(kind) and not types.is_interval(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return _values(array.view(width))
    if types.is_decimal(kind):
        return _values(array.cast(pa.string()))
    if types.is_string(kind) or types.is_binary(kind) or types.is_fixed_size_binary(kind):
        return _bytes(array.cast(pa.large_binary()))
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return _bytes(array.cast(pa.large_binary()))
    if types.is_string_view(kind):
        return _bytes(array.cast(pa.large_string()).cast(pa.large_binary()))
    if types.is_binary_view(kind):
        return _bytes(array.cast(pa.large_binary()))
    raise InvalidArgument(
        f"values of type {kind} have no hash", hint="partition by a column of numbers, times, text or bytes"
    )


def _bytes(array: pa.Array) -> Numbers:
    """Words of 8 bytes, all rows at once; those that are through drop out."""
    if not len(array):
        return np.zeros(0, np.uint64)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    starts, lengths = ends[:-1], np.diff(ends)
    if array.null_count:
        lengths = np.where(array.is_null().to_numpy(zero_copy_only=False), 0, lengths)
    low, high = int(ends[0]), int(ends[-1])
    raw = np.zeros(high - low + 8, np.uint8)
    if high > low:
        raw[: high - low] = np.frombuffer(data, np.uint8)[low:high]
    words = np.ndarray((high - low + 1,), "<u8", raw.data, 0, (1,))
    hashed = _mix(lengths.astype(np.uint64))
    left = np.flatnonzero(lengths)
    at = 0
    while len(left):
        rest = lengths[left] - at
        word = words[starts[left] - low + at].astype(np.uint64)
        short = np.minimum(rest, 8)
        cut = np.uint64(64) - short.astype(np.uint64) * np.uint64(8)
        hashed[left] = _mix(hashed[left] ^ ((word << cut) >> cut))
        at += 8
        left = left[rest > 8]
    return hashed
