"""Equality by which the suite judges: it takes the same for the same, and notices every difference."""

from __future__ import annotations

import array
import importlib
import itertools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.testing.types import raw
from flightstore.testing.types.arrow import SAMPLES
from flightstore.testing.types.arrow_nesting import nested_columns
from flightstore.testing.types.arrow_values import BLOCK_ROWS
from flightstore.testing.types.equality import assert_same
from flightstore.testing.types.extensions import LabelledType, label

Pair = tuple[Any, Any]
NAN = float("nan")
OTHER_NAN = np.frombuffer(b"\1\0\0\0\0\0\xf8\x7f", "f8")[0]
TEXT = pa.dictionary(pa.int8(), pa.string())


def table(field: pa.Field, values: list[Any] | None = None) -> pa.Table:
    return pa.table([pa.array(values or [1], field.type)], pa.schema([field]))


def column(*values: Any) -> pa.Table:
    return pa.table({"a": [1] * len(values), "x": pa.array(values)})


def encoded(indices: list[int], values: list[str | None], valid: raw.Valid = None) -> pa.Array:
    return raw.dictionary(TEXT, indices, pa.array(values, pa.string()), valid)


def runs(ends: list[int], values: list[Any], length: int) -> pa.Array:
    array = pa.array(values, pa.int8())
    return raw.runs(pa.run_end_encoded(pa.int32(), pa.int8()), ends, array, length)


def unions(
    codes: list[int], numbers: list[Any], texts: list[Any], offsets: list[int] | None = None
) -> pa.Array:
    make = pa.sparse_union if offsets is None else pa.dense_union
    kind = make([pa.field("n", pa.int8()), pa.field("s", pa.string())])
    return raw.union(kind, codes, [pa.array(numbers, pa.int8()), pa.array(texts, pa.string())], offsets)


ITEMS = pa.array([10, 11, 12, 13], pa.int8())
BYTES = pa.array([1, 2, 3], pa.int8())

# The same, though it lies otherwise in memory.
SAME: dict[str, Callable[[], Pair]] = {
    "offsets": lambda: (pa.array([1, None, 3]), pa.array([9, 1, None, 3, 9]).slice(1, 3)),
    "bits": lambda: (pa.array([True, None] * 5), pa.array([None] * 7 + [True, None] * 5).slice(7)),
    "chunks": lambda: (
        pa.chunked_array([[1, 2, None]], pa.int8()),
        pa.chunked_array([[], [1], [2, None], []], pa.int8()),
    ),
    "no chunks": lambda: (pa.chunked_array([], pa.int8()), pa.chunked_array([[]], pa.int8())),
    "a bitmap or none": lambda: (BYTES, raw.fixed(pa.int8(), [b"\1", b"\2", b"\3"], [True] * 3)),
    "what nulls hold": lambda: (
        raw.fixed(pa.int8(), [b"\1", b"\2"], [True, False]),
        raw.fixed(pa.int8(), [b"\1", b"\7"], [True, False]),
    ),
    "indices of nulls": lambda: (
        encoded([0, 9], ["a"], [True, False]),
        encoded([0, 0], ["a"], [True, False]),
    ),
    "items of nulls": lambda: (
        raw.lists(pa.list_(pa.int8()), [0, 1, 3], BYTES, [True, False]),
        pa.array([[1], None], pa.list_(pa.int8())),
    ),
    "NaN": lambda: (column(1.0, NAN), column(1.0, NAN)),
    "dictionaries": lambda: (encoded([0, 1, 0], ["a", "b"]), encoded([2, 0, 2], ["b", "unused", "a"])),
    "a null in a dictionary": lambda: (encoded([0, 1], ["a", None]), encoded([0, 0], ["a"], [True, False])),
    "runs": lambda: (runs([2, 3], [1, 2], 3), runs([1, 2, 9], [1, 1, 2], 3)),
    "list views": lambda: (
        raw.list_views(pa.list_view(pa.int8()), [2, 0], [2, 1], ITEMS),
        raw.list_views(pa.list_view(pa.int8()), [0, 3], [2, 1], pa.array([12, 13, 0, 10], pa.int8())),
    ),
    "views in two buffers": lambda: (
        raw.byte_views(pa.binary_view(), [b"x" * 20, b"y" * 20]),
        raw.byte_views(pa.binary_view(), [b"x" * 20, b"y" * 20], places=[1, 0], num_buffers=2),
    ),
    "sparse unions": lambda: (unions([0, 1], [1, 2], ["a", "b"]), unions([0, 1], [1, 9], ["z", "b"])),
    "dense unions": lambda: (unions([0, 1], [1], ["b"], [0, 0]), unions([0, 1], [9, 1], ["x", "b"], [1, 1])),
    "names of a map's fields": lambda: (
        pa.map_(pa.field("k", pa.int8(), False), pa.field("v", pa.int8())),
        pa.map_(pa.int8(), pa.int8()),
    ),
    "empty metadata": lambda: (pa.schema([], metadata={}), pa.schema([])),
    "bytes": lambda: (b"ab", memoryview(b"ab")),
    "an Arrow buffer": lambda: (pa.py_buffer(b"ab"), memoryview(b"ab")),
    "numbers that expose bytes": lambda: (array.array("i", [1]), memoryview(array.array("i", [1]))),
    "strides": lambda: (np.arange(10)[::2], np.arange(10)[::2].copy()),
    "padding of a structure": lambda: (
        np.frombuffer(b"\1" + b"\0" * 7 + b"\2" * 8, np.dtype([("a", "i1"), ("b", "i8")], align=True)),
        np.frombuffer(b"\1" + b"\7" * 7 + b"\2" * 8, np.dtype([("a", "i1"), ("b", "i8")], align=True)),
    ),
    "long and long long": lambda: (np.zeros(1, "l"), np.zeros(1, "q")),
    "long and long long, swapped": lambda: tuple(np.zeros(1, np.dtype(c).newbyteorder(">")) for c in "LQ"),
    "objects": lambda: (np.array([None, NAN, "x"], object), np.array([None, NAN, "x"], object)),
    "containers": lambda: ({"a": [1, BYTES]}, {"a": [1, BYTES.slice(0)]}),
    "scalars": lambda: (encoded([1], ["a", "b"])[0], encoded([0], ["b"])[0]),
}

