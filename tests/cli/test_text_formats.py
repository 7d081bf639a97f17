"""CSV, TSV and JSON: types from the whole file, what is missing, long lines, every shape of JSON."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

import flightstore
from flightstore.cli import formats, readers

from .conftest import Run
from .samples import read, round_trip, written


def test_csv_types_come_from_the_whole_file() -> None:
    rows = "\n".join(str(number) for number in range(2_000_000))
    text = f"x\n{rows}\n0.5\n".encode()
    assert len(text) > 8 << 20, "the decimal point must lie beyond the first block"
    assert read(text, "csv").schema.field("x").type == pa.float64()


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "json"])
def test_a_line_longer_than_a_block(file_format: str) -> None:
    long = "x" * (20 << 20)
    texts = {"csv": f'a,b\n1,"{long}"\n', "jsonl": f'{{"a": 1, "b": "{long}"}}\n'}
    texts["json"] = f"[{texts['jsonl']}]"
    assert read(texts[file_format].encode(), file_format)["b"].to_pylist() == [long]


def test_csv_values_of_many_lines_across_blocks() -> None:
    value = pa.table(
        {"n": list(range(300_000)), "text": [f'line of {i}\n"and",\n\nmore' for i in range(300_000)]}
    )
    content = written(value, "csv")
    assert len(content) > 8 << 20, "some value must lie across two blocks"
    assert read(content, "csv").equals(value)


def test_ragged_csv_says_where() -> None:
    with pytest.raises(readers.FileUnreadable, match="Expected 2 columns, got 3"):
        read(b"a,b\n1,2\n1,2,3\n", "csv")


@pytest.mark.parametrize("file_format", ["csv", "tsv", "csv.xz"])
def test_missing_values_of_a_single_column_are_blank_lines(file_format: str) -> None:
    value = pa.table({"only": [None, 1, None, None, 2, None]})
    assert round_trip(value, file_format).equals(value)


def test_blank_lines_between_several_columns_are_nothing() -> None:
    assert read(b"a,b\n\n1,2\n\n", "csv").to_pylist() == [{"a": 1, "b": 2}]


def test_csv_and_tsv_break_at_their_own_delimiter(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "it.tsv"
    path.write_text("a,b\tc\n1,5\tNA\n")
    assert run("put", str(path), "--null", "NA").code == 0
    assert store.get("it").to_arrow().to_pydict() == {"a,b": ["1,5"], "c": [None]}


def test_csv_in_utf_16() -> None:
    text = '"größe","n"\n"名前",1\n"ü",2\n'
    for encoding in ("utf-16", "utf-8-sig"):
        assert read(text.encode(encoding), "csv").to_pydict() == {"größe": ["名前", "ü"], "n": [1, 2]}


@pytest.mark.parametrize("packing", [one for one in formats.PACKINGS if one != "br"])
@pytest.mark.parametrize("file_format", ["csv", "tsv", "json", "jsonl"])
def test_packed_text_is_not_taken_for_plain_text(file_format: str, packing: str) -> None:
    content = written(pa.table({"x": [1]}), f"{file_format}.{packing}")
    with pytest.raises(readers.FileUnreadable, match=f"its format is {file_format}.{packing}"):
        read(content, file_format)


def test_json_in_all_its_shapes() -> None:
    rows = [{"a": 1, "b": {"c": ["x", "ü"]}}, {"a": None, "b": None}]
    shapes = [
        json.dumps(rows),
        json.dumps(rows, indent=4, ensure_ascii=False),
        "\ufeff  \n" + json.dumps(rows),
        "\n".join(json.dumps(row) for row in rows),
        "\n".join(json.dumps(row, indent=2) for row in rows),
    ]
    for text in shapes:
        assert read(text.encode(), "json").to_pylist() == rows, text
    assert read(b"[]", "json").num_rows == 0
    assert read(json.dumps(rows[0]).encode(), "json").to_pylist() == rows[:1], "one record"


def test_a_column_that_only_later_records_have() -> None:
    for text in (b'[{"a": 1}, {"a": 2, "b": 3}]', b'{"a": 1}\n{"a": 2, "b": 3}\n'):
        assert read(text, "json").to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": 3}]


@pytest.mark.parametrize("text", [b"[1, 2]", b'"text"', b"[[1], [2]]", b'[{"a": 1}', b'[{"a": 1}] x', b"  "])
def test_json_that_is_no_table(text: bytes) -> None:
    with pytest.raises(readers.FileUnreadable, match=r"it cannot be read as json: ."):
        read(text, "json")


def test_json_is_valid_json() -> None:
    value = pa.table({"f": [1.5, float("nan"), None], "s": ["a\nb", "ü", None]})
    assert json.loads(written(value, "json")) == [
        {"f": 1.5, "s": "a\nb"},
        {"f": None, "s": "ü"},
        {"f": None, "s": None},
    ]
    assert json.loads(written(value.slice(0, 0), "json")) == []
    many = pa.table({"x": list(range(200_000))})
    assert json.loads(written(many, "json")) == many.to_pylist(), "over several batches"


def test_json_keeps_nanoseconds_and_decimals_at_any_depth() -> None:
    moment = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    deep = pa.array([[{"t": 1_700_000_000_123_456_789}]], pa.list_(pa.struct([("t", pa.timestamp("ns"))])))
    value = pa.table({"t": moment, "d": pa.array([Decimal("1.10")]), "deep": deep})
    text = "2023-11-14 22:13:20.123456789"
    expected = f'{{"t":"{text}","d":"1.10","deep":[{{"t":"{text}"}}]}}\n'
    assert written(value, "jsonl") == expected.encode()
