"""A sample of every Arrow type: eight rows each, of which rows 0, 5 and 6 are null.

May call raw and extensions. Rows 1 to 4 hold no null, so that slices of a sample have no nulls, some, or
nothing else. The names are those that Arrow prints, more or less.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa

from flightstore.testing.types import raw
from flightstore.testing.types.extensions import label

__all__ = ["NULLS", "SAMPLES", "Sample", "VALUES"]

Sample: TypeAlias = Callable[[], pa.Array]

NULLS = slice(5, 7)
"""Rows of every sample that are null."""
VALUES = slice(1, 5)
"""Rows of every sample that are not."""

VALID = [False, True, True, True, True, False, False, True]
UNITS = ("s", "ms", "us", "ns")
LONG = "longer than the twelve bytes that a view holds in place "


def rows(kind: pa.DataType, a: Any, b: Any, c: Any, d: Any, e: Any) -> pa.Array:
    """Five values among nulls."""
    return pa.array([None, a, b, c, d, None, None, e], kind)


def cells(kind: pa.DataType, *values: bytes) -> pa.Array:
    """Five values, each as its bytes, among nulls whose bytes are not zero."""
    garbage = b"\xa5" * len(values[0])
    return raw.fixed(kind, [garbage, *values[:4], garbage, garbage, values[4]], VALID)


def _of(kind: pa.DataType, *values: Any) -> Sample:
    return lambda: rows(kind, *values)


def _integers() -> Iterator[tuple[str, Sample]]:
    for bits in (8, 16, 32, 64):
        top = 1 << (bits - 1)
        signed, unsigned = pa.type_for_alias(f"int{bits}"), pa.type_for_alias(f"uint{bits}")
        yield f"int{bits}", _of(signed, 0, -1, top - 1, -top, 5)
        yield f"uint{bits}", _of(unsigned, 0, 1, 2 * top - 1, top, 5)


def _floats() -> Iterator[tuple[str, Sample]]:
    """Signed zeros, infinities, the least subnormal, and NaNs with a payload."""
    patterns = {
        "halffloat": (pa.float16(), "<H", 0x8000, 0x7C00, 0xFE01, 0x0001, 0x3C00),
        "float": (pa.float32(), "<I", 1 << 31, 0xFF << 23, 0xFFC0_0001, 1, 0x3F80_0000),
        "double": (pa.float64(), "<Q", 1 << 63, 0x7FF << 52, 0xFFF8_0000_0000_0001, 1, 0x3FF0 << 48),
    }
    for name, (kind, code, *bits) in patterns.items():
        values = tuple(struct.pack(code, pattern) for pattern in bits)
        yield name, partial(cells, kind, *values)


def _decimals() -> Iterator[tuple[str, Sample]]:
    makers = {32: pa.decimal32, 64: pa.decimal64, 128: pa.decimal128, 256: pa.decimal256}
    for (bits, make), digits in zip(makers.items(), (9, 18, 38, 76), strict=True):
        for precision, scale in ((digits, 2), (1, 0), (digits, digits), (4, -3), (3, 5)):
            kind = make(precision, scale)
            numbers = (0, 1, -1, 10**precision - 1, 1 - 10**precision)
            values = tuple(number.to_bytes(bits // 8, "little", signed=True) for number in numbers)
            yield str(kind), partial(cells, kind, *values)


def _times() -> Iterator[tuple[str, Sample]]:
    day_s, last = 86_400, 2**63 - 1
    yield "date32", _of(pa.date32(), 0, -1, 2**31 - 1, -(2**31), datetime.date(2024, 2, 29))
    far = last // (day_s * 1000) * day_s * 1000
    yield "date64", _of(pa.date64(), 0, -day_s * 1000, far, -far, datetime.date(2024, 2, 29))
    for unit, factor in zip(UNITS, (1, 10**3, 10**6, 10**9), strict=True):
        time = (pa.time32 if unit in ("s", "ms") else pa.time64)(unit)
        yield str(time), _of(time, 0, 1, day_s * factor - 1, day_s * factor // 2, 3_600 * factor)
        for zone in (None, "UTC", "Europe/Berlin", "+05:30"):
            stamp = pa.timestamp(unit, zone)
            yield str(stamp), _of(stamp, 0, -1, last, -last, 1_709_208_000 * factor)
        yield str(pa.duration(unit)), _of(pa.duration(unit), 0, -1, last, -last, day_s * factor)
    month_day_nano = [(0, 0, 0), (-1, 2, -3), (2**31 - 1, -(2**31), 2**63 - 1), (1, 1, 1), (-1, -1, -1)]
    yield "month_day_nano_interval", _of(pa.month_day_nano_interval(), *month_day_nano)


def _bytes() -> Iterator[tuple[str, Sample]]:
    values = (b"", b"\0\xff", b"exactly 12 b", (LONG * 2).encode(), b"\xf0\x9f")
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        yield str(kind), _of(kind, *values)
    texts = ("", "\0a", "exactly 12 b", LONG * 2, "\N{SNOWMAN}\N{GRINNING FACE}")
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        yield str(kind), _of(kind, *texts)
    yield "fixed_size_binary[3]", _of(pa.binary(3), b"\0\0\0", b"abc", b"\xff\xff\xff", b"a\0b", b"xyz")
    yield "fixed_size_binary[0]", _of(pa.binary(0), *[b""] * 5)


def _lists() -> Iterator[tuple[str, Sample]]:
    values: tuple[list[int | None], ...] = ([1, None], [], [2, 3, 4], [None], [-(2**31)])
    item = pa.field("element", pa.int32(), nullable=False, metadata={b"\xff": b"\0"})
    for make in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view):
        kind = make(pa.int32())
        name = str(kind).partition("<")[0]
        yield name, _of(kind, *values)
        yield f"{name} of named items", _of(make(item), [1], [], [2, 3, 4], [0], [5])
        yield f"{name} of strings", _of(make(pa.string()), ["a", None], [], [LONG], [""], ["b"])
    yield "fixed_size_list[2]", _of(pa.list_(pa.int32(), 2), [1, None], [2, 3], [None, None], [4, 5], [6, 7])
    yield "fixed_size_list[0]", _of(pa.list_(pa.int32(), 0), *[[]] * 5)
    yield "fixed_size_list of named items", _of(pa.list_(item, 2), *[[i, i] for i in range(5)])


def _structs() -> Iterator[tuple[str, Sample]]:
    pair = pa.struct({"a": pa.int8(), "b": pa.string()})
    values: tuple[dict[str, Any], ...] = (
        {"a": 1, "b": "x"},
        {"a": None, "b": None},
        {"a": -1, "b": None},
        {"a": 2, "b": LONG},
        {},
    )
    yield "struct", _of(pair, *values)
    yield "struct without fields", _of(pa.struct([]), *[{}] * 5)
    exact = pa.struct([pa.field("", pa.int8(), nullable=False, metadata={"unit": "kg"})])
    yield "struct with a required field", _of(exact, *[{"": i} for i in range(5)])
    twins = pa.struct([pa.field("a", pa.int8()), pa.field("a", pa.int16())])
    children = [pa.array(range(8), pa.int8()), pa.array(range(8), pa.int16())]
    yield "struct with two fields of one name", lambda: raw.structs(twins, 8, children, VALID)
    yield "struct of structs", _of(pa.struct({"s": pair}), *[{"s": value} for value in values])


def _maps() -> Iterator[tuple[str, Sample]]:
    entries: tuple[list[Any], ...] = (
        [("a", 1), ("b", None)],
        [],
        [("c", 3)],
        [("d", 4), ("e", 5), ("f", 6)],
        [("", 0)],
    )
    yield "map", _of(pa.map_(pa.string(), pa.int8()), *entries)
    yield "map with sorted keys", _of(pa.map_(pa.string(), pa.int8(), keys_sorted=True), *entries)
    key, item = pa.field("k", pa.int8(), nullable=False), pa.field("v", pa.int8(), nullable=False)
    named = pa.map_(key, item)
    yield "map of named entries", _of(named, [(1, 1)], [], [(2, 2)], [(3, 3), (4, 4)], [(5, 5)])
    lists = pa.map_(pa.int8(), pa.list_(pa.string()))
    yield "map of lists", _of(lists, [(1, ["a"])], [], [(2, None)], [(3, []), (4, [None])], [(5, [LONG])])


def _unions() -> Iterator[tuple[str, Sample]]:
    """Their nulls are nulls of the children; the type codes are neither 0, 1, ... nor in order."""
    fields = [pa.field("n", pa.int32()), pa.field("s", pa.string(), metadata={"a": "b"})]
    numbers = pa.array([None, 1, 2, 3, None, None, 5, 6], pa.int32())
    texts = pa.array(["x", "y", "z", None, "a", None, None, "b"])
    codes = [7, 7, 3, 7, 3, 7, 3, 7]
    sparse, dense = pa.sparse_union(fields, [7, 3]), pa.dense_union(fields, [7, 3])
    yield "sparse_union", lambda: raw.union(sparse, codes, [numbers, texts])
    short = pa.array([None, 1, 3, None, 6], pa.int32()), pa.array(["z", "a", None])
    yield "dense_union", lambda: raw.union(dense, codes, short, [0, 1, 0, 2, 1, 3, 2, 4])
    shared = [0, 1, 0, 1, 1, 3, 2, 4]
    yield "dense_union whose rows share values", lambda: raw.union(dense, codes, short, shared)
    twins = pa.sparse_union([pa.field("a", pa.int32()), pa.field("a", pa.string())])
    yield (
        "sparse_union of children of one name",
        lambda: raw.union(twins, [0, 0, 1, 0, 1, 0, 1, 0], [numbers, texts]),
    )


def _dictionaries() -> Iterator[tuple[str, Sample]]:
    indices = [0, 2, 0, 1, 2, 1, 0, 1]

    def encoded(values: pa.Array, index: pa.DataType = pa.int32(), *, ordered: bool = False) -> Sample:  # noqa: B008
        kind = pa.dictionary(index, values.type, ordered)
        return lambda: raw.dictionary(kind, indices, values, VALID)

    texts = pa.array(["b", "", LONG])
    for _, sample in _integers():
        index = sample().type
        yield f"dictionary[{index}]", encoded(texts, index)
    yield "dictionary, ordered", encoded(texts, ordered=True)
    others = {
        "bool": pa.array([True, False, True]),
        "double": pa.array([0.5, float("inf"), -0.0]),
        "timestamp": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
        "decimal": pa.array([Decimal("1.5"), Decimal("2.5"), Decimal("-3.5")]),
        "string_view": pa.array(["b", "", LONG], pa.string_view()),
        "list": pa.array([[1, None], [], [2]]),
        "list_view": pa.array([[1, None], [], [2]], pa.list_view(pa.int8())),
        "struct": pa.array([{"a": 1}, {"a": None}, {"a": 3}]),
        "lists of dictionaries": pa.array([["a"], [], ["b", None]], pa.list_(encoded(texts)().type)),
        "null": pa.nulls(3),
    }
    for name, values in others.items():
        yield f"dictionary of {name}", encoded(values)
    with_null = pa.array(["b", None, "b"])
    kind = pa.dictionary(pa.int8(), pa.string())
    places = [1, 0, 2, 0, 2, 1, 1, 0]
    yield "dictionary with a null and a value twice", lambda: raw.dictionary(kind, places, with_null)


def _runs() -> Iterator[tuple[str, Sample]]:
    ends = [1, 2, 4, 5, 7, 9]

    def encoded(values: pa.Array, end: pa.DataType = pa.int32()) -> Sample:  # noqa: B008
        return lambda: raw.runs(pa.run_end_encoded(end, values.type), ends, values, 8)

    texts = pa.array([None, "a", LONG, "", None, "b"])
    for end in (pa.int16(), pa.int32(), pa.int64()):
        yield f"run_end_encoded[{end}]", encoded(texts, end)
    others = {
        "doubles": pa.array([None, 1.5, float("nan"), -0.0, None, 2.5]),
        "bools": pa.array([None, True, False, True, None, False]),
        "views": pa.array([None, "a", LONG, "", None, "b"], pa.string_view()),
        "lists": pa.array([None, [1], [2, None], [], None, [3]]),
        "structs": pa.array([None, {"a": 1}, {"a": None}, {"a": 3}, None, {"a": 4}]),
        "dictionaries": texts.dictionary_encode(),
    }
    for name, values in others.items():
        yield f"run_end_encoded {name}", encoded(values)


def _canonical_extensions() -> Iterator[tuple[str, Sample]]:
    ids = [bytes([i]) * 16 for i in range(1, 6)]
    yield "uuid", _of(pa.uuid(), *ids)
    documents = ("{}", '{"a": [1, null]}', "[]", '"\N{SNOWMAN}"', "null")
    for storage in (pa.string(), pa.large_string(), pa.string_view()):
        yield f"json over {storage}", _of(pa.json_(storage), *documents)
    flags = rows(pa.int8(), 0, 1, 2, -1, 1)
    yield "bool8", lambda: raw.extension(pa.bool8(), flags)
    six = rows(pa.list_(pa.int32(), 6), *[[i] * 6 for i in range(5)])
    yield "fixed_shape_tensor", lambda: raw.extension(pa.fixed_shape_tensor(pa.int32(), [2, 3]), six)
    permuted = pa.fixed_shape_tensor(pa.int32(), [2, 3], dim_names=["a", "b"], permutation=[1, 0])
    yield "fixed_shape_tensor, permuted", lambda: raw.extension(permuted, six)
    opaque = pa.opaque(pa.int8(), "geometry", "somebody else's database")
    yield "opaque", lambda: raw.extension(opaque, flags)


def _labelled(storage: Sample) -> pa.Array:
    return label(storage())


def _labelled_extensions() -> Iterator[tuple[str, Sample]]:
    """A third party's registered type, over storages of every family."""
    storages = {
        "integers": _of(pa.int8(), 0, 1, 2, 3, 4),
        "views": _of(pa.string_view(), "a", LONG, "", "b", "c"),
        "lists": _of(pa.list_(pa.int8()), [1], [], [None], [2, 3], [4]),
        "structs": _of(pa.struct({"a": pa.int8()}), *[{"a": i} for i in range(5)]),
        "dictionaries": lambda: rows(pa.string(), "a", "b", "a", "c", "b").dictionary_encode(),
        "runs": dict(_runs())["run_end_encoded[int32]"],
        "unions": dict(_unions())["sparse_union"],
    }
    for name, storage in storages.items():
        yield f"an extension over {name}", partial(_labelled, storage)


def _samples() -> Iterator[tuple[str, Sample]]:
    yield "null", lambda: pa.nulls(8)
    yield "bool", _of(pa.bool_(), True, False, True, True, False)
    for group in (_integers, _floats, _decimals, _times, _bytes, _lists, _structs, _maps, _unions):
        yield from group()
    for group in (_dictionaries, _runs, _canonical_extensions, _labelled_extensions):
        yield from group()


SAMPLES: dict[str, Sample] = dict(_samples())
"""Arrays by the name of their type; each call makes a new one."""
