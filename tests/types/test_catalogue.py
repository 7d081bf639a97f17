"""The catalogues hold what they claim: every type, every parameter that has few values, sound values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.testing.types.arrow import (
    CATALOGUE,
    INEXPRESSIBLE,
    LOOKALIKES,
    SAMPLES,
    children,
    unregistered,
)
from flightstore.testing.types.arrow_types import NULLS, VALUES
from flightstore.testing.types.equality import assert_same
from flightstore.testing.types.numpy import CATALOGUE as ARRAYS
from flightstore.testing.types.suite import buffers_of

NOT_MADE_BY_PYARROW = {pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME}
TYPE_IDS = {
    name: code
    for name, code in vars(pa.lib).items()
    if name.startswith("Type_") and code not in NOT_MADE_BY_PYARROW
}
TYPES = {name: sample().type for name, sample in SAMPLES.items()}
UNITS = ("s", "ms", "us", "ns")
INTEGERS = [pa.type_for_alias(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("name", TYPE_IDS)
def test_every_type_has_a_sample(name: str) -> None:
    assert any(kind.id == TYPE_IDS[name] for kind in TYPES.values())


def test_every_extension_class_has_a_sample() -> None:
    """Those that Arrow brings itself, and one of a third party."""
    classes = {kind for kind in vars(pa).values() if isinstance(kind, type)}
    wanted = {kind for kind in classes if issubclass(kind, pa.BaseExtensionType)}
    wanted -= {pa.BaseExtensionType, pa.ExtensionType, pa.UnknownExtensionType}
    found = {type(kind) for kind in TYPES.values()}
    assert wanted <= found
    assert any(issubclass(kind, pa.ExtensionType) for kind in found)


def test_every_parameter_of_few_values_has_a_sample() -> None:
    zones = (None, "UTC", "Europe/Berlin", "+05:30")
    wanted = {pa.timestamp(unit, zone) for unit in UNITS for zone in zones}
    wanted |= {pa.duration(unit) for unit in UNITS}
    wanted |= {pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")}
    wanted |= {pa.dictionary(index, pa.string()) for index in INTEGERS}
    wanted |= {pa.run_end_encoded(ends, pa.string()) for ends in (pa.int16(), pa.int32(), pa.int64())}
    assert wanted <= {*TYPES.values()}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_null_where_they_say(name: str) -> None:
    sample = SAMPLES[name]()
    assert len(sample) == 8
    if TYPES[name] == pa.null() or name == "dictionary of null":
        return
    valid = [bool(flag) for flag in valid_rows(sample)]
    assert valid[VALUES] == [True] * 4
    assert valid[NULLS] == [False] * 2
    assert not valid[0]
    assert valid[7]


def valid_rows(array: pa.Array) -> Iterator[bool]:
    """Whether each row is a value; far dates have no Python value but are one."""
    for scalar in array:
        try:
            yield scalar.as_py() is not None
        except (OverflowError, ValueError):
            yield True


@pytest.mark.parametrize("name", CATALOGUE)
def test_entries_are_sound_and_the_same_each_time(name: str) -> None:
    first, second = CATALOGUE[name](), CATALOGUE[name]()
    first.validate(full=True)
    assert first is not second
    assert_same(first, second)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_the_same_each_time(name: str) -> None:
    assert_same(ARRAYS[name](), ARRAYS[name]())


def test_every_sample_comes_within_every_nesting() -> None:
    nestings = {
        "large_list_view", "large_list", "list_view", "list", "fixed_size_list", "struct", "two structs",
        "map of values", "map of keys", "sparse_union", "dense_union", "run_end_encoded", "dictionary",
        "extension",
    }  # fmt: skip
    for name, kind in TYPES.items():
        columns = set(CATALOGUE[f"{name}: nested"]().column_names)
        missing = nestings - columns
        assert missing <= {"dictionary", "extension", "map of keys"}
        assert ("map of keys" in missing) == pa.types.is_null(kind)
        is_extension = isinstance(kind, pa.BaseExtensionType)
        assert ("extension" in missing) == is_extension
        assert ("dictionary" in missing) == (is_extension or pa.types.is_dictionary(kind))


def test_layouts_are_what_their_names_say() -> None:
    """Those that could get lost when they are made."""

    def made(name: str) -> Any:
        return CATALOGUE[f"layout: {name}, as an array"]()

    assert made("bitmap without nulls").buffers()[0] is not None
    assert made("booleans from bit 3").offset == 3
    assert made("null rows hold numbers").buffers()[1].to_pybytes()[2:4] == b"\xff\xff"
    assert made("views into three buffers one of them unused").buffers()[3].size == 0
    assert made("list views out of order that overlap").offsets.to_pylist() == [3, 0, 1, 0, 5]
    assert len(made("lists that do not use all items").values) == 9
    assert made("structs cut below a cut bitmap").field(0).offset == 3
    assert len(made("dictionaries with values that nobody uses").dictionary) == 200
    assert made("runs beyond the end").run_ends.to_pylist()[-1] > len(made("runs beyond the end"))
    assert made("buffers at odd addresses").buffers()[1].address % 2


def test_tables_are_what_their_names_say() -> None:
    def made(name: str) -> Any:
        return CATALOGUE[f"table: {name}"]()

    assert [made(f"no columns but {what}").num_rows for what in ("three rows", "metadata")] == [3, 3]
    assert made("no columns but rows in two batches").num_rows == 7
    assert made("no batches").column(0).num_chunks == 0
    assert made("two hundred chunks").column(0).num_chunks == 200
    assert made("columns of one name").column_names == ["a"] * 3
    grown = made("dictionaries that grow").column(0)
    assert [len(chunk.dictionary) for chunk in grown.chunks] == [1, 2, 3]
    assert not made("required fields").field(0).nullable
    assert made("binary metadata").field(0).metadata[b"\xff\0"] == b"\0\xfe"
    registered, plain = unregistered()
    assert isinstance(registered.schema.field(0).type, pa.ExtensionType)
    assert plain.schema.field(0).type == pa.int8()


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_arrow_cannot_say_what_is_listed_as_such(name: str) -> None:
    """When a new Arrow can, the entry belongs to the catalogue."""
    table = INEXPRESSIBLE[name]()
    table.validate(full=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    try:
        schema = pa.ipc.open_stream(sink.getvalue()).read_all().schema
    except (pa.ArrowException, OSError):
        return
    assert schema != table.schema


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_differ(name: str) -> None:
    tables = LOOKALIKES[name]()
    for table, other in itertools.combinations(tables[:4], 2):
        with pytest.raises(AssertionError, match="column 0 'x'"):
            assert_same(table, other)
    assert {table.column(0).num_chunks for table in tables} == {1, 2}


def test_all_memory_is_found() -> None:
    """Below lists, dictionaries and extensions, too."""
    array = CATALOGUE["layout: dictionaries within lists cut, as an array"]()
    addresses = {address for _, address in buffers_of(pa.table({"x": array}))}
    inner = array.values
    wanted = [array.buffers()[1], inner.indices.buffers()[1], *inner.dictionary.buffers()[1:]]
    assert {buffer.address for buffer in wanted} <= addresses
    assert [child.type for child in children(array)] == [inner.type]


NUMPY_CODES = "?bBhHiIlLqQefdgFDGSUVMmO"


def test_every_dtype_is_there() -> None:
    arrays = [make() for make in ARRAYS.values()]
    assert {array.dtype.char for array in arrays} >= set(NUMPY_CODES)
    assert {array.dtype.byteorder for array in arrays} >= {"=", ">", "|"}
    units = {np.datetime_data(array.dtype) for array in arrays if array.dtype.kind in "mM"}
    assert {unit for unit, _ in units} >= {
        "Y",
        "M",
        "W",
        "D",
        "h",
        "m",
        "s",
        "ms",
        "us",
        "ns",
        "ps",
        "fs",
        "as",
    }
    assert any(array.dtype.isalignedstruct for array in arrays)
    assert any(array.dtype.kind == "T" for array in arrays) == hasattr(np.dtypes, "StringDType")


def test_every_order_is_there() -> None:
    flags = {
        (array.flags.c_contiguous, array.flags.f_contiguous)
        for array in (make() for make in ARRAYS.values())
        if array.size > 1
    }
    assert flags == set(itertools.product((True, False), repeat=2))
    assert any(stride < 0 for make in ARRAYS.values() for stride in make().strides)
    assert any(not make().flags.aligned for make in ARRAYS.values())
    assert {make().ndim for make in ARRAYS.values()} >= {0, 1, 2, 3, 32}
