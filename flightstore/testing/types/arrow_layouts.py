"""Every way in which an Arrow array may lie in memory: an entry for each, named like its function.

May call raw. Types matter here only so far as they have the layout; arrow_tables has the layouts of tables.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from flightstore.testing.types import raw

__all__ = ["ARRAY_LAYOUTS"]

LONG = "longer than the twelve bytes that a view holds in place "
ARRAY_LAYOUTS: dict[str, Callable[[], pa.Array]] = {}
"""Arrays by the name of their layout."""


def entry(make: Callable[[], pa.Array]) -> Callable[[], pa.Array]:
    """Put the function into the table."""
    ARRAY_LAYOUTS[make.__name__.replace("_", " ")] = make
    return make


# Validity.


@entry
def bitmap_without_nulls() -> pa.Array:
    return raw.fixed(pa.int8(), [b"\1", b"\2", b"\3"], [True] * 3)


@entry
def bitmap_with_set_bits_beyond_the_end() -> pa.Array:
    data = [pa.py_buffer(b"\xfd\xff"), pa.py_buffer(bytes(range(16)))]
    return pa.Array.from_buffers(pa.int8(), 3, data)


@entry
def null_count_known() -> pa.Array:
    buffers = [raw.bitmap([True, False, True]), pa.py_buffer(b"\1\2\3")]
    return pa.Array.from_buffers(pa.int8(), 3, buffers, null_count=1)


@entry
def null_rows_hold_numbers() -> pa.Array:
    return raw.fixed(pa.int16(), [b"\1\0", b"\xff\xff", b"\2\0"], [True, False, True])


@entry
def null_rows_hold_bytes_that_are_no_text() -> pa.Array:
    return raw.byte_spans(pa.string(), [b"a", b"\xff\xfe", b"b"], [True, False, True])


@entry
def null_rows_hold_items() -> pa.Array:
    return raw.lists(
        pa.list_(pa.int8()), [0, 1, 4, 4], pa.array([1, 7, 8, 9], pa.int8()), [True, False, True]
    )


@entry
def null_rows_hold_views() -> pa.Array:
    values = [b"a", LONG.encode(), b"in place", LONG.encode()]
    return raw.byte_views(pa.binary_view(), values, [True, False, False, True])


@entry
def null_rows_hold_indices_beyond_the_dictionary() -> pa.Array:
    kind = pa.dictionary(pa.int8(), pa.string())
    return raw.dictionary(kind, [0, 99, -1, 1], pa.array(["a", "b"]), [True, False, False, True])


@entry
def null_structs_over_values() -> pa.Array:
    kind = pa.struct({"a": pa.int8()})
    return raw.structs(kind, 3, [pa.array([1, 2, None], pa.int8())], [True, False, True])


# Bits that do not begin with a byte.


@entry
def booleans_from_bit_3() -> pa.Array:
    return raw.bools([True, False] * 9, [True, True, False] * 6).slice(3, 11)


@entry
def booleans_from_bit_8() -> pa.Array:
    return raw.bools([True, False] * 9, [True, True, False] * 6).slice(8)


@entry
def bitmap_from_bit_7() -> pa.Array:
    return pa.array([1, None, 3] * 8, pa.int16()).slice(7, 10)


@entry
def structs_cut_below_a_cut_bitmap() -> pa.Array:
    child = pa.array([1, None, 3, 4, None, 6, 7, 8, None, 10], pa.int32()).slice(1)
    kind = pa.struct({"a": pa.int32(), "b": pa.bool_()})
    flags = raw.bools([True, False, True] * 5, [True, True, False] * 5).slice(5)
    return raw.structs(kind, 9, [child, flags], [True, True, False] * 3).slice(2, 6)


# Strings and binaries.


@entry
def strings_that_do_not_begin_their_data() -> pa.Array:
    return raw.byte_spans(pa.string(), [b"a", b"", b"bc"], before=b"before", after=b"after")


@entry
def large_strings_cut() -> pa.Array:
    return pa.array(["a", None, "bcd", "", "e"], pa.large_string()).slice(1, 3)


@entry
def fixed_bytes_cut() -> pa.Array:
    return pa.array([b"abc", None, b"def", b"ghi"], pa.binary(3)).slice(1, 2)


@entry
def views_into_three_buffers_one_of_them_unused() -> pa.Array:
    values = [LONG.encode(), b"in place", LONG[::-1].encode(), LONG.upper().encode()]
    return raw.byte_views(pa.string_view(), values, places=[2, 0, 0, 2], num_buffers=3)


@entry
def views_without_a_buffer() -> pa.Array:
    return raw.byte_views(pa.string_view(), [b"", b"exactly 12 b", b"x"], [True, True, False], num_buffers=0)


@entry
def views_that_share_bytes() -> pa.Array:
    whole = raw.byte_views(pa.binary_view(), [(LONG * 2).encode()])
    view, data = whole.buffers()[1:]
    first = view.to_pybytes()
    second = (20).to_bytes(4, "little") + LONG[3:7].encode() + bytes(4) + (3).to_bytes(4, "little")
    return pa.Array.from_buffers(pa.binary_view(), 3, [None, pa.py_buffer(first + second + first), data])


@entry
def views_cut_from_many() -> pa.Array:
    return pa.array([f"{LONG}{i}" if i % 3 else None for i in range(100)], pa.string_view()).slice(41, 5)


# Lists.


@entry
def lists_that_do_not_use_all_items() -> pa.Array:
    return raw.lists(pa.list_(pa.int8()), [2, 3, 3, 5], pa.array(range(9), pa.int8()))


@entry
def lists_over_a_cut_child() -> pa.Array:
    return raw.lists(pa.list_(pa.string()), [0, 1, 3], pa.array(["a", "b", None, "d", "e"]).slice(1))


@entry
def lists_cut_of_lists_cut() -> pa.Array:
    inner = pa.array([[1], [2, 3], None, [4], [], [5, 6]], pa.list_(pa.int8())).slice(1)
    return raw.lists(pa.list_(inner.type), [0, 2, 2, 4, 5], inner, [True, True, False, True]).slice(1, 3)


@entry
def fixed_lists_cut() -> pa.Array:
    return pa.array([[1, 2], None, [3, None], [5, 6]], pa.list_(pa.int8(), 2)).slice(1, 2)


@entry
def fixed_lists_over_a_longer_child() -> pa.Array:
    items = pa.array(range(11), pa.int8()).slice(2)
    return raw.fixed_lists(pa.list_(pa.int8(), 3), 2, items, [False, True])


@entry
def list_views_out_of_order_that_overlap() -> pa.Array:
    items = pa.array([10, 11, None, 13, 14], pa.int8())
    return raw.list_views(pa.list_view(pa.int8()), [3, 0, 1, 0, 5], [2, 3, 3, 5, 0], items)


@entry
def list_views_cut() -> pa.Array:
    items = pa.array([LONG, "b", None, "d", "e"])
    valid = [True, False, True, True, True]
    return raw.list_views(
        pa.large_list_view(pa.string()), [3, 2, 1, 0, 5], [2, 3, 3, 5, 0], items, valid
    ).slice(2)


@entry
def list_views_of_string_views_cut_from_many() -> pa.Array:
    items = pa.array([f"{LONG}{i}" for i in range(100)], pa.string_view())
    offsets = list(range(99, 0, -1))
    return raw.list_views(pa.list_view(pa.string_view()), offsets, [1] * 99, items).slice(50, 3)


@entry
def maps_cut() -> pa.Array:
    kind = pa.map_(pa.string(), pa.int8())
    return pa.array([[("a", 1)], None, [("b", None), ("c", 3)], [], [("d", 4)]], kind).slice(1, 3)


@entry
def maps_over_cut_entries() -> pa.Array:
    kind = pa.map_(pa.int8(), pa.string())
    keys = pa.array([1, 2, 3, 4, 5], pa.int8()).slice(1)
    return raw.maps(kind, [0, 1, 4], keys, pa.array(["x", "a", None, "c", "d"]).slice(1))


@entry
def forty_lists_deep() -> pa.Array:
    array = pa.array([1, None], pa.int8())
    for _ in range(40):
        array = raw.lists(pa.list_(array.type), [0, len(array), len(array)], array, [True, False])
    return array


# Unions.


@entry
def sparse_unions_cut() -> pa.Array:
    kind = pa.sparse_union([pa.field("n", pa.int8()), pa.field("s", pa.string())])
    children = [pa.array([1, 2, None, 4, 5], pa.int8()), pa.array(["x", "y", "a", "b", None, "c"]).slice(1)]
    return raw.union(kind, [0, 1, 0, 1, 1], children).slice(1, 3)


@entry
def dense_unions_cut() -> pa.Array:
    kind = pa.dense_union([pa.field("n", pa.int8()), pa.field("s", pa.string())])
    children = [pa.array([9, 1, 2, None], pa.int8()).slice(1), pa.array(["a", None, "c"])]
    return raw.union(kind, [0, 1, 1, 0, 1], children, [0, 0, 1, 2, 2]).slice(1, 3)


@entry
def dense_unions_that_skip_values() -> pa.Array:
    kind = pa.dense_union([pa.field("n", pa.int8()), pa.field("s", pa.string())])
    children = [pa.array(range(20), pa.int8()), pa.array(list("abcdefgh"))]
    return raw.union(kind, [0, 1, 0], children, [4, 6, 19])


@entry
def unions_of_one_child_and_of_none_used() -> pa.Array:
    kind = pa.dense_union([pa.field("n", pa.int8()), pa.field("unused", pa.string())])
    return raw.union(kind, [0, 0], [pa.array([1, 2], pa.int8()), pa.array([], pa.string())], [0, 1])


# Dictionaries.


@entry
def dictionaries_cut() -> pa.Array:
    return pa.array(["a", None, "b", "c", "a"]).dictionary_encode().slice(1, 3)


@entry
def dictionaries_with_values_that_nobody_uses() -> pa.Array:
    kind = pa.dictionary(pa.int16(), pa.string())
    return raw.dictionary(kind, [99, 3, 99], pa.array([f"value {i}" for i in range(200)]))


@entry
def dictionaries_over_a_cut_dictionary() -> pa.Array:
    kind = pa.dictionary(pa.uint8(), pa.string())
    return raw.dictionary(kind, [1, 0, 1], pa.array(["x", "a", None, "y"]).slice(1, 2))


@entry
def dictionaries_empty_and_all_null() -> pa.Array:
    kind = pa.dictionary(pa.int8(), pa.string())
    return raw.dictionary(kind, [0, 0], pa.array([], pa.string()), [False, False])


@entry
def dictionaries_of_all_the_indices_int8_has() -> pa.Array:
    kind = pa.dictionary(pa.int8(), pa.int32())
    return raw.dictionary(kind, list(range(127, -1, -1)), pa.array(range(128), pa.int32()))


@entry
def dictionaries_within_lists_cut() -> pa.Array:
    kind = pa.dictionary(pa.int8(), pa.string())
    items = raw.dictionary(kind, [0, 1, 0, 1, 0], pa.array(["a", None]), [True, True, False, True, True])
    return raw.lists(pa.list_(kind), [0, 2, 3, 5], items).slice(1)


# Runs.


@entry
def runs_cut_within_a_run() -> pa.Array:
    kind = pa.run_end_encoded(pa.int16(), pa.string())
    return raw.runs(kind, [3, 5, 9], pa.array(["a", None, "c"]), 9).slice(2, 4)


@entry
def runs_beyond_the_end() -> pa.Array:
    return raw.runs(pa.run_end_encoded(pa.int32(), pa.int8()), [2, 9, 20], pa.array([1, 2, 3], pa.int8()), 4)


@entry
def runs_over_cut_values() -> pa.Array:
    values = pa.array([0.5, None, 1.5, 2.5]).slice(1)
    return raw.runs(pa.run_end_encoded(pa.int64(), pa.float64()), [1, 4, 6], values, 6)


@entry
def one_run_of_many_rows() -> pa.Array:
    return raw.runs(pa.run_end_encoded(pa.int64(), pa.int8()), [10**6], pa.array([7], pa.int8()), 10**6)


# Buffers.


@entry
def buffers_at_odd_addresses() -> pa.Array:
    data = pa.py_buffer(b"x" + np.arange(5).tobytes())
    return pa.Array.from_buffers(pa.int64(), 5, [None, data.slice(1)])


@entry
def offsets_at_odd_addresses() -> pa.Array:
    offsets = pa.py_buffer(b"x" + np.array([0, 1, 3], np.int32).tobytes())
    return pa.Array.from_buffers(pa.string(), 2, [None, offsets.slice(1), pa.py_buffer(b"abc")])


@entry
def buffers_longer_than_needed() -> pa.Array:
    data = pa.py_buffer(np.arange(1000).tobytes())
    return pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\5" + bytes(99)), data])


@entry
def buffers_of_no_bytes() -> pa.Array:
    return pa.Array.from_buffers(pa.string(), 0, [None, pa.py_buffer(b""), pa.py_buffer(b"")])


@entry
def no_bytes_at_all() -> pa.Array:
    return raw.byte_spans(pa.binary(), [b"", b"", b""], [True, False, True])


@entry
def an_extension_cut() -> pa.Array:
    storage = pa.array([[i] * 6 for i in range(5)], pa.list_(pa.int32(), 6))
    return raw.extension(pa.fixed_shape_tensor(pa.int32(), [2, 3]), storage).slice(2, 2)


@entry
def rows_cut_from_a_large_array() -> pa.Array:
    return pa.array(np.arange(200_000)).slice(99_999, 10)
