"""Exact equality of values of any kind, with a message that says where they part.

May call the other modules of equality in this folder; pandas' and polars' only if those libraries are
imported already. What is equal: what a user of the value could not tell apart. Not part of it: how Arrow's
chunks are cut, what lies in null slots and padding, how a dictionary lists its values.
"""

from __future__ import annotations

import array
import mmap
import sys
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.testing.types.arrow_schema import field_difference, schema_difference, type_difference
from flightstore.testing.types.arrow_values import first_difference
from flightstore.testing.types.numpy_values import array_difference

__all__ = ["assert_same"]

_BYTES = (bytes, bytearray, memoryview, array.array, mmap.mmap, pa.Buffer)
_ARROW = (pa.Table, pa.RecordBatch, pa.ChunkedArray, pa.Array, pa.Scalar, pa.Schema, pa.Field, pa.DataType)
_BY_TYPE = (pa.Array, pa.Scalar, pa.DataType)
_FRAMES = {"pandas": ("DataFrame", "Series", "Index"), "polars": ("DataFrame", "Series")}
"""What is compared by ``assert_same_frame(expected, actual)`` of the module here named like the library."""


def assert_same(expected: Any, actual: Any, *, what: str = "") -> None:
    """Fail unless `actual` is exactly what `expected` is.

    Arrow: schemas with all metadata, nullability and extension types; values bit by bit, nulls; of
    dictionaries the index type, the order flag and the decoded values. NumPy: dtype, shape, order in memory,
    bytes. Whatever exposes bytes: the bytes, their element format and shape, whatever type they come back as.
    Containers: item by item. pandas and polars: see the module named like the library.

    Args:
        expected: The value as it should be.
        actual: The value as it is.
        what: What the message calls it.

    Raises:
        AssertionError: it is not; names the column and the first row that differs.
    """
    name = what or f"the {type(expected).__name__}"
    for library, kinds in _FRAMES.items():
        if _is_one_of(library, kinds, expected):
            _assert_same_frame(library, expected, actual, name)
            return
    if found := _difference(expected, actual):
        raise AssertionError(f"{name}: {found}")


def _is_one_of(library: str, kinds: tuple[str, ...], value: Any) -> bool:
    """Whether a value is of one of a library's types; the library is not imported for it."""
    module = sys.modules.get(library)
    return isinstance(value, tuple(getattr(module, kind, ()) for kind in kinds))


def _assert_same_frame(library: str, expected: Any, actual: Any, name: str) -> None:
    compare = import_module(f"flightstore.testing.types.{library}").assert_same_frame
    try:
        compare(expected, actual)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def _difference(expected: Any, actual: Any) -> str:
    """How two values differ; empty if they do not."""
    if isinstance(expected, _BYTES):
        return _bytes_difference(expected, actual)
    if isinstance(expected, np.memmap):
        expected = expected.view(np.ndarray)
    if type(expected) is not type(actual) and not _are_of_one_class(expected, actual):
        return f"{_type_name(expected)} became {_type_name(actual)}"
    if isinstance(expected, np.ndarray | np.generic):
        return _numpy_difference(expected, actual)
    if isinstance(expected, _ARROW):
        return _arrow_difference(expected, actual)
    if isinstance(expected, dict | list | tuple):
        return _container_difference(expected, actual)
    return "" if _equal(expected, actual) else f"{_shortened(expected)} became {_shortened(actual)}"


def _are_of_one_class(expected: Any, actual: Any) -> bool:
    """Arrow has a class for each type; how the types differ is a better thing to say."""
    return any(isinstance(expected, kind) and isinstance(actual, kind) for kind in _BY_TYPE)


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"a {kind.__module__}.{kind.__qualname__}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _equal(expected: Any, actual: Any) -> bool:
    """Equality of plain objects, in which NaN is equal to NaN."""
    return bool(expected == actual) or (expected != expected and actual != actual)


def _container_difference(expected: Any, actual: Any) -> str:
    if isinstance(expected, dict):
        if list(expected) != list(actual):
            return f"keys {_shortened(list(expected))} became {_shortened(list(actual))}"
        pairs = [(key, value, actual[key]) for key, value in expected.items()]
    elif len(expected) != len(actual):
        return f"{len(expected)} items became {len(actual)}"
    else:
        pairs = [(i, *pair) for i, pair in enumerate(zip(expected, actual, strict=True))]
    for key, *pair in pairs:
        try:
            assert_same(*pair, what=f"[{key!r}]")
        except AssertionError as error:
            return str(error)
    return ""


def _bytes_difference(expected: Any, actual: Any) -> str:
    """Bytes come back as whatever exposes them."""
    try:
        views = [memoryview(value) for value in (expected, actual)]
    except TypeError:
        return f"{_type_name(expected)} became {_type_name(actual)}, which exposes no bytes"
    if not isinstance(expected, pa.Buffer):  # Arrow's buffers claim to be of signed characters
        shapes = [(view.format, view.shape if view.nbytes else ()) for view in views]
        if shapes[0] != shapes[1]:
            return f"elements {shapes[0]} became {shapes[1]}"
    first, second = (view.tobytes() for view in views)
    if first == second:
        return ""
    if len(first) != len(second):
        return f"{len(first)} bytes became {len(second)}"
    at = next(i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
    return f"byte {at}: {first[at]:#04x} became {second[at]:#04x}"


def _numpy_difference(expected: Any, actual: Any) -> str:
    if isinstance(expected, np.ma.MaskedArray):
        masks = np.ma.getmaskarray(expected), np.ma.getmaskarray(actual)
        if not np.array_equal(*masks):
            return "its mask changed"
        expected, actual = np.ma.getdata(expected), np.ma.getdata(actual)
    return array_difference(np.asarray(expected), np.asarray(actual), _is_same)


def _is_same(expected: Any, actual: Any) -> bool:
    try:
        assert_same(expected, actual)
    except AssertionError:
        return False
    return True


def _arrow_difference(expected: Any, actual: Any) -> str:
    if isinstance(expected, pa.Table | pa.RecordBatch):
        return _table_difference(expected, actual)
    if isinstance(expected, pa.Schema):
        return schema_difference(expected, actual)
    if isinstance(expected, pa.Field):
        return field_difference(expected, actual)
    if isinstance(expected, pa.DataType):
        return type_difference(expected, actual)
    if isinstance(expected, pa.Scalar):
        expected, actual = pa.repeat(expected, 1), pa.repeat(actual, 1)
    return type_difference(expected.type, actual.type) or _values_difference(expected, actual)


def _table_difference(expected: Any, actual: Any) -> str:
    if found := schema_difference(expected.schema, actual.schema):
        return found
    if expected.num_rows != actual.num_rows:
        return f"{expected.num_rows} rows became {actual.num_rows}"
    for number, pair in enumerate(zip(expected.columns, actual.columns, strict=True)):
        if found := _values_difference(*pair):
            return f"column {number} {expected.schema.names[number]!r}: {found}"
    return ""


def _values_difference(expected: Any, actual: Any) -> str:
    if len(expected) != len(actual):
        return f"{len(expected)} rows became {len(actual)}"
    row = first_difference(expected, actual)
    if row is None:
        return ""
    texts = [_shown(value, row) for value in (expected, actual)]
    same = " (they differ in their bits)" if texts[0] == texts[1] else ""
    return f"row {row}: {texts[0]} became {texts[1]}{same}"


def _shown(values: Any, row: int) -> str:
    """A value as text, as Arrow prints it where Python has no such value (a far date, say)."""
    try:
        return _shortened(values[row].as_py())
    except Exception:
        return str(values.slice(row, 1))
