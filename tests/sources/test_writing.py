"""Writing files: whole or not at all, one or a directory by values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flightstore as fs
from flightstore.connectors import sources

pytestmark = pytest.mark.req("O-4")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_appears_whole_and_is_not_replaced(store: fs.Store, tmp_path: Path, table: pa.Table) -> None:
    stored = store.get(store.put(table))
    path = tmp_path / "new" / "file.parquet"
    told: list[tuple[int, int]] = []
    done = sources.write(stored, path, progress=lambda *one: told.append(one), row_group_size=1000)
    assert done == sources.WriteResult((str(path),), table.num_rows, path.stat().st_size)
    assert pq.read_table(path).equals(table)
    assert pq.ParquetFile(path).metadata.num_row_groups == 20
    assert told[-1] == (table.nbytes, table.nbytes)
    before = path.read_bytes()
    with pytest.raises(sources.FileTaken):
        sources.write(table.slice(0, 10), path)
    with pytest.raises(FileExistsError):
        sources.write(table.slice(0, 10), path.parent, partition_by="kind")
    assert path.read_bytes() == before
    sources.write(table.slice(0, 10), path, overwrite=True, compression="zstd")
    assert pq.read_table(path).equals(table.slice(0, 10))
    assert left(tmp_path) == ["file.parquet"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, table: pa.Table) -> None:
    class Boom(Exception):
        pass

    def fail(done: int, total: int) -> None:
        raise Boom

    for target in ({"url": tmp_path / "f.parquet"}, {"url": tmp_path / "d", "partition_by": "kind"}):
        with pytest.raises(Boom):
            sources.write(table, **target, progress=fail)
        assert list(tmp_path.iterdir()) == []
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(fs.InvalidArgument, match="'u'"):
        sources.write(pa.table({"u": union, "k": [1]}), tmp_path / "d", partition_by="k")
    with pytest.raises(fs.InvalidArgument, match="no_such_option"):
        sources.write(table, tmp_path / "f.parquet", no_such_option=1)
    with pytest.raises(fs.InvalidArgument):
        sources.write(table, tmp_path / "f.unknown")
    with pytest.raises(fs.InvalidArgument, match="nothing"):
        sources.write(table, tmp_path / "d", partition_by="nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_a_directory_by_values(store: fs.Store, tmp_path: Path, threads: int) -> None:
    value = pa.table(
        {
            "v": range(1000),
            "c": [None if i % 7 == 0 else "a/b=%" if i % 2 else "plain" for i in range(1000)],
            "y": [2000 + i % 3 for i in range(1000)],
        }
    )
    done = sources.write(value, tmp_path / "d", partition_by=["y", "c"], threads=threads)
    assert len(done.files) == 9
    assert done.rows == 1000
    assert done.bytes == sum(Path(one).stat().st_size for one in done.files)
    back = sources.read(tmp_path / "d", store=store).to_arrow()
    assert back.select(["v", "c", "y"]).sort_by("v").equals(value)
    for path in done.files:
        rows = pq.ParquetFile(path).read()["v"].to_pylist()
        assert rows == sorted(rows)
    with pytest.raises(sources.FileTaken):
        sources.write(value, tmp_path / "d", partition_by="y")
    sources.write(value, tmp_path / "d", partition_by="y", overwrite=True, format="csv.gz")
    assert left(tmp_path) == ["part-0.csv.gz"] * 3
    assert (
        sources.read(tmp_path / "d", store=store)
        .to_arrow()
        .sort_by("v")
        .equals(value.select(["v", "c", "y"]))
    )
    (tmp_path / "d" / "precious.txt").write_text("not a table")
    with pytest.raises(fs.InvalidArgument, match="precious"):
        sources.write(value, tmp_path / "d", partition_by="y", overwrite=True)


def test_to_other_places(store: fs.Store, table: pa.Table) -> None:
    memory = fsspec.filesystem("memory")
    stored = store.get(store.put(table))
    try:
        sources.write(stored, "memory://out/f.arrow")
        assert sources.read("memory://out/f.arrow", store=store).to_arrow().equals(table)
        with pytest.raises(sources.FileTaken):
            sources.write(stored, "memory://out/f.arrow")
        for _ in range(2):
            done = sources.write(stored, "memory://out/d", partition_by="kind", overwrite=True)
        assert len(done.files) == 5
        assert sources.read("memory://out/d", store=store).num_rows == table.num_rows
        assert sorted(memory.find("/out")) == sorted(["/out/f.arrow", *[f"/{one[9:]}" for one in done.files]])
    finally:
        memory.rm("/out", recursive=True)


@pytest.mark.parametrize("value", [b"no table", {"a": 1}, None])
def test_what_is_no_table(tmp_path: Path, value: Any) -> None:
    with pytest.raises(fs.InvalidArgument):
        sources.write(value, tmp_path / "f.parquet")
    assert list(tmp_path.iterdir()) == []
