"""Arrow arrays of three rows, of every type and with every type in every other, for tests of conversions."""

from __future__ import annotations

import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa

UUIDS = [uuid.UUID(int=7).bytes, None, uuid.UUID(int=8).bytes]


def _times() -> dict[str, pa.Array]:
    found = {}
    for unit in ("s", "ms", "us", "ns"):
        kinds = [pa.timestamp(unit), pa.timestamp(unit, "Europe/Berlin"), pa.duration(unit)]
        found |= {str(kind): pa.array([1000, None, 3000], kind) for kind in kinds}
    kinds = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.date32(), pa.date64()]
    found |= {
        str(kind): pa.array([86_400_000 if kind == pa.date64() else 7000, None, 0], kind) for kind in kinds
    }
    found["offset zone"] = pa.array([1, None, 3], pa.timestamp("us", "+05:30"))
    found["interval"] = pa.array([pa.MonthDayNano([1, 2, 3]), None, pa.MonthDayNano([-1, 0, 5])])
    return found


def _decimals() -> dict[str, pa.Array]:
    values = [Decimal("1.50"), None, Decimal("-2.50")]
    kinds = [pa.decimal32(5, 2), pa.decimal64(12, 2), pa.decimal128(20, 2), pa.decimal256(20, 2)]
    found = {str(kind): pa.array(values, kind) for kind in kinds}
    wide = [Decimal(10) ** 50, None, Decimal("-0.25")]
    raw = b"".join(number.to_bytes(16, "little") for number in (5, 0, 7))
    buffers = [pa.py_buffer(b"\5"), pa.py_buffer(raw)]
    return found | {
        "decimal256, wide": pa.array(wide, pa.decimal256(60, 2)),
        "decimal of hundreds": pa.Array.from_buffers(pa.decimal128(20, -2), 3, buffers),
        "decimal below 1": pa.Array.from_buffers(pa.decimal128(2, 4), 3, buffers),
    }


def _text() -> dict[str, pa.Array]:
    values = ["a", None, "a text that is too long to lie in its view"]
    found = {str(kind): pa.array(values, kind) for kind in (pa.string(), pa.large_string(), pa.string_view())}
    raw = [None if value is None else value.encode() for value in values]
    kinds = (pa.binary(), pa.large_binary(), pa.binary_view())
    found |= {str(kind): pa.array(raw, kind) for kind in kinds}
    found["binary(2)"] = pa.array([b"ab", None, b"cd"], pa.binary(2))
    found["binary(0)"] = pa.array([b"", None, b""], pa.binary(0))
    return found


def _dictionaries() -> dict[str, pa.Array]:
    rows = pa.array([0, None, 1])
    values = {
        "text": pa.array(["b", "a"]),
        "views": pa.array(["b", "a"], pa.string_view()),
        "numbers": pa.array([10, 20]),
        "seconds": pa.array([1, 2], pa.time32("s")),
        "fixed": pa.array([b"x", b"y"], pa.binary(1)),
        "lists": pa.array([[1], []]),
        "a null": pa.array(["b", None]),
        "twice": pa.array(["b", "b"]),
    }
    found = {
        f"dictionary of {name}": pa.DictionaryArray.from_arrays(rows.cast(pa.int8()), value)
        for name, value in values.items()
    }
    for kind in (pa.int32(), pa.uint16(), pa.uint64()):
        found[f"dictionary by {kind}"] = pa.DictionaryArray.from_arrays(rows.cast(kind), values["text"])
    found["dictionary, ordered"] = pa.DictionaryArray.from_arrays(rows, values["text"], ordered=True)
    return found


def _encoded() -> dict[str, pa.Array]:
    ends, codes = pa.array([2, 3], pa.int32()), pa.array([0, 1, 0], pa.int8())
    numbers, text = pa.array([7, 8, 9]), pa.array(["x", None, "z"], pa.string_view())
    views = [pa.array([1, 0, 0], pa.int32()), pa.array([2, 0, 1], pa.int32()), numbers]
    dense = pa.array([0, 0, 1], pa.int32())
    return {
        "run ends": pa.RunEndEncodedArray.from_arrays(ends, pa.array([1.5, None])),
        "run ends of text": pa.RunEndEncodedArray.from_arrays(ends, text[:2]),
        "list view": pa.ListViewArray.from_arrays(*views, mask=pa.array([False, True, False])),
        "large list view": pa.array([[1], None, [2, 3]], pa.large_list_view(pa.int64())),
        "sparse union": pa.UnionArray.from_sparse(codes, [numbers, text], ["n", "t"]),
        "dense union": pa.UnionArray.from_dense(codes, dense, [numbers, text], ["n", "n"]),
    }


def _extensions() -> dict[str, pa.Array]:
    of = pa.ExtensionArray.from_storage
    lists = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    return {
        "uuid": of(pa.uuid(), pa.array(UUIDS, pa.binary(16))),
        "json": of(pa.json_(), pa.array(["{}", None, "1"])),
        "bool8": of(pa.bool8(), pa.array([1, None, 0], pa.int8())),
        "opaque": of(pa.opaque(pa.int32(), "t", "v"), pa.array([1, None, 0], pa.int32())),
        "tensors": of(pa.fixed_shape_tensor(pa.int32(), [2]), lists),
    }


def leaves() -> dict[str, pa.Array]:
    """Arrays of every type, three rows each, the second null where the type allows."""
    numbers = [
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
    ]
    found = {str(kind): pa.array([1, None, 3], kind) for kind in numbers}
    floats = (pa.float16(), pa.float32(), pa.float64())
    found |= {str(kind): pa.array(np.array([1.5, np.nan, 0])).cast(kind) for kind in floats}
    found |= {"null": pa.nulls(3), "bool": pa.array([True, None, False])}
    return found | _times() | _decimals() | _text() | _dictionaries() | _encoded() | _extensions()


def nestings(values: pa.Array) -> dict[str, pa.Array]:
    """Three rows of each type that can hold others, around three values."""
    ends, null = pa.array([0, 1, 1, 3], pa.int32()), pa.array([False, True, False])
    codes, rows = pa.array([0, 0, 0], pa.int8()), pa.array([0, 1, 2], pa.int32())
    text = pa.array(["x", "y", "z"])
    makers = {
        "list": lambda: pa.ListArray.from_arrays(ends, values, mask=null),
        "large list": lambda: pa.LargeListArray.from_arrays(ends.cast(pa.int64()), values),
        "array": lambda: pa.FixedSizeListArray.from_arrays(values, 1),
        "struct": lambda: pa.StructArray.from_arrays([values, rows], ["f", "g"], mask=null),
        "map": lambda: pa.MapArray.from_arrays(ends, text, values),
        "dictionary": lambda: pa.DictionaryArray.from_arrays(pa.array([0, 2, None], pa.int8()), values),
        "extension": lambda: pa.ExtensionArray.from_storage(pa.opaque(values.type, "t", "v"), values),
        "run ends": lambda: pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), values),
        "list view": lambda: pa.ListViewArray.from_arrays(rows, pa.array([1, 0, 1], pa.int32()), values),
        "dense union": lambda: pa.UnionArray.from_dense(codes, rows, [values]),
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except (pa.ArrowException, TypeError):  # Arrow has no such type
            continue
    return found
