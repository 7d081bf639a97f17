"""What polars cannot hold: named before polars is called, or converted with all its values.

Each test here also looks at what polars' own machinery prints: a panic would be told on the error output.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flightstore as fs
from flightstore.connectors.polars.resolving import fit, frame_of
from flightstore.testing.types.strategies import tables

from .arrow_cases import leaves, nestings

LEAVES = leaves()


@pytest.fixture(autouse=True)
def no_panic(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert "panicked" not in capfd.readouterr().err


def to_polars(store: fs.Store, column: Any, **options: Any) -> pl.Series:
    table = column if isinstance(column, pa.Table) else pa.table({"c": column})
    frame = store.get(store.put(table)).to_polars(**options)  # type: ignore[attr-defined]
    assert isinstance(frame, pl.DataFrame)
    return frame.to_series()


def is_refused(kind: pa.DataType) -> bool:
    """Whether polars has no equal of a type, or of one in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_refused(kind.storage_type)
    types = pa.types
    if types.is_dictionary(kind):
        return is_refused(kind.value_type)
    if types.is_timestamp(kind):
        return kind.tz == "+05:30"
    if types.is_decimal256(kind) or types.is_run_end_encoded(kind) or types.is_union(kind):
        return True
    if types.is_list_view(kind) or types.is_large_list_view(kind) or types.is_interval(kind):
        return True
    return any(is_refused(kind.field(i).type) for i in range(kind.num_fields))


@pytest.mark.req("TYP-3")
@pytest.mark.parametrize("name", [name for name in LEAVES if is_refused(LEAVES[name].type)])
def test_the_refusal_names_column_type_and_remedy(store: fs.Store, name: str) -> None:
    with pytest.raises(fs.NotConvertible, match="'c'") as refused:
        to_polars(store, LEAVES[name])
    assert str(LEAVES[name].type) in refused.value.message
    assert "strict=False" in refused.value.hint
    with pytest.raises(fs.NotConvertible, match="'c'"):
        to_polars(store, LEAVES[name].slice(0, 0))
    obj = store.get(store.put(pa.table({"c": LEAVES[name]})))
    with pytest.raises(fs.NotConvertible, match="'c'"):
        obj.conversion_report("polars")
    changed = obj.conversion_report("polars", strict=False).columns[0]
    assert str(LEAVES[name].type) in changed.reason


def frame(table: pa.Table, strict: bool) -> pl.DataFrame:
    """The conversion of any Arrow memory, at any offset, which a store never holds."""
    converted = frame_of(pl, table, fit(pl, table, strict))
    assert isinstance(converted, pl.DataFrame)
    return converted


@pytest.mark.req("TYP-3")
@pytest.mark.parametrize("outer", ["", *nestings(pa.array([1, 2, 3]))])
def test_every_type_in_every_other(store: fs.Store, outer: str) -> None:
    for name in LEAVES:
        array = nestings(LEAVES[name]).get(outer) if outer else LEAVES[name]
        if array is None:
            continue
        for part in (array, array.slice(1), array.slice(0, 2), array.slice(1, 0)):
            table = pa.table({"c": part})
            if is_refused(array.type):
                with pytest.raises(fs.NotConvertible, match="'c"):
                    frame(table, strict=True)
            else:
                assert_same_values(frame(table, strict=True)["c"], part, name)
            assert_same_values(frame(table, strict=False)["c"], part, name)
        if not is_refused_by_the_store(outer, LEAVES[name]):
            assert_same_values(to_polars(store, array, strict=False), array, name)


def is_refused_by_the_store(outer: str, leaf: pa.Array) -> bool:
    """Whether Arrow's stream format has no words for it."""
    return (outer == "dictionary" and (is_dictionary(leaf) or is_extension(leaf))) or (
        outer == "extension" and is_extension(leaf)
    )


def is_dictionary(array: pa.Array) -> bool:
    return bool(pa.types.is_dictionary(array.type))


def is_extension(array: pa.Array) -> bool:
    return isinstance(array.type, pa.BaseExtensionType)


def assert_same_values(got: pl.Series, expected: pa.Array, what: str) -> None:
    """What polars holds is what Arrow holds, as far as Python's types can tell."""
    assert len(got) == len(expected), what
    for one, other in zip(got.to_list(), expected.to_pylist(), strict=True):
        assert same(one, other), f"{what}: {one!r} instead of {other!r}"


def same(got: Any, expected: Any) -> bool:
    """Whether two Python values say the same, given what polars' types are called in Python."""
    if isinstance(got, dict) and "type_code" in got:
        members = [value for name, value in got.items() if name != "type_code"]
        return any(same(value, expected) for value in members)
    if isinstance(got, dict) and isinstance(expected, list):
        return len(got) == len(expected) and all(same(got[key], value) for key, value in expected)
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[key], expected[key]) for key in got)
    if isinstance(got, list) and isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, pa.MonthDayNano):
        return bool(list(got.values()) == list(expected))
    if isinstance(got, datetime.datetime) and not isinstance(expected, datetime.datetime):
        return got.date() == expected
    if isinstance(got, bytes) and not isinstance(expected, bytes):
        return bool(got == expected.bytes)
    if isinstance(got, str) and isinstance(expected, Decimal):
        return Decimal(got) == expected
    return bool(got == expected or (got != got and expected != expected))