ONE_WAY = {"strides", "bytes", "an Arrow buffer"}
"""The form that comes back says more, or less, than the form that was put."""

# A pair that differs in one thing, and what the message must say.
DIFFERENT: dict[str, tuple[Callable[[], Pair], str]] = {
    # Types
    "width": (lambda: (pa.array([1], pa.int32()), pa.array([1], pa.int64())), "int32"),
    "string kind": (lambda: (pa.array(["a"]), pa.array(["a"], pa.large_string())), "string"),
    "unit": (lambda: (pa.array([1], pa.duration("s")), pa.array([1], pa.duration("ms"))), "duration"),
    "zone": (lambda: (pa.array([1], pa.timestamp("s", "UTC")), pa.array([1], pa.timestamp("s"))), "UTC"),
    "scale": (lambda: (pa.decimal128(5, 2), pa.decimal128(5, 3)), r"decimal128\(5, 2\)"),
    "index type": (
        lambda: (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int16(), pa.string())),
        "indices=int8",
    ),
    "order flag": (lambda: (TEXT, pa.dictionary(pa.int8(), pa.string(), ordered=True)), "ordered"),
    "dictionary's values": (
        lambda: (
            pa.dictionary(pa.int8(), pa.list_(pa.field("a", pa.int8()))),
            pa.dictionary(pa.int8(), pa.list_(pa.int8())),
        ),
        "name 'a'",
    ),
    "run ends": (
        lambda: (pa.run_end_encoded(pa.int16(), pa.int8()), pa.run_end_encoded(pa.int32(), pa.int8())),
        "int16",
    ),
    "values of runs": (
        lambda: (
            pa.run_end_encoded(pa.int16(), pa.list_(pa.field("a", pa.int8()))),
            pa.run_end_encoded(pa.int16(), pa.list_(pa.int8())),
        ),
        "name 'a'",
    ),
    "list size": (lambda: (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3)), r"\[2\]"),
    "list kind": (lambda: (pa.list_(pa.int8()), pa.list_view(pa.int8())), "list_view"),
    "item name": (
        lambda: (pa.list_(pa.field("a", pa.int8())), pa.list_(pa.int8())),
        "name 'a' became 'item'",
    ),
    "required items": (
        lambda: (pa.list_(pa.field("item", pa.int8(), False)), pa.list_(pa.int8())),
        "nullable=False",
    ),
    "struct fields": (
        lambda: (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int8(), "b": pa.int8()})),
        "b:",
    ),
    "sorted keys": (
        lambda: (pa.map_(pa.int8(), pa.int8(), True), pa.map_(pa.int8(), pa.int8())),
        "keys_sorted",
    ),
    "required values of a map": (
        lambda: (pa.map_(pa.int8(), pa.field("value", pa.int8(), False)), pa.map_(pa.int8(), pa.int8())),
        "nullable=False",
    ),
    "metadata of a map's key": (
        lambda: (
            pa.map_(pa.field("key", pa.int8(), False, {"a": "b"}), pa.int8()),
            pa.map_(pa.int8(), pa.int8()),
        ),
        "b'a'",
    ),
    "type codes": (
        lambda: (
            pa.sparse_union([pa.field("a", pa.int8())], [3]),
            pa.sparse_union([pa.field("a", pa.int8())], [4]),
        ),
        "=3",
    ),
    "union mode": (
        lambda: (pa.sparse_union([pa.field("a", pa.int8())]), pa.dense_union([pa.field("a", pa.int8())])),
        "dense_union",
    ),
    "extension": (lambda: (label(BYTES), BYTES), "extension"),
    "extension's parameter": (lambda: (label(BYTES, "kg"), label(BYTES, "lb")), "kg"),
    "extension's storage": (
        lambda: (LabelledType(pa.list_(pa.field("a", pa.int8()))), LabelledType(pa.list_(pa.int8()))),
        "name 'a'",
    ),
    "opaque vendor": (lambda: (pa.opaque(pa.int8(), "t", "v"), pa.opaque(pa.int8(), "t", "w")), "vendor"),
    "tensor's names": (
        lambda: (
            pa.fixed_shape_tensor(pa.int8(), [1], dim_names=["a"]),
            pa.fixed_shape_tensor(pa.int8(), [1]),
        ),
        "dim_names",
    ),
    # Schemas
    "names": (lambda: (pa.table({"a": [1]}), pa.table({"b": [1]})), r"\['a'\] became \['b'\]"),
    "order of columns": (
        lambda: (pa.table({"a": [1], "b": [1]}), pa.table({"b": [1], "a": [1]})),
        r"\['a', 'b'\] became",
    ),
    "a column less": (lambda: (pa.table({"a": [1], "b": [2]}), pa.table({"a": [1]})), "became"),
    "nullability": (
        lambda: (table(pa.field("n", pa.int8(), False)), table(pa.field("n", pa.int8()))),
        "column 0 'n': nullable=False",
    ),
    "field metadata": (
        lambda: (table(pa.field("n", pa.int8(), metadata={"a": "b"})), table(pa.field("n", pa.int8()))),
        "column 0 'n': metadata b'a'",
    ),
    "nested metadata": (
        lambda: (
            table(pa.field("n", pa.struct([pa.field("s", pa.int8(), metadata={"a": "b"})])), [{}]),
            table(pa.field("n", pa.struct([pa.field("s", pa.int8(), metadata={"a": "c"})])), [{}]),
        ),
        "b'b' became b'c'",
    ),
    "schema metadata": (lambda: (pa.schema([], {"a": "b"}), pa.schema([], {"a": "c"})), "schema: metadata"),
    "metadata lost": (lambda: (pa.schema([], {"a": "b"}), pa.schema([])), "b'b' became None"),
    "field name": (lambda: (pa.field("a", pa.int8()), pa.field("b", pa.int8())), "name 'a'"),
    # Values
    "a number": (lambda: (column(1, 2, 3), column(1, 2, 4)), "column 1 'x': row 2: 3 became 4"),
    "a null": (lambda: (column(1, None), column(1, 0)), "row 1: None became 0"),
    "a null the other way": (lambda: (column(1, 0), column(1, None)), "row 1: 0 became None"),
    "a bit": (lambda: (pa.array([True] * 9), pa.array([True] * 8 + [False])), "row 8: True"),
    "sign of zero": (lambda: (column(0.0), column(-0.0)), "row 0: 0.0 became -0.0"),
    "NaN and a number": (lambda: (column(NAN), column(1.0)), "row 0: nan became 1.0"),
    "bits of a NaN": (lambda: (pa.array([NAN]), pa.array([OTHER_NAN])), "differ in their bits"),
    "text": (lambda: (column("ab", "cd"), column("ab", "ce")), "row 1: 'cd' became 'ce'"),
    "length of text": (lambda: (column("ab", "c"), column("ab", "cc")), "row 1: 'c' became 'cc'"),
    "same bytes, other cuts": (lambda: (column("ab", "c"), column("a", "bc")), "row 0: 'ab' became 'a'"),
    "empty text and null": (lambda: (column("", "a"), column(None, "a")), "row 0: '' became None"),
    "a view's last byte": (
        lambda: (pa.array(["x" * 20], pa.string_view()), pa.array(["x" * 19 + "y"], pa.string_view())),
        "row 0",
    ),
    "a view in place": (
        lambda: (pa.array(["a" * 12], pa.string_view()), pa.array(["a" * 11 + "b"], pa.string_view())),
        "row 0",
    ),
    "an item": (lambda: (column([1], [2, 3]), column([1], [2, 4])), r"row 1: \[2, 3\] became \[2, 4\]"),
    "cuts of lists": (lambda: (column([1], [2, 3]), column([1, 2], [3])), r"row 0: \[1\] became \[1, 2\]"),
    "empty list and null": (lambda: (column([1], []), column([1], None)), r"row 1: \[\] became None"),
    "a list view's item": (
        lambda: (
            raw.list_views(pa.list_view(pa.int8()), [2, 0], [2, 1], ITEMS),
            raw.list_views(pa.list_view(pa.int8()), [2, 1], [2, 1], ITEMS),
        ),
        r"row 1: \[10\] became \[11\]",
    ),
    "a fixed list's item": (
        lambda: (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), pa.array([[1, 3]], pa.list_(pa.int8(), 2))),
        "row 0",
    ),
    "a child": (lambda: (column({"a": 1, "b": 2}), column({"a": 1, "b": 3})), "row 0"),
    "null struct and struct of null": (
        lambda: (
            pa.array([{"a": None}], pa.struct({"a": pa.int8()})),
            pa.array([None], pa.struct({"a": pa.int8()})),
        ),
        "row 0: {'a': None} became None",
    ),
    "a key": (
        lambda: (
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
            pa.array([[("b", 1)]], pa.map_(pa.string(), pa.int8())),
        ),
        "row 0",
    ),
    "a map's value": (
        lambda: (
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
            pa.array([[("a", 2)]], pa.map_(pa.string(), pa.int8())),
        ),
        "row 0",
    ),
    "a sparse union's code": (lambda: (unions([0, 1], [1, 2], "ab"), unions([0, 0], [1, 2], "ab")), "row 1"),
    "a sparse union's value": (lambda: (unions([0, 1], [1, 2], "ab"), unions([0, 1], [1, 2], "ac")), "row 1"),
    "a dense union's value": (
        lambda: (unions([0, 0], [1, 2], [], [0, 1]), unions([0, 0], [1, 2], [], [0, 0])),
        "row 1: 2 became 1",
    ),
    "nulls of other children": (lambda: (unions([0], [None], [None]), unions([1], [None], [None])), "row 0"),
    "a decoded value": (lambda: (encoded([0, 1], ["a", "b"]), encoded([0, 1], ["a", "c"])), "'b' became 'c'"),
    "an index": (lambda: (encoded([0, 1], ["a", "b"]), encoded([0, 0], ["a", "b"])), "'b' became 'a'"),
    "a null of a dictionary": (lambda: (encoded([0], ["a"]), encoded([0], [None])), "'a' became None"),
    "a run": (lambda: (runs([2, 3], [1, 2], 3), runs([1, 3], [1, 2], 3)), "row 1: 1 became 2"),
    "a value of a run": (
        lambda: (runs([2, 3], [1, 2], 3), runs([2, 3], [1, None], 3)),
        "row 2: 2 became None",
    ),
    "rows": (lambda: (column(1, 2), column(1, 2, 3)), "2 rows became 3"),
    "rows without columns": (
        lambda: (column(1, 2).select([]), column(1, 2, 3).select([])),
        "2 rows became 3",
    ),
    "rows of an array": (lambda: (pa.array([1]), pa.array([1, 1])), "1 rows became 2"),
    "a value of a later chunk": (
        lambda: (pa.chunked_array([[1], [2, 3]]), pa.chunked_array([[1, 2], [9]])),
        "row 2: 3 became 9",
    ),
    "a value of a later block": (
        lambda: (pa.array(np.arange(3 * BLOCK_ROWS)), pa.array([*range(3 * BLOCK_ROWS - 1), 0])),
        f"row {3 * BLOCK_ROWS - 1}: ",
    ),
    "a date that Python has not": (
        lambda: (pa.array([2**30], pa.date32()), pa.array([2**30 + 1], pa.date32())),
        "1073741824",
    ),
    "scalar": (lambda: (pa.scalar(1), pa.scalar(2)), "1 became 2"),
    "kind of container": (lambda: (column(1), column(1).to_batches()[0]), "Table became a pyarrow"),
    "array and chunked array": (lambda: (pa.array([1]), pa.chunked_array([[1]])), "ChunkedArray"),
    # NumPy
    "dtype": (lambda: (np.zeros(1, "i4"), np.zeros(1, "i8")), "int32"),
    "byte order": (lambda: (np.zeros(1, "<i4"), np.zeros(1, ">i4")), ">i4"),
    "time unit": (lambda: (np.zeros(1, "M8[s]"), np.zeros(1, "M8[ms]")), r"\[s\]"),
    "alignment": (
        lambda: (np.zeros(1, np.dtype([("a", "i4")], align=True)), np.zeros(1, np.dtype([("a", "i4")]))),
        "aligned=True became False",
    ),
    "alignment of a field": (
        lambda: (
            np.zeros(1, [("x", np.dtype([("a", "i4")], align=True))]),
            np.zeros(1, [("x", np.dtype([("a", "i4")]))]),
        ),
        "field 'x'",
    ),
    "offset of a field": (
        lambda: (
            np.zeros(1, {"names": ["a"], "formats": ["i1"], "offsets": [0], "itemsize": 4}),
            np.zeros(1, {"names": ["a"], "formats": ["i1"], "offsets": [1], "itemsize": 4}),
        ),
        "field 'a'",
    ),
    "size of a structure": (
        lambda: (
            np.zeros(1, {"names": ["a"], "formats": ["i1"], "itemsize": 4}),
            np.zeros(1, {"names": ["a"], "formats": ["i1"], "itemsize": 8}),
        ),
        "itemsize",
    ),
    "title of a field": (
        lambda: (np.zeros(1, [(("t", "a"), "i1")]), np.zeros(1, [(("u", "a"), "i1")])),
        "field 'a'",
    ),
    "shape of a field": (
        lambda: (np.zeros(1, [("a", "i1", (2, 3))]), np.zeros(1, [("a", "i1", (3, 2))])),
        "field 'a'",
    ),
    "byte order of a field": (
        lambda: (np.zeros(1, [("a", "<i2", 2)]), np.zeros(1, [("a", ">i2", 2)])),
        "field 'a'",
    ),
    "field names": (lambda: (np.zeros(1, [("a", "i4")]), np.zeros(1, [("b", "i4")])), "'a'"),
    "shape": (lambda: (np.zeros((2, 3)), np.zeros((3, 2))), r"shape \(2, 3\)"),
    "no dimensions": (lambda: (np.zeros(()), np.zeros(1)), r"shape \(\)"),
    "Fortran order": (lambda: (np.zeros((2, 3), order="F"), np.zeros((2, 3))), "f_contiguous"),
    "C order": (lambda: (np.zeros((2, 3)), np.zeros((2, 3), order="F")), "c_contiguous"),
    "an element": (lambda: (np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]])), r"at \[1, 1\]"),
    "zeros": (lambda: (np.array([0.0]), np.array([-0.0])), r"at \[0\]"),
    "NaNs": (lambda: (np.array([NAN]), np.array([OTHER_NAN])), "7ff8|f87f"),
    "NaT": (lambda: (np.array(["NaT"], "M8[s]"), np.array([0], "M8[s]")), "NaT"),
    "an extended float": (lambda: (np.array([1], "g"), np.array([1], "g") + np.finfo("g").eps), r"at \[0\]"),
    "an extended complex": (
        lambda: (np.array([1j], "G"), np.array([1j], "G") + np.finfo("g").eps),
        r"at \[0\]",
    ),
    "a field": (
        lambda: (
            np.array([(1, 2)], [("a", "i4"), ("b", "i4")]),
            np.array([(1, 3)], [("a", "i4"), ("b", "i4")]),
        ),
        r"at \[0\]",
    ),
    "a field's item": (
        lambda: (np.zeros(2, [("a", "i4", 2)]), np.array([((0, 0),), ((0, 1),)], [("a", "i4", 2)])),
        r"at \[1\]",
    ),
    "an object": (lambda: (np.array([1], object), np.array([True], object)), "1 became True"),
    "mask": (lambda: (np.ma.array([1], mask=[True]), np.ma.array([1], mask=[False])), "mask"),
    "subclass": (lambda: (np.ma.array([1]), np.array([1])), "MaskedArray became"),
    "NumPy scalar": (lambda: (np.float32(1), np.float32(2)), "became"),
    # Bytes and the rest
    "a byte": (lambda: (b"abc", memoryview(b"abd")), "byte 2: 0x63 became 0x64"),
    "number of bytes": (lambda: (pa.py_buffer(b"abc"), b"ab"), "3 bytes became 2"),
    "element format": (lambda: (array.array("i", [1]), memoryview(array.array("I", [1]))), "'i'"),
    "no bytes": (lambda: (b"abc", "abc"), "exposes no bytes"),
    "keys": (lambda: ({"a": 1}, {"b": 1}), "keys"),
    "a value": (lambda: ({"a": [1, 2]}, {"a": [1, 3]}), r"\['a'\].*\[1\].*2 became 3"),
    "number of items": (lambda: ([1], [1, 2]), "1 items became 2"),
    "kind of sequence": (lambda: ([1], (1,)), "list became"),
    "objects": (lambda: (1, 2), "1 became 2"),
    "kind of object": (lambda: (1, 1.0), "int became"),
}


