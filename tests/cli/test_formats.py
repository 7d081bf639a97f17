"""File formats by themselves: what is written is read back, and what is broken says so."""

from __future__ import annotations

import gzip
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from flightstore.cli import formats, readers, writers
from flightstore.errors import InvalidArgument


def ignore(_count: int) -> None:
    """An Advance for whom progress does not matter."""


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 2, 2**53 + 1], pa.int64()),
            "price": pa.array([1.5, None, -0.25]),
            "name": pa.array(["plain", 'with "quotes", commas\nand lines', None]),
            "day": pa.array([date(2024, 2, 29), None, date(1969, 12, 31)]),
            "open": pa.array([True, False, None]),
        }
    )


def round_trip(value: pa.Table, file_format: str) -> pa.Table:
    file = io.BytesIO()
    writers.write_table(value, file, file_format, ignore)
    return readers.read_table(io.BytesIO(file.getvalue()), file_format, "it", ignore)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "csv.gz", "arrow", "arrows"])
def test_round_trip(file_format: str) -> None:
    assert round_trip(table(), file_format).equals(table())


def test_round_trip_of_json_lines() -> None:
    # JSON has no dates: they come back as text, or as timestamps where Arrow recognises them.
    plain = table().drop_columns(["day"])
    assert round_trip(plain, "jsonl").equals(plain)


@pytest.mark.parametrize("file_format", ["parquet", "arrow", "arrows"])
def test_round_trip_of_types_that_text_cannot_hold(file_format: str) -> None:
    value = pa.table(
        {
            "list": pa.array([[1, 2], None, []]),
            "struct": pa.array([{"a": 1}, None, {"a": 2}]),
            "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
            "decimal": pa.array([Decimal("1.20"), None, Decimal("-3.00")]),
            "moment": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None, None], pa.timestamp("ns", tz="UTC")),
        }
    )
    assert round_trip(value, file_format).equals(value)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "arrow", "arrows"])
def test_round_trip_without_rows(file_format: str) -> None:
    empty = table().slice(0, 0)
    back = round_trip(empty, file_format)
    assert back.num_rows == 0
    assert back.column_names == empty.column_names


def test_arrow_chunks_with_different_dictionaries() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c"]).dictionary_encode()]
    value = pa.table({"d": pa.chunked_array(chunks)})
    assert round_trip(value, "arrow")["d"].cast(pa.string()).to_pylist() == ["a", "b", "c"]


def test_either_arrow_format_is_told_by_its_content() -> None:
    for written in ("arrow", "arrows"):
        file = io.BytesIO()
        sink = pa.PythonFile(file, mode="w")
        make = pa.ipc.new_file if written == "arrow" else pa.ipc.new_stream
        with make(sink, table().schema) as writer:
            writer.write_table(table())
        for named in ("arrow", "arrows"):
            assert readers.read_table(io.BytesIO(file.getvalue()), named, "it", ignore).equals(table())


def test_csv_types_come_from_the_whole_file() -> None:
    rows = "\n".join(str(number) for number in range(2_000_000))
    text = f"x\n{rows}\n0.5\n".encode()
    assert len(text) > 8 << 20, "the decimal point must lie beyond the first block"
    back = readers.read_table(io.BytesIO(text), "csv", "it", ignore)
    assert back.schema.field("x").type == pa.float64()


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_a_line_longer_than_a_block(file_format: str) -> None:
    long = "x" * (20 << 20)
    text = f'a,b\n1,"{long}"\n' if file_format == "csv" else f'{{"a": 1, "b": "{long}"}}\n'
    back = readers.read_table(io.BytesIO(text.encode()), file_format, "it", ignore)
    assert back["b"].to_pylist() == [long]


@pytest.mark.parametrize("file_format", ["parquet", "csv.gz", "arrow", "arrows", "jsonl"])
def test_what_is_not_in_the_format_says_so(file_format: str) -> None:
    with pytest.raises(readers.FileUnreadable, match=f"it cannot be read as {file_format}") as caught:
        readers.read_table(io.BytesIO(b"\x00this is nothing of the kind\n"), file_format, "it", ignore)
    assert "--raw" in caught.value.hint


