"""Hypothesis strategies of Arrow types, fields and schemas: whatever Arrow's format has words for.

May call extensions and arrow_nesting. Simple types come first everywhere: examples shrink to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa

from flightstore.errors import MissingExtra
from flightstore.testing.types.arrow_nesting import can_be_in_a_dictionary
from flightstore.testing.types.extensions import LabelledType

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as error:
    raise MissingExtra("generating values needs hypothesis", hint="pip install hypothesis") from error

__all__ = ["data_types", "fields", "metadata", "names"]

UNITS = ("s", "ms", "us", "ns")
INDEX_TYPES = [
    kind() for bits in (8, 16, 32, 64) for kind in (getattr(pa, f"int{bits}"), getattr(pa, f"uint{bits}"))
]
FAMILIES: list[list[pa.DataType]] = [
    INDEX_TYPES,
    [pa.bool_()],
    [pa.float64(), pa.float32(), pa.float16()],
    [pa.string(), pa.large_string(), pa.string_view()],
    [pa.binary(), pa.large_binary(), pa.binary_view()],
    [pa.binary(width) for width in (3, 0, 1, 16)],
    [pa.date32(), pa.date64()],
    [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")],
    [pa.timestamp(unit, zone) for unit in UNITS for zone in (None, "UTC", "America/New_York", "+05:30")],
    [pa.duration(unit) for unit in UNITS],
    [pa.month_day_nano_interval()],
    [pa.null()],
    [pa.uuid(), pa.bool8()],
    [pa.json_(storage) for storage in (pa.string(), pa.large_string(), pa.string_view())],
    [pa.fixed_shape_tensor(pa.int16(), [2, 1])],
    [pa.fixed_shape_tensor(pa.float64(), [1, 2], dim_names=["a", "b"], permutation=[1, 0])],
]
"""Types without children, by family, so that each is as likely; decimals are made by their digits."""

DECIMALS = ((pa.decimal128, 38), (pa.decimal256, 76), (pa.decimal64, 18), (pa.decimal32, 9))


@cache
def names() -> SearchStrategy[str]:
    """Names of fields, some of them the same."""
    return st.sampled_from(["a", "b", "", "\N{SNOWMAN}"]) | st.text(max_size=5)


@cache
def metadata() -> SearchStrategy[dict[bytes, bytes] | None]:
    """Metadata of fields and schemas; most often none."""
    some = st.dictionaries(st.binary(max_size=3), st.binary(max_size=3), max_size=2)
    return st.none() | st.none() | some


@st.composite
def fields(draw: DrawFn, kind: pa.DataType | None = None, *, max_depth: int = 2) -> pa.Field:
    """Fields of a type, or of any."""
    if kind is None:
        kind = draw(_types(max_depth))
    nullable = draw(st.sampled_from([True, True, False])) or not _can_be_required(kind)
    return pa.field(draw(names()), kind, nullable, draw(metadata()))


def _can_be_required(kind: pa.DataType) -> bool:
    """Whether there are values of this type that are not null."""
    if isinstance(kind, pa.BaseExtensionType):
        return _can_be_required(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _can_be_required(kind.value_type)
    return not pa.types.is_null(kind)


@st.composite
def data_types(draw: DrawFn, *, max_depth: int = 2) -> pa.DataType:
    """Arrow types of every family, nested at most `max_depth` times."""
    if max_depth <= 0 or not draw(st.booleans()):
        return draw(_leaf_types())
    return draw(draw(_NESTED_TYPES)(max_depth - 1))


@cache
def _types(max_depth: int) -> SearchStrategy[pa.DataType]:
    """Made once: to make and check a strategy takes longer than to draw from it."""
    return data_types(max_depth=max_depth)


@cache
def _fields(max_depth: int) -> SearchStrategy[pa.Field]:
    return fields(max_depth=max_depth)


@cache
def _leaf_types() -> SearchStrategy[pa.DataType]:
    families = [*map(st.sampled_from, FAMILIES), _decimal_types()]
    return st.sampled_from(families).flatmap(lambda family: family)


@st.composite
def _decimal_types(draw: DrawFn) -> pa.DataType:
    make, digits = draw(st.sampled_from(DECIMALS))
    return make(draw(st.integers(1, digits)), draw(st.integers(-5, digits)))


@st.composite
def _list_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    make = draw(st.sampled_from([pa.list_, pa.large_list, pa.list_view, pa.large_list_view]))
    return make(draw(_fields(max_depth)))


@st.composite
def _fixed_list_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    return pa.list_(draw(_fields(max_depth)), draw(st.integers(0, 3)))


@st.composite
def _struct_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    return pa.struct(draw(st.lists(_fields(max_depth), max_size=3)))


@st.composite
def _map_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    key = draw(_types(max_depth).filter(_can_be_required))
    item = draw(_fields(max_depth)).with_name("value")
    return pa.map_(pa.field("key", key, nullable=False, metadata=draw(metadata())), item, draw(st.booleans()))


@st.composite
def _union_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    children = draw(st.lists(_fields(max_depth), min_size=1, max_size=3))
    codes = st.lists(st.integers(0, 127), min_size=len(children), max_size=len(children), unique=True)
    make = draw(st.sampled_from([pa.sparse_union, pa.dense_union]))
    return make(children, draw(codes))


@st.composite
def _dictionary_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    values = draw(_types(max_depth).filter(can_be_in_a_dictionary))
    return pa.dictionary(draw(st.sampled_from(INDEX_TYPES)), values, draw(st.booleans()))


@st.composite
def _run_end_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    ends = draw(st.sampled_from([pa.int32(), pa.int16(), pa.int64()]))
    return pa.run_end_encoded(ends, draw(_types(max_depth)))


@st.composite
def _extension_types(draw: DrawFn, max_depth: int) -> pa.DataType:
    no_extension = data_types(max_depth=max_depth).filter(
        lambda kind: not isinstance(kind, pa.BaseExtensionType)
    )
    storage = draw(no_extension)
    if draw(st.booleans()):
        return LabelledType(storage, draw(st.text(max_size=3)))
    return pa.opaque(storage, "type", "vendor")


_NESTED: list[Callable[[int], SearchStrategy[Any]]] = [
    _list_types,
    _struct_types,
    _dictionary_types,
    _map_types,
    _fixed_list_types,
    _union_types,
    _run_end_types,
    _extension_types,
]
_NESTED_TYPES = st.sampled_from(_NESTED)
