"""Reading files: every format and place, in order, with clear errors, and nothing left of what was not
finished."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather, orc

import flightstore as fs
from flightstore.connectors import sources
from flightstore.testing.children import start
from flightstore.testing.events import Gate
from flightstore.testing.types.arrow import SAMPLES
from flightstore.testing.types.equality import assert_same

pytestmark = pytest.mark.req("O-4")


def make(path: Path, table: pa.Table) -> Path:
    """A file in the format that its name says."""
    end = path.name.partition(".")[2]
    if end == "parquet":
        pq.write_table(table, path, row_group_size=1000)
    elif end == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table.unify_dictionaries(), 1000)
    elif end == "feather":
        feather.write_feather(table, path, compression="zstd")
    elif end == "arrows":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, 1000)
    elif end == "orc":
        orc.write_table(table, path, stripe_size=50_000)
    elif end == "jsonl":
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    else:
        with (
            pa.CompressedOutputStream(path, {"gz": "gzip"}.get(end[4:], end[4:]))
            if end[4:]
            else path.open("wb") as file
        ):
            csv.write_csv(table, file)
    return path


@pytest.mark.parametrize("end", ["parquet", "arrow", "feather", "arrows", "orc", "csv", "csv.gz", "csv.zstd"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_format_in_order(
    store: fs.Store, tmp_path: Path, table: pa.Table, end: str, threads: int
) -> None:
    given = {"format": "csv.zst"} if end == "csv.zstd" else {}
    wanted = (
        table if end in ("parquet", "arrow", "feather", "arrows") else table.drop_columns(["kind", "when"])
    )
    path = make(tmp_path / f"file.{end}", wanted)
    told: list[tuple[int, int]] = []
    found = sources.read(
        path,
        store=store,
        name="t",
        metadata={"from": end},
        threads=threads,
        progress=lambda done, total: told.append((done, total)),
        **given,
    )
    assert found.to_arrow().equals(wanted)
    assert (found.name, found.metadata) == ("t", {"from": end})
    assert told == sorted(told)
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


def assert_same_but_for_names(value: pa.Table, back: pa.Table) -> None:
    """What lists hold is called "element" by Parquet."""
    kind = str(value.schema.field("x").type)
    if "map" in kind or "not null" in kind:  # Arrow's cast does not rename these
        texts = [
            one["x"].combine_chunks().to_string(window=1000, container_window=1000) for one in (value, back)
        ]
        assert texts[0] == texts[1]
    else:
        assert_same(value, back.cast(value.schema) if "list" in kind else back)


def refused(stored: Any, path: Path) -> str | None:
    """Why a table cannot be written; None if it was."""
    try:
        sources.write(stored, path)
    except fs.InvalidArgument as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_type_through_parquet_and_ipc(store: fs.Store, tmp_path: Path, name: str) -> None:
    """What a format cannot hold is refused by column, and no file is there then."""
    value = pa.table({"x": SAMPLES[name]()})
    stored = store.get(store.put(value))
    for end in ("arrow", "arrows", "parquet"):
        path = tmp_path / f"file.{end}"
        refusal = refused(stored, path)
        if refusal is not None:
            assert "'x'" in refusal
            assert list(tmp_path.glob(f"*{end}*")) == []
            continue
        back = sources.read(path, store=store).to_arrow()
        back.validate(full=True)
        if end != "parquet":
            assert_same(value, back)
        elif back.schema.equals(value.schema):
            assert_same_but_for_names(value, back)
        else:
            assert back.num_rows == value.num_rows


def test_directories_globs_and_lists(store: fs.Store, tmp_path: Path, table: pa.Table) -> None:
    for number in range(4):
        (tmp_path / f"k={number % 2}" / "w=a b").mkdir(parents=True, exist_ok=True)
        part = table.slice(number * 5000, 5000)
        make(tmp_path / f"k={number % 2}" / "w=a b" / f"part-{number}.parquet", part)
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden").mkdir()
    make(tmp_path / ".hidden" / "x.parquet", table)
    found = sources.read(tmp_path, store=store).to_arrow()
    assert found.num_rows == table.num_rows
    assert found.schema.field("k").type == pa.int64()
    assert found["w"].unique().to_pylist() == ["a b"]
    assert found["k"].to_pylist() == [0] * 10_000 + [1] * 10_000
    order = [0, 2, 1, 3]
    expected = pa.concat_tables([table.slice(5000 * one, 5000) for one in order])
    assert found.drop_columns(["k", "w"]).equals(expected)
    first = f"{tmp_path}/k=0/*/part-0.parquet"
    assert sources.read(first, store=store).to_arrow().drop_columns(["k", "w"]).equals(table.slice(0, 5000))
    several = sources.read(
        [first, f"{tmp_path}/**/part-3.parquet"], store=store, columns=["k", "id"]
    ).to_arrow()
    assert several.column_names == ["k", "id"]
    assert several["id"].to_pylist() == [*range(5000), *range(15_000, 20_000)]
    plain = sources.read(tmp_path, store=store, partitions=False).to_arrow()
    assert plain.column_names == table.column_names
    typed = sources.read(tmp_path, store=store, partitions=pa.schema([("k", pa.string())])).to_arrow()
    assert typed["k"].unique().to_pylist() == ["0", "1"]
    with pytest.raises(FileNotFoundError):
        sources.read(tmp_path / "nothing", store=store)
    with pytest.raises(FileNotFoundError):
        sources.read(f"{tmp_path}/*.orc", store=store)


@pytest.mark.parametrize("end", ["parquet", "csv", "arrow"])
def test_columns_and_rows(store: fs.Store, tmp_path: Path, table: pa.Table, end: str) -> None:
    wanted = table.drop_columns(["kind", "when"])
    path = make(tmp_path / f"file.{end}", wanted)
    condition = (pc.field("id") > 12_345) & pc.field("s").is_valid()
    expected = wanted.filter(condition)
    assert sources.read(path, store=store, filter=condition).to_arrow().equals(expected)
    found = sources.read(path, store=store, filter=condition, columns=["x", "id"]).to_arrow()
    assert found.equals(expected.select(["x", "id"]))
    assert sources.read(path, store=store, filter=[("id", "<", 3)]).num_rows == 3
    with pytest.raises(fs.InvalidArgument, match="'nothing'"):
        sources.read(path, store=store, columns=["nothing"])


def test_files_of_one_table_may_differ(store: fs.Store, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array([2], pa.int64())}), tmp_path / "2.parquet")
    assert sources.read(tmp_path, store=store).to_arrow().to_pylist() == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": None},
    ]
    pq.write_table(pa.table({"a": ["no number"]}), tmp_path / "3.parquet")
    with pytest.raises(sources.FileUnreadable, match=r"3\.parquet"):
        sources.read(tmp_path, store=store)


@pytest.mark.parametrize("threads", [1, 2])
def test_types_of_text_come_from_all_of_it(store: fs.Store, tmp_path: Path, threads: int) -> None:
    """Of several files, too; what a later block refutes is begun again, with the same result as at once."""
    text = "a,b,c\n" + "1,,2020-01-01\n" * 400_000 + "2.5,7,x\n"
    (tmp_path / "1.csv").write_text(text)
    (tmp_path / "2.csv").write_text("a,b,c\n3,4,y\n")
    found = sources.read(tmp_path / "1.csv", store=store, threads=threads, block_size=1 << 16).to_arrow()
    whole = csv.read_csv(tmp_path / "1.csv", convert_options=csv.ConvertOptions(null_values=[""]))
    assert found.schema == whole.schema
    assert found.slice(399_999).to_pylist()[0] == {"a": 1.0, "b": None, "c": "2020-01-01"}
    assert found.slice(400_000).to_pylist() == [{"a": 2.5, "b": 7, "c": "x"}]
    both = sources.read(tmp_path, store=store, threads=threads).to_arrow()
    assert both.schema == whole.schema
    assert both.slice(400_001).to_pylist() == [{"a": 3.0, "b": 4, "c": "y"}]
    lines = '{"a": 1, "o": {"p": 1}}\n' * 1000 + '{"a": 1.5, "o": {"q": "x"}, "z": [1]}\n'
    (tmp_path / "l.jsonl").write_text(lines)
    found = sources.read(tmp_path / "l.jsonl", store=store, block_size=1 << 12).to_arrow()
    assert found.slice(1000).to_pylist() == [{"a": 1.5, "o": {"p": None, "q": "x"}, "z": [1]}]
    assert found.num_rows == 1001


def test_options_of_the_readers(store: fs.Store, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x;y\n1;NA\n2;b\n")
    found = sources.read(path, store=store, delimiter=";", null_values=["NA"], column_types={"x": pa.int8()})
    assert found.to_arrow().equals(pa.table({"x": pa.array([1, 2], pa.int8()), "y": [None, "b"]}))
    with pytest.raises(fs.InvalidArgument, match="delimeter"):
        sources.read(path, store=store, delimeter=";")
    (tmp_path / "a.unknown").write_text("")
    with pytest.raises(fs.InvalidArgument, match="extension"):
        sources.read(tmp_path / "a.unknown", store=store)


def test_open_files_and_urls(store: fs.Store, tmp_path: Path, table: pa.Table) -> None:
    path = make(tmp_path / "file.parquet", table)
    with path.open("rb") as file:
        assert sources.read(file, store=store).to_arrow().equals(table)
    memory = fsspec.filesystem("memory")
    memory.pipe("/data/a/file.parquet", path.read_bytes())
    assert sources.read("memory://data/a", store=store).to_arrow().equals(table)
    assert sources.read("memory://data/*/file.parquet", store=store).to_arrow().equals(table)
    assert sources.read(path.as_uri(), store=store).to_arrow().equals(table)
    memory.rm("/data", recursive=True)
    with pytest.raises((fs.InvalidArgument, fs.MissingExtra)):
        sources.read("nowhere://x.parquet", store=store)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of the directory."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_over_http(store: fs.Store, tmp_path: Path, table: pa.Table, server: str) -> None:
    make(tmp_path / "file.csv", table.select(["id", "s"]))
    (tmp_path / "file.csv.gz").write_bytes(gzip.compress((tmp_path / "file.csv").read_bytes()))
    expected = table.select(["id", "s"])
    assert sources.read(f"{server}/file.csv.gz", store=store).to_arrow().equals(expected)
    with pytest.raises(FileNotFoundError):
        sources.read(f"{server}/nothing.csv", store=store)


def test_a_dataset(store: fs.Store, tmp_path: Path, table: pa.Table) -> None:
    """With its own way of telling partitions."""
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        make(tmp_path / f"{number}" / "part.parquet", table.slice(number * 10_000, 10_000))
    parts = ds.partitioning(pa.schema([("half", pa.int8())]))
    found = ds.dataset(tmp_path, format="parquet", partitioning=parts)
    for threads in (1, 3):
        whole = sources.read(found, store=store, threads=threads).to_arrow()
        assert whole.drop_columns("half").equals(table)
        assert whole["half"].to_pylist() == [0] * 10_000 + [1] * 10_000
    some = sources.read(found, store=store, filter=pc.field("half") == 1, columns=["half", "id"]).to_arrow()
    assert some["id"].to_pylist() == list(range(10_000, 20_000))
    memory = sources.read(ds.dataset(table), store=store, columns=["id"]).to_arrow()
    assert memory.equals(table.select(["id"]))
    with pytest.raises(fs.InvalidArgument):
        sources.read(found, store=store, format="csv")


# --- what goes wrong ---


def test_a_damaged_row_group_is_named_and_nothing_is_left(
    store: fs.Store, tmp_path: Path, table: pa.Table
) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(table, path, row_group_size=5000, compression="zstd", use_dictionary=False)
    about = pq.ParquetFile(path).metadata.row_group(2).column(0)
    raw = bytearray(path.read_bytes())
    at = about.data_page_offset
    raw[at : at + about.total_compressed_size] = b"\xff" * about.total_compressed_size
    path.write_bytes(raw)
    for threads in (1, 3):
        with pytest.raises(sources.FileUnreadable, match=r"file\.parquet, row group 2"):
            sources.read(path, store=store, name="t", threads=threads)
    assert store.list() == []
    store.recover()
    assert store.stats().used_bytes == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupt_leaves_nothing(store: fs.Store, tmp_path: Path, threads: int) -> None:
    path = tmp_path / "file.parquet"
    value = pa.table({"x": np.random.default_rng(1).random(6_000_000)})
    pq.write_table(value, path, row_group_size=1_500_000)
    seen = []

    def interrupted(done: int, total: int) -> None:
        seen.append(store.stats().pending)
        if 0 < done < total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.read(path, store=store, name="t", threads=threads, progress=interrupted)
    assert max(seen) > 0, "something was written"
    store.recover()
    assert (store.stats().pending, store.stats().used_bytes, store.list()) == (0, 0, [])


def test_a_store_that_is_too_small(store: fs.Store, tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    with pq.ParquetWriter(path, pa.schema([("x", pa.float64())])) as writer:
        for _ in range(20):
            writer.write_table(pa.table({"x": np.zeros(2_000_000)}))
    with pytest.raises(fs.StoreFull):
        sources.read(path, store=store, name="t", threads=3)
    store.recover()
    assert (store.stats().pending, store.stats().used_bytes) == (0, 0)


def test_a_killed_reader_leaves_nothing(store: fs.Store, tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(
        pa.table({"x": np.random.default_rng(1).random(6_000_000)}), path, row_group_size=1_500_000
    )
    begun, never = Gate(), Gate()

    def reads() -> None:
        def stop(done: int, total: int) -> None:
            if 0 < done < total:
                begun.open()
                never.wait(600)

        sources.read(path, store=store, name="t", progress=stop)

    with start(reads) as reader:
        begun.wait()
        assert store.stats().pending > 0
        reader.kill()
    store.recover()
    assert (store.stats().pending, store.stats().used_bytes, store.list()) == (0, 0, [])


def test_what_pandas_wrote_is_a_frame_again(store: fs.Store, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=pd.Index(["x", "y", "z"], name="key"))
    frame.to_parquet(tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(sources.read(tmp_path / "f.parquet", store=store).to_pandas(), frame)