if hasattr(np.dtypes, "StringDType"):  # NumPy 2
    DIFFERENT["what stands for missing"] = (
        lambda: (
            np.array(["a"], np.dtypes.StringDType()),
            np.array(["a"], np.dtypes.StringDType(na_object=None)),
        ),
        "na_object",
    )


def assert_differ(expected: Any, actual: Any, match: str = "") -> None:
    with pytest.raises(AssertionError, match=match):
        assert_same(expected, actual)


@pytest.mark.parametrize("name", SAME)
def test_what_is_the_same(name: str) -> None:
    expected, actual = SAME[name]()
    assert_same(expected, actual)
    if name not in ONE_WAY:
        assert_same(actual, expected)


@pytest.mark.parametrize("name", DIFFERENT)
def test_every_difference_is_noticed_and_named(name: str) -> None:
    make, match = DIFFERENT[name]
    expected, actual = make()
    assert_same(expected, expected)
    assert_differ(expected, actual, match)


def test_the_message_begins_with_what_it_is_about() -> None:
    with pytest.raises(AssertionError, match=r"^orders: column 1"):
        assert_same(column(1), column(2), what="orders")


def is_same_to_others(expected: pa.Array, actual: pa.Array) -> bool | None:
    """What Arrow says; None where it compares the indices of dictionaries, and Python says otherwise."""
    if expected.equals(actual):
        return True
    kind = expected.type
    if "dictionary" not in str(kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind):
        return False
    try:
        return None if expected.to_pylist() == actual.to_pylist() else False
    except (OverflowError, ValueError):  # a value that Python has not
        return None


