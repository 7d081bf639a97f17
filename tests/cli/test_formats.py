"""File formats: through the command over real files and pipes, how one is chosen, and what is broken."""

from __future__ import annotations

import gzip
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

import flightstore
from flightstore.cli import formats, readers, writers
from flightstore.errors import InvalidArgument, MissingExtra

from .conftest import Run
from .samples import PACKED, TABLES, read, round_trip, rows_of, table, written

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
    value = pa.table({"x": np.random.default_rng(1).integers(0, 1 << 40, 100_000)})
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
