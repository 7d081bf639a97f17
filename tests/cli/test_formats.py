"""File formats: what is written is read back, what does not fit says so, what is broken is refused.

By themselves, and through the command over real files.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import warnings
import zipfile
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

import flightstore
from flightstore.cli import conversion, formats, readers, writers
from flightstore.errors import InvalidArgument, MissingExtra

from .conftest import Run

TABLES = [name for name, one in formats.FORMATS.items() if one.holds == "table" and one.writes]
PACKED = [
    f"{name}.{packing}" for name in TABLES if formats.FORMATS[name].packed for packing in formats.PACKINGS
]
TYPED = ["parquet", "orc", "avro", "arrow", "arrows", "xlsx"]
NESTED = ["parquet", "orc", "avro", "arrow", "arrows", "json", "jsonl"]


def ignore(_count: int) -> None:
    """An Advance for whom progress does not matter."""


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 2, 2**53 - 1], pa.int64()),
            "price": pa.array([1.5, None, -0.25]),
            "name": pa.array(["plain", 'with "quotes", commas,\ttabs\nand lines', None]),
            "größe 名": pa.array(["ünï", None, "名前"]),
            "day": pa.array([date(2024, 2, 29), None, date(1969, 12, 31)]),
            "open": pa.array([True, False, None]),
        }
    )


def nested() -> pa.Table:
    return pa.table(
        {
            "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
            "struct": pa.array([{"a": 1, "b": "ü"}, None, {"a": None, "b": ""}]),
            "deep": pa.array([[{"x": [1.5]}], [], None]),
        }
    )


def written(value: pa.Table, file_format: str) -> bytes:
    file = io.BytesIO()
    writers.write_table(value, file, file_format, ignore)
    return file.getvalue()


def read(content: bytes, file_format: str) -> pa.Table:
    return readers.read_table(io.BytesIO(content), file_format, "it", ignore)


def round_trip(value: pa.Table, file_format: str) -> pa.Table:
    return read(written(value, file_format), file_format)


def rows_of(value: pa.Table, file_format: str) -> list[dict[str, object]]:
    """The rows, as far as the format can tell them apart: JSON has no dates."""
    if file_format.partition(".")[0] in ("json", "jsonl"):
        value = value.drop_columns(["day"])
    return value.to_pylist()


# --- through the command, over real files ---


@pytest.mark.req("O-1")
@pytest.mark.parametrize("extension", [*formats.EXTENSIONS, *(f".{one}" for one in PACKED)])
def test_every_extension_makes_the_round_trip(
    run: Run, tmp_path: Path, store: flightstore.Store, extension: str
) -> None:
    found = formats.detect_format(f"x{extension}")
    assert found is not None
    if not formats.format_of(found).writes or formats.format_of(found).holds != "table":
        return  # ods, npy and npz have tests of their own
    store.put(table(), "orders")
    path = tmp_path / f"copy{extension}"
    wrote = run("get", "orders", "-o", str(path), "--json")
    assert wrote.code == 0, wrote.err
    assert (wrote.json["written"]["bytes"], wrote.json["written"]["format"]) == (path.stat().st_size, found)
    put = run("put", str(path), "--json")
    assert put.code == 0, put.err
    assert put.json["objects"][0]["format"] == found
    assert rows_of(store.get("copy").to_arrow(), found) == rows_of(table(), found)


@pytest.mark.req("O-1")
@pytest.mark.parametrize("file_format", [*TABLES, *PACKED])
def test_every_format_without_rows(
    run: Run, tmp_path: Path, store: flightstore.Store, file_format: str
) -> None:
    store.put(table().slice(0, 0), "empty")
    path = tmp_path / f"none.{file_format}"
    assert run("get", "empty", "-o", str(path)).code == 0
    done = run("put", str(path), "--json")
    assert done.code == 0, done.err
    back = store.get("none").to_arrow()
    assert back.num_rows == 0
    if not file_format.startswith("json"):
        assert back.column_names == table().column_names


@pytest.mark.parametrize("file_format", [name for name, one in formats.FORMATS.items() if one.streams])
def test_every_streaming_format_goes_through_a_pipe(
    run: Run, start, store: flightstore.Store, file_format: str
) -> None:  # type: ignore[no-untyped-def]
    values = {"table": table(), "tensor": np.arange(12.0).reshape(3, 4), "blob": b"\x00\xff" * 1000}
    kind = formats.FORMATS[file_format].holds
    store.put(values[kind], "it")
    with start("get", "it", "--format", file_format) as source:
        taker = start("put", "-", "--name", "back", "--format", file_format, stdin=source.stdout)
        _, err = taker.communicate(timeout=60)
    assert (source.returncode, taker.returncode) == (0, 0), err
    back = store.get("back")
    assert back.kind == kind
    if kind == "table":
        assert rows_of(back.to_arrow(), file_format) == rows_of(table(), file_format)
    elif kind == "tensor":
        np.testing.assert_array_equal(back.to_numpy(), values["tensor"])
    else:
        assert bytes(back.value()) == values["blob"]


@pytest.mark.parametrize("file_format", [name for name in formats.FORMATS if name != "raw"])
def test_wrong_contents_name_file_and_format(run: Run, tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"broken.{file_format}"
    contents = [b"\x00this is nothing of the kind\n", b"PK\x03\x04 neither is this", b"Obj\x01\x02"]
    for content in [*contents, b""] if file_format not in ("jsonl",) else contents:
        path.write_bytes(content)
        if file_format in ("csv", "tsv") and content:
            content += b"\nmuch,\ttoo,\tmuch\n"
            path.write_bytes(content)
        done = run("put", str(path), "--json")
        assert (done.code, done.error["error"]) == (1, "FileUnreadable"), content
        assert f"broken.{file_format} cannot be read as {file_format}" in done.error["message"]
        assert "--raw" in done.error["hint"]
    assert run("ls", "--json").json == {"objects": []}, "nothing was stored"


@pytest.mark.parametrize("file_format", PACKED)
def test_wrong_packing_and_cut_files(tmp_path: Path, file_format: str) -> None:
    whole = written(pa.table({"x": list(range(50_000))}), file_format)
    for content in (b"\x00this is nothing of the kind\n", whole[: len(whole) // 2]):
        with pytest.raises(readers.FileUnreadable, match=f"it cannot be read as {file_format}"):
            read(content, file_format)


@pytest.mark.parametrize("file_format", ["parquet", "orc", "avro", "arrow", "arrows", "xlsx", "json"])
def test_a_cut_file_is_not_read_in_part(file_format: str) -> None:
    content = written(pa.table({"x": list(range(50_000))}), file_format)
    with pytest.raises(readers.FileUnreadable):
        read(content[: len(content) // 2], file_format)


@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "x.joblib", "net.pt"])
def test_pickles_are_refused_with_the_reason(run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x80\x05N.")
    done = run("put", str(path), "--json")
    assert (done.code, done.error["error"]) == (2, "InvalidArgument")
    assert "run the code in it" in done.error["message"]
    assert run("put", str(path), "--raw").code == 0


# --- values ---


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


def exotic() -> dict[str, pa.Array]:
    """Columns that few formats hold as they are."""
    return {
        "u8": pa.array([255, None], pa.uint8()),
        "u32": pa.array([2**32 - 1, None], pa.uint32()),
        "half": pa.array([1.5, None], pa.float16()),
        "nulls": pa.nulls(2),
        "text view": pa.array(["ü", None], pa.string_view()),
        "bytes view": pa.array([b"\xff", None], pa.binary_view()),
        "list view": pa.array([["x", None], None], pa.list_view(pa.string())),
        "large list view": pa.array([[1], None], pa.large_list_view(pa.int8())),
        "runs": pa.RunEndEncodedArray.from_arrays([1, 2], ["a", "b"]),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "dates": pa.array([["x", None], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        "pair": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        "uuid": pa.array([b"0123456789abcdef", None], pa.uuid()),
        "day64": pa.array([date(2024, 1, 1), None], pa.date64()),
        "clock": pa.array([time(1, 2, 3), None], pa.time64("us")),
        "span": pa.array([timedelta(days=1), None], pa.duration("us")),
        "zoned": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "Europe/Berlin")),
        "moment": pa.array([datetime(2024, 1, 1), None], pa.timestamp("ns")),
        "decimal": pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
        "wide": pa.array([Decimal("1.25"), None], pa.decimal256(50, 2)),
        "small decimal": pa.array([Decimal("1.25"), None], pa.decimal32(5, 2)),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
        "interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        "union": pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])]),
    }


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


# --- text ---


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


# --- Arrow's and other binary formats ---


def test_either_arrow_format_is_told_by_its_content() -> None:
    for name in ("arrow", "arrows"):
        for named in ("arrow", "arrows"):
            assert read(written(table(), name), named).equals(table())


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_feather_files_of_other_programs(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "it.feather"
    with pa.ipc.new_file(
        path, table().schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as out:
        out.write_table(table())
    assert read(path.read_bytes(), "arrow").equals(table())


def test_the_first_version_of_feather(tmp_path: Path) -> None:
    path = tmp_path / "old.feather"
    plain = table().drop_columns(["day"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyarrow.feather.write_feather(plain, str(path), version=1)
    assert path.read_bytes()[:4] == b"FEA1"
    assert read(path.read_bytes(), "arrow").equals(plain)


def test_an_orc_file_of_many_stripes(tmp_path: Path) -> None:
    from pyarrow import orc

    path = tmp_path / "it.orc"
    value = pa.table({"x": np.arange(200_000), "s": [str(i) for i in range(200_000)]})
    orc.write_table(value, path, stripe_size=65_536)
    assert orc.ORCFile(path).nstripes > 1
    assert read(path.read_bytes(), "orc").equals(value)


ODS = """<?xml version="1.0" encoding="UTF-8"?>
<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" office:version="1.2">
<office:body><office:spreadsheet><table:table table:name="first">
<table:table-row><table:table-cell office:value-type="string"><text:p>n</text:p></table:table-cell>
<table:table-cell office:value-type="string"><text:p>größe</text:p></table:table-cell></table:table-row>
<table:table-row><table:table-cell office:value-type="float" office:value="1.5"/>
<table:table-cell office:value-type="string"><text:p>ü</text:p></table:table-cell></table:table-row>
<table:table-row><table:table-cell/>
<table:table-cell office:value-type="string"><text:p>名</text:p></table:table-cell></table:table-row>
</table:table></office:spreadsheet></office:body></office:document-content>"""


MANIFEST = """<?xml version="1.0" encoding="UTF-8"?>
<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">
<manifest:file-entry manifest:full-path="/"
 manifest:media-type="application/vnd.oasis.opendocument.spreadsheet"/>
