"""Which types each file format keeps, widens or refuses; a refusal names the column."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from flightstore.connectors.sources import conversion
from flightstore.errors import InvalidArgument

from .samples import PACKED, TABLES, exotic, round_trip, rows_of, table, written

TYPED = ["parquet", "orc", "avro", "arrow", "arrows", "xlsx"]
NESTED = ["parquet", "orc", "avro", "arrow", "arrows", "json", "jsonl"]


def nested() -> pa.Table:
    return pa.table(
        {
            "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
            "struct": pa.array([{"a": 1, "b": "ü"}, None, {"a": None, "b": ""}]),
            "deep": pa.array([[{"x": [1.5]}], [], None]),
        }
    )


@pytest.mark.parametrize("file_format", [*TABLES, *PACKED])
def test_values_nulls_and_texts(file_format: str) -> None:
    assert rows_of(round_trip(table(), file_format), file_format) == rows_of(table(), file_format)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "csv.gz", "tsv", "arrow", "arrows", "orc"])
def test_types_come_back(file_format: str) -> None:
    assert round_trip(table(), file_format).equals(table())


@pytest.mark.parametrize("file_format", NESTED)
def test_nested_values(file_format: str) -> None:
    assert round_trip(nested(), file_format).to_pylist() == nested().to_pylist()


@pytest.mark.parametrize("file_format", ["parquet", "arrow", "arrows"])
def test_types_that_text_cannot_hold(file_format: str) -> None:
    value = pa.table(
        {
            "list": pa.array([[1, 2], None, []]),
            "struct": pa.array([{"a": 1}, None, {"a": 2}]),
            "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
            "decimal": pa.array([Decimal("1.20"), None, Decimal("-3.00")]),
            "moment": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None, None], pa.timestamp("ns", tz="UTC")),
            "id": pa.array([b"0123456789abcdef", None, None], pa.uuid()),
            "view": pa.array(["x", None, "y"], pa.string_view()),
        }
    )
    assert round_trip(value, file_format).equals(value)


LISTS = {"list view", "large list view", "dates", "pair", "map"}
REFUSED = {
    "csv": LISTS | {"bytes view", "interval", "union"},
    "tsv": LISTS | {"bytes view", "interval", "union"},
    "json": {"union"},
    "jsonl": {"union"},
    "parquet": {"interval", "union"},
    "orc": {"clock", "span", "wide", "interval", "union"},
    "avro": {"clock", "span", "zoned", "wide", "map", "interval", "union"},
    "xlsx": LISTS | {"bytes view", "uuid", "clock", "span", "zoned", "interval", "union"},
    "arrow": set[str](),
    "arrows": set[str](),
}
"""Columns of `exotic` that a format has nothing for."""


@pytest.mark.parametrize("file_format", TABLES)
@pytest.mark.parametrize("name", exotic())
def test_every_type_is_kept_widened_or_refused_by_name(file_format: str, name: str) -> None:
    column = exotic()[name]
    value = pa.table({"fine": ["x", "y"], name: column})
    if name in REFUSED[file_format]:
        with pytest.raises(InvalidArgument, match=f"column {name!r}") as caught:
            written(value, file_format)
        assert "--format" in caught.value.hint
        return
    back = round_trip(value, file_format)
    assert back["fine"].to_pylist() == ["x", "y"]
    if file_format in ("arrow", "arrows"):
        assert back.equals(value)
    elif file_format in TYPED and name not in ("moment", "zoned", "uuid", "day64"):
        assert back[name].to_pylist() == [
            float(v) if file_format == "xlsx" and isinstance(v, Decimal) else v for v in column.to_pylist()
        ]
    else:
        assert back[name].null_count == column.null_count


def test_moments_in_orc_and_avro_are_the_same_moments() -> None:
    value = pa.table({"zoned": exotic()["zoned"], "plain": exotic()["moment"]})
    back = round_trip(value, "orc")
    assert back["zoned"].cast(pa.timestamp("us", "UTC")).to_pylist() == [
        datetime(2024, 1, 1, tzinfo=UTC),
        None,
    ]
    assert round_trip(value.select(["plain"]), "avro")["plain"].to_pylist() == [datetime(2024, 1, 1), None]


def test_what_a_format_would_round_is_refused() -> None:
    cases = [
        ("orc", pa.array([2**63], pa.uint64())),
        ("avro", pa.array([1], pa.timestamp("ns"))),
        ("xlsx", pa.array([2**53 + 1])),
        ("xlsx", pa.array([1], pa.timestamp("us"))),
        ("xlsx", pa.array(["x" * 32_768])),
    ]
    for file_format, column in cases:
        with pytest.raises(InvalidArgument, match="column 'it'"):
            written(pa.table({"it": column}), file_format)


@pytest.mark.parametrize("file_format", ["csv", "csv.gz", "tsv", "xlsx"])
def test_flat_formats_hold_no_nested_columns(file_format: str) -> None:
    with pytest.raises(InvalidArgument, match="column 'deep'") as caught:
        round_trip(pa.table({"deep": [[1]]}), file_format)
    assert "--format" in caught.value.hint


@pytest.mark.parametrize("file_format", ["json", "jsonl", "xlsx"])
def test_two_columns_of_one_name(file_format: str) -> None:
    value = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(InvalidArgument, match="two columns of one name"):
        written(value, file_format)


def test_arrow_chunks_with_different_dictionaries() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c"]).dictionary_encode()]
    value = pa.table({"d": pa.chunked_array(chunks)})
    assert round_trip(value, "arrow")["d"].cast(pa.string()).to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize("file_format", TABLES)
def test_many_chunks(file_format: str) -> None:
    value = pa.concat_tables([table()] * 3)
    assert rows_of(round_trip(value, file_format), file_format) == rows_of(value, file_format)


def test_every_rule_is_of_a_format() -> None:
    assert set(conversion.RULES) <= set(TABLES)
    assert set(TABLES) - set(conversion.RULES) == {"arrow", "arrows"}
