"""The strategies generate what they claim: every type, every layout, sound values, small examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis.strategies import SearchStrategy

from flightstore.testing.types import numpy as nps
from flightstore.testing.types.strategies import (
    any_arrays,
    arrays,
    chunked_arrays,
    data_types,
    fields,
    record_batches,
    tables,
)

GENERATE = settings(
    max_examples=2000,
    derandomize=False,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SHRINK = settings(GENERATE, derandomize=True, phases=[Phase.generate, Phase.shrink])
ROUNDS = 30
"""How many lots of examples are looked through for what most lots have: see `assert_found`."""


def examples(strategy: SearchStrategy[Any], count: int, lot: int) -> list[Any]:
    """So many examples, the same whenever the same modules are loaded; others in each lot."""
    found = []

    @seed(lot)
    @settings(GENERATE, max_examples=count)
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


@cache
def types_generated(lot: int = 0) -> list[pa.DataType]:
    return examples(data_types(), 2000, lot)


@cache
def fields_generated(lot: int = 0) -> list[pa.Field]:
    return examples(fields(pa.int8()), 300, lot)


@cache
def arrays_generated(kind: pa.DataType, lot: int = 0) -> list[pa.Array]:
    return examples(arrays(kind, 4), 200, lot)


@cache
def chunked_generated(kind: pa.DataType, lot: int = 0) -> list[pa.ChunkedArray]:
    return examples(chunked_arrays(kind), 200, lot)


@cache
def tables_generated(lot: int = 0) -> list[pa.Table]:
    return examples(tables(max_depth=0), 200, lot)


@cache
def dtypes_generated(lot: int = 0) -> list[np.dtype[Any]]:
    return examples(nps.dtypes(), 1000, lot)


@cache
def numpy_generated(lot: int = 0) -> list[np.ndarray[Any, Any]]:
    return examples(nps.arrays(np.dtype("M8[s]")), 500, lot)


NOT_MADE_BY_PYARROW = {pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME}
TYPE_IDS = {
    name.removeprefix("Type_").lower(): code
    for name, code in vars(pa.lib).items()
    if name.startswith("Type_") and code not in NOT_MADE_BY_PYARROW
}
EXTENSION = pa.uuid().id


def assert_found(generate: Callable[[int], list[Any]], condition: Callable[[Any], bool]) -> None:
    """Something like this is generated, in one of many lots.

    One lot says little of what is rare. Hypothesis draws on the constants of whatever modules of the project
    are loaded, so the examples vary with the tests that this process ran before.
    """
    assert any(condition(value) for lot in range(ROUNDS) for value in generate(lot))


def inner_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The types directly below a type."""
    if isinstance(kind, pa.BaseExtensionType):
        yield kind.storage_type
    elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        yield kind.value_type
    elif pa.types.is_map(kind):
        yield from (kind.key_type, kind.item_type)
    else:
        yield from (kind.field(number).type for number in range(kind.num_fields))


NESTING_IDS = {
    name: code
    for name, code in TYPE_IDS.items()
    if any(word in name for word in ("list", "struct", "map", "union", "dictionary", "run_end"))
} | {"extension": EXTENSION}


@pytest.mark.parametrize("name", [*TYPE_IDS, "extension"])
def test_every_type_is_generated(name: str) -> None:
    assert_found(types_generated, lambda kind: kind.id == {**TYPE_IDS, "extension": EXTENSION}[name])


@pytest.mark.parametrize("name", NESTING_IDS)
def test_every_nesting_is_generated_within_another(name: str) -> None:
    code = NESTING_IDS[name]
    assert_found(types_generated, lambda kind: any(inner.id == code for inner in inner_types(kind)))