@pytest.mark.req("TYP-3")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables(), strict=st.booleans(), cut=st.integers(0, 3))
def test_any_table_converts_or_is_refused_by_name(table: pa.Table, strict: bool, cut: int) -> None:
    table = table.slice(cut)
    refusal = ""
    try:
        got = frame(table, strict)
    except fs.NotConvertible as refused:
        refusal = refused.message
    if refusal:
        assert "polars refuses" not in refusal, "it was called in vain"
        assert any(repr(name)[:-1] in refusal for name in table.column_names)
    else:
        assert got.shape == table.shape
        assert all(len(column) == table.num_rows for column in got.get_columns())


@pytest.mark.req("TYP-3")
def test_what_the_lenient_conversion_makes(store: fs.Store) -> None:
    made = {name: to_polars(store, LEAVES[name], strict=False) for name in LEAVES}
    union = pl.Struct({"type_code": pl.Int8, "n": pl.Int64, "t": pl.String})
    assert made["run ends"].dtype == pl.Float64
    assert made["list view"].dtype == made["large list view"].dtype == pl.List(pl.Int64)
    assert made["decimal256(20, 2)"].dtype == pl.Decimal(38, 2)
    assert made["decimal256, wide"].to_list() == ["1" + "0" * 50 + ".00", None, "-0.25"]
    assert made["offset zone"].dtype == pl.Datetime("us", "UTC")
    assert made["sparse union"].dtype == union
    assert [field.name for field in made["dense union"].dtype.fields] == ["type_code", "n", "n_2"]  # type: ignore[attr-defined]
    assert made["interval"].to_list()[0] == {"months": 1, "days": 2, "nanoseconds": 3}


@pytest.mark.req("TYP-3")
def test_what_polars_would_change_in_silence(store: fs.Store) -> None:
    for kind in (pa.timestamp("s"), pa.duration("s"), pa.time64("us")):
        beyond = pa.array([2**62]).view(kind)
        with pytest.raises(fs.NotConvertible, match="'c'"):
            to_polars(store, beyond)
        nested = pa.array([[2**62]]).cast(pa.list_(pa.int64()))
        nested = pa.ListArray.from_arrays(nested.offsets, nested.values.view(kind))
        with pytest.raises(fs.NotConvertible, match="'c'"):
            to_polars(store, nested)
    fields = [pa.field("a\0b", pa.int8()), pa.field("a\0c", pa.int8())]
    odd = pa.StructArray.from_arrays([pa.array([1], pa.int8())] * 2, fields=fields)
    with pytest.raises(fs.NotConvertible, match="NUL"):
        to_polars(store, odd)
    assert to_polars(store, odd, strict=False).to_list() == [{"a\u2400b": 1, "a\u2400c": 1}]
    named = pa.table([pa.array([1]), pa.array([2])], names=["a\0b", "a\0c"])
    assert store.get(store.put(named)).to_polars().to_dicts() == [{"a\0b": 1, "a\0c": 2}]  # type: ignore[attr-defined]


@pytest.mark.req("TYP-3")
def test_names_that_occur_twice(store: fs.Store) -> None:
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "a_2"])
    with pytest.raises(fs.NotConvertible, match="'a'"):
        to_polars(store, table)
    obj = store.get(store.put(table))
    renamed = obj.to_polars(strict=False)  # type: ignore[attr-defined]
    assert renamed.to_dict(as_series=False) == {"a": [1], "a_3": [2], "a_2": [3]}
    fields = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["f", "f"])
    with pytest.raises(fs.NotConvertible, match="'c'"):
        to_polars(store, fields)
    assert to_polars(store, fields, strict=False).to_list() == [{"f": 1, "f_2": 2}]


def with_metadata(metadata: dict[Any, Any], array: pa.Array, nested: bool = False) -> pa.Table:
    field = pa.field("f", array.type, metadata=metadata)
    if nested:
        array = pa.StructArray.from_arrays([array], fields=[field])
        field = pa.field("c", array.type)
    return pa.Table.from_arrays([array], schema=pa.schema([field.with_name("c")]))