def test_ragged_csv_says_where() -> None:
    with pytest.raises(readers.FileUnreadable, match="Expected 2 columns, got 3"):
        readers.read_table(io.BytesIO(b"a,b\n1,2\n1,2,3\n"), "csv", "it", ignore)


@pytest.mark.parametrize("file_format", ["parquet", "arrow", "arrows", "csv.gz"])
def test_a_truncated_file_is_not_read_in_part(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    with path.open("wb") as file:
        writers.write_table(pa.table({"x": list(range(100_000))}), file, file_format, ignore)
    content = path.read_bytes()
    with pytest.raises(readers.FileUnreadable):
        readers.read_table(io.BytesIO(content[: len(content) // 2]), file_format, "it", ignore)


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "arrow", "arrows", "csv.gz"])
def test_reading_reports_all_bytes(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        writers.write_table(pa.table({"x": list(range(300_000))}), file, file_format, ignore)
    seen: list[int] = []
    with path.open("rb") as file:
        readers.read_table(file, file_format, "it", seen.append)
    assert len(seen) > 1
    assert sum(seen) == pytest.approx(path.stat().st_size, rel=0.05)


def test_reading_parquet_reports_each_row_group(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"x": list(range(100_000))}), path, row_group_size=10_000)
    seen: list[int] = []
    with path.open("rb") as file:
        readers.read_table(file, "parquet", "it", seen.append)
    assert len(seen) == 10
    assert 0.5 * path.stat().st_size < sum(seen) <= path.stat().st_size


@pytest.mark.parametrize("file_format", ["csv", "csv.gz"])
def test_csv_cannot_hold_nested_columns(file_format: str) -> None:
    with pytest.raises(InvalidArgument, match="column 'deep'") as caught:
        round_trip(pa.table({"deep": [[1]]}), file_format)
    assert "--format" in caught.value.hint


def test_csv_holds_dictionaries_as_values() -> None:
    value = pa.table({"d": pa.array(["x", "y", "x"]).dictionary_encode()})
    assert round_trip(value, "csv")["d"].to_pylist() == ["x", "y", "x"]


def test_json_keeps_nanoseconds_and_decimals() -> None:
    moment = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    value = pa.table({"t": moment, "d": pa.array([Decimal("1.10")])})
    file = io.BytesIO()
    writers.write_table(value, file, "jsonl", ignore)
    assert file.getvalue() == b'{"t":"2023-11-14 22:13:20.123456789","d":"1.10"}\n'


def test_json_cannot_hold_two_columns_of_one_name() -> None:
    value = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(InvalidArgument, match="two columns of one name"):
        round_trip(value, "jsonl")


@pytest.mark.parametrize(
    ("path", "file_format", "stem"),
    [
        ("a/orders.parquet", "parquet", "orders"),
        ("ORDERS.CSV", "csv", "ORDERS"),
        ("orders.csv.gz", "csv.gz", "orders"),
        ("orders.2024.feather", "arrow", "orders.2024"),
        ("x.arrows", "arrows", "x"),
        ("x.ndjson", "jsonl", "x"),
        ("x.npy", "npy", "x"),
        ("x.tar.gz", None, "x.tar"),
        ("README", None, "README"),
        (".csv", "csv", ".csv"),
    ],
)
def test_format_and_name_by_extension(path: str, file_format: str | None, stem: str) -> None:
    assert formats.detect_format(path) == file_format
    assert formats.stem(path) == stem


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"before")

    def interrupted() -> None:
        with writers.atomic_file(str(target)) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"before"
    with writers.atomic_file(str(target)) as file:
        file.write(b"whole")
    assert target.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_gzip_output_is_one_stream_for_one_content() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        writers.write_table(table(), file, "csv.gz", ignore)
    assert first.getvalue() == second.getvalue()
    assert gzip.decompress(first.getvalue()).startswith(b'"id","price"')