PARAMETERS: dict[str, Callable[[Any], bool]] = {
    "time zone": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "negative scale": lambda kind: pa.types.is_decimal(kind) and kind.scale < 0,
    "scale beyond precision": lambda kind: pa.types.is_decimal(kind) and kind.scale > kind.precision,
    "no bytes": lambda kind: kind == pa.binary(0),
    "lists of no items": lambda kind: pa.types.is_fixed_size_list(kind) and kind.list_size == 0,
    "required items": lambda kind: pa.types.is_list(kind) and not kind.value_field.nullable,
    "named items": lambda kind: pa.types.is_list(kind) and kind.value_field.name not in ("", "item"),
    "items with metadata": lambda kind: pa.types.is_list(kind) and bool(kind.value_field.metadata),
    "struct without fields": lambda kind: kind == pa.struct([]),
    "sorted keys": lambda kind: pa.types.is_map(kind) and kind.keys_sorted,
    "type codes": lambda kind: pa.types.is_union(kind) and kind.type_codes != list(range(kind.num_fields)),
    "ordered dictionary": lambda kind: pa.types.is_dictionary(kind) and kind.ordered,
    "unsigned indices": lambda kind: pa.types.is_dictionary(kind) and kind.index_type == pa.uint64(),
    "short runs": lambda kind: pa.types.is_run_end_encoded(kind) and kind.run_end_type == pa.int16(),
    "opaque": lambda kind: isinstance(kind, pa.OpaqueType),
    "a third party's": lambda kind: isinstance(kind, pa.ExtensionType),
    "depth": lambda kind: any(list(inner_types(inner)) for inner in inner_types(kind)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_generated(name: str) -> None:
    assert_found(types_generated, PARAMETERS[name])


FIELDS: dict[str, Callable[[pa.Field], bool]] = {
    "required": lambda field: not field.nullable,
    "without a name": lambda field: field.name == "",
    "with metadata": lambda field: bool(field.metadata),
    "with empty metadata": lambda field: field.metadata == {},
    "with metadata that is no text": lambda field: any(not key.isascii() for key in field.metadata or {}),
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_kind_of_field_is_generated(name: str) -> None:
    assert_found(fields_generated, FIELDS[name])


# Layouts: a type, and what is looked for in its arrays of four rows.


def bits(array: pa.Array) -> np.ndarray[Any, Any] | None:
    """Validity of the rows, None without a bitmap."""
    bitmap = array.buffers()[0]
    if bitmap is None:
        return None
    unpacked = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return unpacked[array.offset : array.offset + len(array)].astype(bool)


def numbers(array: pa.Array, buffer: int, dtype: Any, more: int = 0) -> Any:
    """Integers of a buffer that belong to the rows."""
    whole = np.frombuffer(array.buffers()[buffer], dtype)
    return whole[array.offset : array.offset + len(array) + more]


def spans(array: pa.Array) -> list[tuple[int, int]]:
    """(offset, size) of each list view."""
    return list(zip(numbers(array, 1, "i4").tolist(), numbers(array, 2, "i4").tolist(), strict=True))


def view_buffers(array: pa.Array) -> set[int]:
    """Data buffers that views refer to."""
    views = numbers(array, 1, np.dtype([("size", "i4"), ("prefix", "S4"), ("buffer", "i4"), ("at", "i4")]))
    return set(views["buffer"][views["size"] > 12].tolist())


INT, LIST, VIEW = pa.int8(), pa.list_(pa.int8()), pa.list_view(pa.int8())
STRUCT, MAP = pa.struct({"a": pa.int8()}), pa.map_(pa.int8(), pa.int8())
DICTIONARY, RUNS = pa.dictionary(pa.int8(), pa.int8()), pa.run_end_encoded(pa.int32(), pa.int8())
SPARSE, DENSE = (make([pa.field("a", INT), pa.field("b", INT)]) for make in (pa.sparse_union, pa.dense_union))

LAYOUTS: dict[str, tuple[pa.DataType, Callable[[Any], bool]]] = {
    "no bitmap": (INT, lambda a: bits(a) is None),
    "a bitmap without nulls": (INT, lambda a: bits(a) is not None and bits(a).all()),
    "some nulls": (INT, lambda a: 0 < a.null_count < len(a)),
    "all null": (INT, lambda a: a.null_count == len(a)),
    "null rows that hold something": (
        INT,
        lambda a: a.null_count and numbers(a, 1, "i1")[~bits(a)].any(),
    ),
    "offset within a byte": (pa.bool_(), lambda a: a.offset % 8),
    "offset of a byte or more": (pa.bool_(), lambda a: a.offset >= 8),
    "rows after the end": (INT, lambda a: a.buffers()[1].size > a.offset + len(a)),
    "NaN with a payload": (pa.float64(), lambda a: 0xFFF8_0000_0000_0001 in numbers(a, 1, "u8")),
    "negative zero": (pa.float32(), lambda a: 1 << 31 in numbers(a, 1, "u4")),
    "greatest decimal": (pa.decimal32(1), lambda a: 9 in numbers(a, 1, "i4")),
    "text before the first": (pa.string(), lambda a: numbers(a, 1, "i4")[0] > 0 and not a.offset),
    "text after the last": (pa.string(), lambda a: a.buffers()[2].size > numbers(a, 1, "i4", 1)[-1]),
    "empty text": (pa.string(), lambda a: "" in a.to_pylist()),
    "text beyond ASCII": (pa.string(), lambda a: any(not text.isascii() for text in a.to_pylist() if text)),
    "bytes that are no text": (pa.binary(), lambda a: b"\xff" in a.buffers()[2].to_pybytes()),
    "views in place": (pa.string_view(), lambda a: not view_buffers(a)),
    "views into two buffers": (pa.string_view(), lambda a: len(view_buffers(a)) > 1),
    "a buffer no view refers to": (pa.binary_view(), lambda a: len(a.buffers()) - 2 > len(view_buffers(a))),
    "items before the first list": (LIST, lambda a: numbers(a, 1, "i4")[0] > 0 and not a.offset),
    "items after the last list": (LIST, lambda a: len(a.values) > numbers(a, 1, "i4", 1)[-1]),
    "null lists with items": (
        LIST,
        lambda a: a.null_count and np.diff(numbers(a, 1, "i4", 1))[~bits(a)].any(),
    ),
    "items with an offset": (LIST, lambda a: a.values.offset),
    "empty lists": (LIST, lambda a: [] in a.to_pylist()),
    "list views out of order": (VIEW, lambda a: spans(a) != sorted(spans(a))),
    "list views that overlap": (VIEW, lambda a: sum(size for _, size in spans(a)) > len(a.values)),
    "lists of one size over more items": (
        pa.list_(INT, 2),
        lambda a: len(a.values) > 2 * (a.offset + len(a)) and a.offset == 0,
    ),
    "structs cut": (STRUCT, lambda a: a.offset),
    "children cut": (STRUCT, lambda a: a.field(0).offset > a.offset),
    "null structs over values": (STRUCT, lambda a: a.null_count and a.field(0).null_count == 0),
    "structs over nulls": (STRUCT, lambda a: a.null_count == 0 and a.field(0).null_count),
    "maps of two entries": (MAP, lambda a: any(len(entries or []) > 1 for entries in a.to_pylist())),
    "sparse unions of both": (SPARSE, lambda a: len(set(numbers(a, 1, "i1").tolist())) == 2),
    "sparse unions cut": (SPARSE, lambda a: a.offset),
    "dense unions that share": (
        DENSE,
        lambda a: len({*zip(numbers(a, 1, "i1"), numbers(a, 2, "i4"), strict=True)}) < len(a),
    ),
    "dense unions that skip": (DENSE, lambda a: (numbers(a, 2, "i4") > np.arange(len(a)) + a.offset).any()),
    "nulls in a dictionary": (DICTIONARY, lambda a: a.dictionary.null_count),
    "values twice in a dictionary": (
        DICTIONARY,
        lambda a: len(set(a.dictionary.to_pylist())) < len(a.dictionary),
    ),
    "values nobody uses": (DICTIONARY, lambda a: {*range(len(a.dictionary))} - {*numbers(a, 1, "i1")}),
    "empty dictionary": (DICTIONARY, lambda a: not len(a.dictionary)),
    "dictionary cut": (DICTIONARY, lambda a: a.dictionary.offset),
    "cut within a run": (RUNS, lambda a: a.offset and a.offset not in a.run_ends.to_pylist()),
    "runs beyond the end": (RUNS, lambda a: a.run_ends[-1].as_py() > a.offset + len(a)),
    "runs that are null": (RUNS, lambda a: a.values.null_count),
    "extension cut": (pa.uuid(), lambda a: a.offset),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_generated(name: str) -> None:
    kind, condition = LAYOUTS[name]
    assert_found(partial(arrays_generated, kind), condition)


CHUNKED: dict[str, Callable[[pa.ChunkedArray], bool]] = {
    "no chunks": lambda value: value.num_chunks == 0,
    "an empty chunk": lambda value: len(value) > 0 and any(not len(chunk) for chunk in value.chunks),
    "several": lambda value: sum(len(chunk) > 0 for chunk in value.chunks) > 2,
}


@pytest.mark.parametrize("name", CHUNKED)
def test_every_way_to_cut_is_generated(name: str) -> None:
    assert_found(partial(chunked_generated, INT), CHUNKED[name])


def test_dictionaries_differ_between_chunks() -> None:
    assert_found(
        partial(chunked_generated, DICTIONARY),
        lambda value: value.num_chunks > 1 and value.chunk(0).dictionary != value.chunk(1).dictionary,
    )


TABLES: dict[str, Callable[[pa.Table], bool]] = {
    "no columns and no rows": lambda table: table.num_columns == 0 and table.num_rows == 0,
    "no columns but rows": lambda table: table.num_columns == 0 and table.num_rows > 0,
    "no rows": lambda table: table.num_columns > 0 and table.num_rows == 0,
    "equal names": lambda table: len(set(table.column_names)) < table.num_columns,
    "metadata": lambda table: bool(table.schema.metadata),
    "columns cut differently": lambda table: len({column.num_chunks for column in table.columns}) > 1,
    "required columns": lambda table: any(not field.nullable for field in table.schema),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table_is_generated(name: str) -> None:
    assert_found(tables_generated, TABLES[name])


@given(arrays(pa.struct([pa.field("a", pa.int8(), nullable=False)]), 5, nullable=False))
def test_required_values_are_never_null(array: pa.Array) -> None:
    assert array.null_count == array.field(0).null_count == 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_tables_are_sound(table: pa.Table) -> None:
    table.validate(full=True)
    assert {len(column) for column in table.columns} <= {table.num_rows}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record_batches())
def test_batches_are_sound(batch: pa.RecordBatch) -> None:
    batch.validate(full=True)
    assert batch.num_columns


def test_examples_shrink_to_little() -> None:
    table = find(tables(), lambda table: table.num_columns > 0 and table.num_rows > 0, settings=SHRINK)
    assert (table.num_columns, table.num_rows, table.schema.types) == (1, 1, [pa.int8()])
    array = find(any_arrays(), lambda array: pa.types.is_list(array.type) and len(array) > 1, settings=SHRINK)
    assert (len(array), len(array.values), array.offset, array.null_count) == (2, 0, 0, 0)


# NumPy

DTYPES: dict[str, Callable[[np.dtype[Any]], bool]] = {
    **{f"kind {kind}": lambda dtype, kind=kind: dtype.kind == kind for kind in "biufcSUVmM"},
    "half": lambda dtype: dtype.char == "e",
    "extended": lambda dtype: dtype.char == "g",
    "extended complex": lambda dtype: dtype.char == "G",
    "big-endian": lambda dtype: dtype.byteorder == ">",
    "structure": lambda dtype: dtype.names is not None,
    "nested structure": lambda dtype: any(dtype[name].names for name in dtype.names or ()),
    "aligned structure": lambda dtype: dtype.isalignedstruct,
    "subarray": lambda dtype: any(dtype[name].shape for name in dtype.names or ()),
}


@pytest.mark.parametrize("name", DTYPES)
def test_every_kind_of_dtype_is_generated(name: str) -> None:
    assert_found(dtypes_generated, DTYPES[name])


ARRAYS: dict[str, Callable[[np.ndarray[Any, Any]], bool]] = {
    "no dimensions": lambda a: a.ndim == 0,
    "no elements": lambda a: a.size == 0,
    "four dimensions": lambda a: a.ndim == 4 and a.size > 0,
    "Fortran order": lambda a: a.flags.f_contiguous and not a.flags.c_contiguous,
    "neither order": lambda a: not a.flags.f_contiguous and not a.flags.c_contiguous,
    "negative strides": lambda a: a.size > 1 and any(stride < 0 for stride in a.strides),
    "not a time": lambda a: bool(np.isnat(a).any()),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_order_is_generated(name: str) -> None:
    assert_found(numpy_generated, ARRAYS[name])


@pytest.mark.parametrize("unit", nps.TIME_UNITS)
def test_every_unit_is_generated(unit: str) -> None:
    assert_found(dtypes_generated, lambda dtype: dtype.kind == "M" and f"[{unit}]" in dtype.str)


def test_numpy_examples_shrink_to_little() -> None:
    array = find(nps.arrays(), lambda array: array.size > 0 and array.dtype.kind == "i", settings=SHRINK)
    assert (array.ndim, array.item()) == (0, 0)