@pytest.mark.req("TYP-3")
@pytest.mark.parametrize("nested", [False, True])
def test_metadata_that_says_something_else_than_the_data(store: fs.Store, nested: bool) -> None:
    text = pa.array(["x", "q", None]).dictionary_encode()
    damaged = [
        {"_PL_ENUM_VALUES2": "9;a"}, {"_PL_ENUM_VALUES2": "zzz"}, {"_PL_ENUM_VALUES2": "1;x1;x"},
        {"_PL_ENUM_VALUES": "garbage"}, {"_PL_CATEGORICAL2": "garbage"}, {"_PL_CATEGORICAL2": "1;a0;u64;"},
    ]  # fmt: skip
    for metadata in damaged:
        got = to_polars(store, with_metadata(metadata, text, nested))
        dtype = got.dtype.fields[0].dtype if nested else got.dtype  # type: ignore[attr-defined]
        assert dtype == pl.Categorical()
        obj = store.get(store.put(with_metadata(metadata, text, nested)))
        assert "damaged" in obj.conversion_report("polars").columns[0].reason
    other = with_metadata({"_PL_ENUM_VALUES2": "1;x1;y"}, text, nested)  # polars would make "q" null
    with pytest.raises(fs.NotConvertible, match="'c"):
        to_polars(store, other)
    expected = [{"f": value} for value in text.to_pylist()] if nested else text.to_pylist()
    assert to_polars(store, other, strict=False).to_list() == expected
    numbers = with_metadata(
        {"_PL_ENUM_VALUES2": "1;x", "flightstore.polars": "Int128"}, pa.array([1]), nested
    )
    assert to_polars(store, numbers).to_list() == ([{"f": 1}] if nested else [1])


@pytest.mark.req("TYP-3", "TYP-6")
@pytest.mark.parametrize("nested", [False, True])
def test_metadata_that_is_no_text(store: fs.Store, nested: bool) -> None:
    for metadata in ({b"\xff": b""}, {b"unit": b"\xff\xfe"}):
        table = with_metadata(metadata, pa.array(["x", None]), nested)
        expected = table.column(0).to_pylist()
        assert to_polars(store, table).to_list() == expected
        assert to_polars(store, table.replace_schema_metadata(metadata)).to_list() == expected
        obj = store.get(store.put(table))
        assert "metadata" in obj.conversion_report("polars").columns[0].reason
    listed = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), table.column(0).chunk(0))
    values = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), listed)
    assert to_polars(store, values).to_list() == [expected, expected]


class Tagged(pa.ExtensionType):
    """An extension type whose parameters are no text."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "tests.tagged")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"\xff\0"


@pytest.mark.req("TYP-3")
def test_an_extension_type_with_binary_parameters(store: fs.Store) -> None:
    array = pa.ExtensionArray.from_storage(Tagged(), pa.array([1, None]))
    for got in (frame(pa.table({"c": array}), strict=True)["c"], to_polars(store, array)):
        assert got.to_list() == [1, None]
        assert got.dtype == pl.Int64


@pytest.mark.req("TYP-3", "O-2")
@pytest.mark.parametrize("nested", [False, True])
def test_types_that_arrow_has_not_are_not_joined_with_others(store: fs.Store, nested: bool) -> None:
    """Int128 and UInt128 are the same bytes for Arrow."""
    arrow = {}
    for dtype in (pl.Int128, pl.UInt128):
        frame = pl.Series("n", [1, None], dtype=dtype).to_frame()
        store.put(frame.select(pl.struct("n").alias("s")) if nested else frame, f"{dtype}")
        arrow[dtype] = store.get(f"{dtype}").to_arrow()  # type: ignore[attr-defined]
        store.put(arrow[dtype], f"{dtype} as Arrow")
    told = r"'s' is struct<.*\(.n flightstore" if nested else r"'n' is .*\(flightstore"
    for kind in ("", " as Arrow"):
        with pytest.raises(fs.InvalidArgument, match=told + r".polars: Int128\) in the .*: UInt128\) in"):
            store.concat([f"Int128{kind}", f"UInt128{kind}"])
    if not nested:
        store.put(pa.table({"n": arrow[pl.Int128]["n"]}), "plain")
        with pytest.raises(fs.InvalidArgument, match=told + r".polars: Int128\) in .*binary\[16\] in"):
            store.concat(["Int128", "plain"])
    whole = store.concat(["Int128", "Int128 as Arrow"]).to_polars()  # type: ignore[attr-defined]
    assert (whole.unnest("s") if nested else whole)["n"].to_list() == [1, None, 1, None]


@pytest.mark.req("TYP-3", "O-2")
def test_bytes_are_never_joined_with_pickles(store: fs.Store) -> None:
    """They would be unpickled."""
    store.put(pl.DataFrame({"o": pl.Series([{1}], dtype=pl.Object)}), "pickles")
    store.put(pa.table({"o": pa.array([b"bytes"], pa.large_binary())}), "bytes")
    for order in (["pickles", "bytes"], ["bytes", "pickles"]):
        with pytest.raises(fs.InvalidArgument, match=r"'o' is large_binary.*flightstore.polars: Object"):
            store.concat(order)


@pytest.mark.req("TYP-3")
def test_enums_of_other_categories_joined(store: fs.Store) -> None:
    store.put(pl.DataFrame({"e": pl.Series(["a"], dtype=pl.Enum(["a"]))}), "a")
    store.put(pl.DataFrame({"e": pl.Series(["b"], dtype=pl.Enum(["b"]))}), "b")
    store.concat(["a", "b"], name="c")
    with pytest.raises(fs.NotConvertible, match="'e'"):
        store.get("c").value()
    got = store.get("c").to_polars(strict=False)  # type: ignore[attr-defined]
    assert got["e"].to_list() == ["a", "b"]
    assert got["e"].dtype == pl.Categorical()
