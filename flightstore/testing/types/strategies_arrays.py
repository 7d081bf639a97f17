"""A Hypothesis strategy of Arrow arrays of a given type in every layout in memory.

May call raw. Arrays are made of their parts, so that what no builder makes comes about too: offsets at every
level, bitmaps without nulls, null rows that hold something, items that belong to no row. Numbers are drawn as
blocks of bytes: one draw for many rows, and zeros are what they shrink to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from pyarrow import types as pt

from flightstore.testing.types import raw

__all__ = ["arrays"]

DAY_S = 86_400
LONG = "longer than twelve bytes"
FLOAT_EDGES = {
    2: [struct.pack("<H", bits) for bits in (0x8000, 0x7C00, 0x7E00, 0x7E01, 1)],
    4: [struct.pack("<I", bits) for bits in (1 << 31, 0xFF << 23, 0x7FC0_0000, 0xFFC0_0001, 1)],
    8: [struct.pack("<Q", bits) for bits in (1 << 63, 0x7FF << 52, 0x7FF8 << 48, 0xFFF8_0000_0000_0001, 1)],
}


@st.composite
def arrays(draw: DrawFn, kind: pa.DataType, size: int, *, nullable: bool = True) -> pa.Array:
    """Arrays of this type with `size` rows, as often as not cut from a longer one.

    Args:
        draw: Given by Hypothesis.
        kind: Any type that `data_types` generates.
        size: Rows.
        nullable: False for no nulls; children are as their fields say.
    """
    before, after = draw(_MARGINS)
    array = draw(_whole(kind, before + size + after, nullable))
    return array.slice(before, size) if before or after else array


_MARGINS = st.just((0, 0)) | st.tuples(st.sampled_from([0, 1, 3, 7, 8, 9]), st.sampled_from([0, 1, 2]))


def _whole(kind: pa.DataType, size: int, nullable: bool) -> SearchStrategy[pa.Array]:
    """Arrays that are not cut at this level."""
    if isinstance(kind, pa.BaseExtensionType):
        storage = arrays(kind.storage_type, size, nullable=nullable)
        return storage.map(lambda array: raw.extension(kind, array))
    for test, make in _MAKERS:
        if test(kind):
            return make(kind, size, nullable)
    return _fixed(kind, size, nullable)


@cache
def _valid(size: int, nullable: bool) -> SearchStrategy[raw.Valid]:
    """No bitmap, one without nulls, any, or one of nothing else."""
    full = st.sampled_from([None, [True] * size])
    if not nullable:
        return full
    some = _flags(size).map(lambda flags: [not flag for flag in flags])
    return full | some | some | st.just([False] * size)


@cache
def _flags(size: int) -> SearchStrategy[list[bool]]:
    count = -(-size // 8)
    return st.binary(min_size=count, max_size=count).map(
        lambda block: np.unpackbits(np.frombuffer(block, np.uint8), count=size).astype(bool).tolist()
    )


@cache
def _numbers(size: int, least: int, most: int) -> SearchStrategy[list[int]]:
    return st.lists(st.integers(least, most), min_size=size, max_size=size)


def _nulls(kind: pa.DataType, size: int, nullable: bool) -> SearchStrategy[pa.Array]:
    return st.builds(pa.nulls, st.just(size))


@st.composite
def _bools(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    return raw.bools(draw(_flags(size)), draw(_valid(size, nullable)))


@st.composite
def _fixed(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    """Whatever is fixed in width; any bytes, but for types that forbid some."""
    width = kind.bit_width // 8
    limits = _limits(kind)
    if limits is not None:
        least, most, factor = limits
        numbers = draw(_numbers(size, least, most))
        cells = [(number * factor).to_bytes(width, "little", signed=True) for number in numbers]
    elif pt.is_floating(kind) and draw(st.booleans()):
        cells = draw(st.lists(st.sampled_from(FLOAT_EDGES[width]), min_size=size, max_size=size))
    else:
        block = draw(st.binary(min_size=size * width, max_size=size * width))
        cells = [block[row * width : (row + 1) * width] for row in range(size)]
    return raw.fixed(kind, cells, draw(_valid(size, nullable)))


def _limits(kind: pa.DataType) -> tuple[int, int, int] | None:
    """(least, greatest, factor) of the integers that a type may hold; None for all."""
    if pt.is_decimal(kind):
        most = 10**kind.precision - 1
        return -most, most, 1
    if pt.is_time(kind):
        return 0, DAY_S * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit] - 1, 1
    if pt.is_date64(kind):
        return -(2**36), 2**36, DAY_S * 1000
    return None


@cache
def _contents(kind: pa.DataType) -> SearchStrategy[bytes]:
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return st.binary(max_size=20)
    return st.text(max_size=4).map(str.encode) | st.sampled_from([LONG.encode(), LONG[::-1].encode()])


@st.composite
def _byte_spans(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    values = draw(st.lists(_contents(kind), min_size=size, max_size=size))
    before, after = draw(st.sampled_from([(b"", b""), (b"x", b""), (b"xy", b"z")]))
    return raw.byte_spans(kind, values, draw(_valid(size, nullable)), before=before, after=after)


@st.composite
def _byte_views(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    values = draw(st.lists(_contents(kind), min_size=size, max_size=size))
    num_buffers = draw(st.integers(1, 3))
    places = draw(_numbers(size, 0, num_buffers - 1))
    valid = draw(_valid(size, nullable))
    return raw.byte_views(kind, values, valid, places=places, num_buffers=num_buffers)


@cache
def _lengths(size: int) -> SearchStrategy[list[int]]:
    return st.lists(st.sampled_from([0, 1, 1, 2, 3]), min_size=size, max_size=size)


@st.composite
def _offsets(draw: DrawFn, size: int) -> tuple[list[int], int]:
    """(size + 1 offsets, items): the first offset need not be 0, nor the last the number of items."""
    before, after = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 2)]))
    offsets = list(accumulate(draw(_lengths(size)), initial=before))
    return offsets, offsets[-1] + after


def _items(field: pa.Field, size: int) -> SearchStrategy[pa.Array]:
    return arrays(field.type, size, nullable=field.nullable)


@st.composite
def _lists(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    offsets, count = draw(_offsets(size))
    items = draw(_items(kind.value_field, count))
    return raw.lists(kind, offsets, items, draw(_valid(size, nullable)))


@st.composite
def _maps(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    offsets, count = draw(_offsets(size))
    keys, values = draw(_items(kind.key_field, count)), draw(_items(kind.item_field, count))
    return raw.maps(kind, offsets, keys, values, draw(_valid(size, nullable)))


@st.composite
def _list_views(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    """Views in any order that may overlap."""
    count = draw(st.integers(0, 5))
    offsets = draw(_numbers(size, 0, count))
    sizes = [min(length, count - at) for at, length in zip(offsets, draw(_lengths(size)), strict=True)]
    items = draw(_items(kind.value_field, count))
    return raw.list_views(kind, offsets, sizes, items, draw(_valid(size, nullable)))


@st.composite
def _fixed_lists(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    items = draw(_items(kind.value_field, size * kind.list_size + draw(st.sampled_from([0, 0, 1]))))
    return raw.fixed_lists(kind, size, items, draw(_valid(size, nullable)))


def _children(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(number) for number in range(kind.num_fields)]


@st.composite
def _structs(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    count = size + draw(st.sampled_from([0, 0, 1]))
    children = [draw(_items(field, count)) for field in _children(kind)]
    return raw.structs(kind, size, children, draw(_valid(size, nullable)))


@st.composite
def _unions(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    fields = _children(kind)
    rows = draw(_numbers(size, 0, len(fields) - 1))
    codes = [kind.type_codes[number] for number in rows]
    if kind.mode == "sparse":
        return raw.union(kind, codes, [draw(_items(field, size)) for field in fields])
    counts = [draw(st.integers(1, 3)) if number in rows else 0 for number in range(len(fields))]
    children = [draw(_items(field, count)) for field, count in zip(fields, counts, strict=True)]
    offsets = [0] * size
    for number, count in enumerate(counts):
        here = [row for row in range(size) if rows[row] == number]
        for row, offset in zip(here, sorted(draw(_numbers(len(here), 0, max(0, count - 1)))), strict=True):
            offsets[row] = offset
    return raw.union(kind, codes, children, offsets)


@st.composite
def _dictionaries(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    """Dictionaries may hold nulls, values twice, and values that nobody uses."""
    valid = draw(_valid(size, nullable))
    needed = size if valid is None else sum(valid)
    count = draw(st.integers(1 if needed else 0, 4))
    values = draw(arrays(kind.value_type, count, nullable=nullable))
    indices = draw(_numbers(size, 0, max(0, count - 1)))
    return raw.dictionary(kind, indices, values, valid)


@st.composite
def _runs(draw: DrawFn, kind: pa.DataType, size: int, nullable: bool) -> pa.Array:
    """Runs of one to five rows; the last may end beyond the array, and some may follow it."""
    ends = [0]
    while ends[-1] < size:
        ends.append(ends[-1] + draw(st.integers(1, 5)))
    ends = ends[1:] + [ends[-1] + 1] * draw(st.sampled_from([0, 0, 1]))
    return raw.runs(kind, ends, draw(arrays(kind.value_type, len(ends), nullable=nullable)), size)


_MAKERS: list[tuple[Callable[[pa.DataType], bool], Callable[[Any, int, bool], SearchStrategy[pa.Array]]]] = [
    (pt.is_null, _nulls),
    (pt.is_boolean, _bools),
    (lambda kind: pt.is_string_view(kind) or pt.is_binary_view(kind), _byte_views),
    (lambda kind: pt.is_string(kind) or pt.is_binary(kind), _byte_spans),
    (lambda kind: pt.is_large_string(kind) or pt.is_large_binary(kind), _byte_spans),
    (pt.is_fixed_size_list, _fixed_lists),
    (lambda kind: pt.is_list_view(kind) or pt.is_large_list_view(kind), _list_views),
    (lambda kind: pt.is_list(kind) or pt.is_large_list(kind), _lists),
    (pt.is_map, _maps),
    (pt.is_struct, _structs),
    (pt.is_union, _unions),
    (pt.is_dictionary, _dictionaries),
    (pt.is_run_end_encoded, _runs),
]
"""How arrays of each family are made; the rest is fixed in width."""