</manifest:manifest>"""


def test_an_open_document_sheet(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "sheet.ods"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        packed.writestr("META-INF/manifest.xml", MANIFEST)
        packed.writestr("content.xml", ODS.replace("\n", ""))
    assert run("put", str(path)).code == 0
    assert store.get("sheet").to_arrow().to_pydict() == {"n": [1.5, None], "größe": ["ü", "名"]}
    refused = run("get", "sheet", "-o", str(tmp_path / "copy.ods"), "--json")
    assert (refused.code, refused.error["error"]) == (2, "InvalidArgument")


def test_a_sheet_does_not_take_what_looks_like_a_formula_or_a_number_for_one() -> None:
    value = pa.table(
        {"s": ["=1+1", "00123", "http://x.example/y", "TRUE", "2024-01-01"], "n": [1, 2, 3, 4, 5]}
    )
    assert round_trip(value, "xlsx").to_pydict() == value.to_pydict()


def test_a_sheet_has_its_limits() -> None:
    rows = pa.table({"x": pa.nulls(1_048_576, pa.int8())})
    with pytest.raises(InvalidArgument, match="1,048,575 rows"):
        written(rows, "xlsx")


def test_arrays_in_one_file(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, first=np.arange(6).reshape(2, 3), second=np.zeros(0))
    done = run("put", str(path), "--json")
    assert [entry["name"] for entry in done.json["objects"]] == ["weights/first", "weights/second"]
    np.testing.assert_array_equal(store.get("weights/first").to_numpy(), np.arange(6).reshape(2, 3))
    np.savez(path, evil=np.array([{"a": 1}], dtype=object))
    refused = run("put", str(path), "--json")
    assert (refused.code, refused.error["error"]) == (1, "FileUnreadable")


@pytest.mark.parametrize(
    ("library", "extra", "extension"),
    [
        ("polars", "polars", "avro"),
        ("polars", "excel", "xlsx"),
        ("fastexcel", "excel", "xlsx"),
        ("xlsxwriter", "excel", "xlsx"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    run: Run,
    tmp_path: Path,
    store: flightstore.Store,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    extra: str,
    extension: str,
) -> None:
    path = tmp_path / f"it.{extension}"
    path.write_bytes(written(table(), extension))
    store.put(table(), "orders")
    monkeypatch.setitem(sys.modules, library, None)  # as Python does it where an import has failed
    put, get = run("put", str(path), "--json"), run("get", "orders", "-o", str(path), "--json")
    failed = [one for one in (put, get) if one.code]
    assert failed
    for one in failed:
        assert one.error["error"] == "MissingExtra"
        assert library in one.error["message"]
        assert one.error["hint"] == f"pip install 'flightstore[{extra}]'"


def test_nothing_heavy_is_imported_for_the_common_formats(tmp_path: Path, store_path: str) -> None:
    path = tmp_path / "it.csv"
    path.write_text("a\n1\n")
    script = (
        "import sys\n"
        "from flightstore.cli.main import cli\n"
        f"try: cli.main(['put', {str(path)!r}])\n"
        "except SystemExit: pass\n"
        "assert not {'polars', 'pandas', 'fastexcel'} & set(sys.modules), set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_missing_extra_is_an_import_error() -> None:
    assert issubclass(MissingExtra, ImportError)


# --- progress ---


@pytest.mark.parametrize(
    "file_format", ["csv", "tsv", "jsonl", "arrow", "arrows", "csv.gz", "csv.zst", "csv.xz", "orc"]
)
def test_reading_reports_all_bytes(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    value = pa.table({"x": np.random.default_rng(1).integers(0, 1 << 40, 300_000)})
    path.write_bytes(written(value, file_format))
    seen: list[int] = []
    with path.open("rb") as file:
        readers.read_table(file, file_format, "it", seen.append)
    assert len(seen) > 1
    assert sum(seen) == pytest.approx(path.stat().st_size, rel=0.1)


def test_reading_parquet_reports_each_row_group(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"x": list(range(100_000))}), path, row_group_size=10_000)
    seen: list[int] = []
    with path.open("rb") as file:
        readers.read_table(file, "parquet", "it", seen.append)
    assert len(seen) == 10
    assert 0.5 * path.stat().st_size < sum(seen) <= path.stat().st_size


# --- the choice of a format ---


@pytest.mark.parametrize(
    ("path", "file_format", "stem"),
    [
        ("a/orders.parquet", "parquet", "orders"),
        ("ORDERS.CSV", "csv", "ORDERS"),
        ("orders.csv.gz", "csv.gz", "orders"),
        ("orders.ndjson.zst", "jsonl.zst", "orders"),
        ("orders.2024.feather", "arrow", "orders.2024"),
        ("x.tab.xz", "tsv.xz", "x"),
        ("x.arrows", "arrows", "x"),
        ("x.ndjson", "jsonl", "x"),
        ("x.npy", "npy", "x"),
        ("x.parquet.gz", None, "x.parquet"),
        ("x.tar.gz", None, "x.tar"),
        ("README", None, "README"),
        (".csv", "csv", ".csv"),
    ],
)
def test_format_and_name_by_extension(path: str, file_format: str | None, stem: str) -> None:
    assert formats.detect_format(path) == file_format
    assert formats.stem(path) == stem


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("csv", "csv"),
        ("CSV.GZ", "csv.gz"),
        (".feather", "arrow"),
        ("ndjson.zst", "jsonl.zst"),
        ("raw", "raw"),
    ],
)
def test_formats_by_name(given: str, meant: str) -> None:
    assert formats.FormatName().convert(given, None, None) == meant


@pytest.mark.parametrize("given", ["nonsense", "parquet.gz", "csv.rar", "raw.gz", ""])
def test_no_such_format(run: Run, store: flightstore.Store, given: str) -> None:
    done = run("get", "x", "--format", given, "--json")
    assert (done.code, done.error["error"]) == (2, "BadParameter")
    assert "parquet" in done.error["message"]
    assert ".zst" in done.error["message"]


def test_every_rule_is_of_a_format() -> None:
    assert set(conversion.RULES) <= set(TABLES)
    assert set(TABLES) - set(conversion.RULES) == {"arrow", "arrows"}


# --- files that appear whole ---


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


@pytest.mark.parametrize("file_format", PACKED)
def test_packed_output_is_the_same_for_the_same_content(file_format: str) -> None:
    assert written(table(), file_format) == written(table(), file_format)


def test_gzip_output_is_gzip() -> None:
    assert gzip.decompress(written(table(), "csv.gz")).startswith(b'"id","price"')


@pytest.mark.parametrize("packing", formats.PACKINGS)
def test_packed_files_put_together_are_one_text(packing: str) -> None:
    one = written(pa.table({"x": [1, 2]}), f"jsonl.{packing}")
    assert read(one + one, f"jsonl.{packing}").to_pydict() == {"x": [1, 2, 1, 2]}