NOT_A_NUMBER = {"halffloat", "float", "double", "run_end_encoded doubles"}
"""Samples with a NaN, which is not the same to Arrow and Python."""


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - NOT_A_NUMBER))
def test_pairs_of_rows_of_every_type_as_others_compare_them(name: str) -> None:
    sample = SAMPLES[name]()
    for values in (sample, *dict(nested_columns(sample)).values()):
        rows = [values.slice(row, 1) for row in range(len(values))]
        for expected, actual in itertools.product(rows, rows):
            same = is_same_to_others(expected, actual)
            if same:
                assert_same(expected, actual)
            elif same is not None:
                assert_differ(expected, actual, "row 0")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_are_left_to_the_module_of_their_library(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for it: what is tested is that nobody else judges."""

    def assert_same_frame(expected: Any, actual: Any) -> None:
        assert expected is actual, "another frame"

    module = ModuleType(library)
    vars(module)["assert_same_frame"] = assert_same_frame
    monkeypatch.setitem(sys.modules, f"flightstore.testing.types.{library}", module)
    frame = importlib.import_module(library).DataFrame({"a": [1]})
    assert_same(frame, frame)
    assert_differ(frame, frame[:0], "the DataFrame: another frame")
    assert_differ([frame], [frame[:0]], r"\[0\]: another frame")


def test_scalars_of_pandas_are_plain_objects() -> None:
    pd = importlib.import_module("pandas")
    assert_same(pd.Timestamp(1), pd.Timestamp(1))
    assert_differ(pd.Timestamp(1), pd.Timestamp(2), "became")
