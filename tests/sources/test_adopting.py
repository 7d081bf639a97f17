"""Arrow files as objects, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

import flightstore as fs
from flightstore.connectors import sources
from flightstore.testing.children import child

pytestmark = pytest.mark.req("O-4")


@pytest.fixture(params=["arrow", "arrows"])
def path(request: pytest.FixtureRequest, tmp_path: Path, table: pa.Table) -> Path:
    """An uncompressed Arrow file, or stream, of several batches."""
    path = tmp_path / f"file.{request.param}"
    new = pa.ipc.new_file if request.param == "arrow" else pa.ipc.new_stream
    with new(path, table.schema) as writer:
        writer.write_table(table, 3000)
    return path


def test_a_file_is_an_object_and_takes_no_room(
    store: fs.Store, store_dir: Path, path: Path, table: pa.Table
) -> None:
    used = store.stats().used_bytes
    found = sources.adopt(path, store=store, name="a", metadata={"k": 1})
    assert found.borrowed
    assert found.to_arrow().equals(table)
    assert (found.name, found.metadata) == ("a", {"k": 1})
    assert store.stats().used_bytes - used < 20_000

    def theirs() -> bool:
        with fs.connect(store_dir) as other:
            return bool(other.get("a").to_arrow().equals(table))

    assert child(theirs)


def test_a_changed_file_is_lost(store: fs.Store, path: Path) -> None:
    sources.adopt(path, store=store, name="a").release()
    os.utime(path, (1, 1))
    with pytest.raises(fs.ObjectLost, match=path.name):
        store.get("a")
    path.unlink()
    with pytest.raises(fs.ObjectLost, match=path.name):
        store.get("a")


def test_what_was_persisted_depends_on_no_file(store: fs.Store, path: Path, table: pa.Table) -> None:
    with sources.adopt(path, store=store, name="a") as found:
        found.persist()
    path.unlink()
    assert store.get("a").to_arrow().equals(table)  # type: ignore[attr-defined]


def test_what_cannot_be_adopted(store: fs.Store, tmp_path: Path, table: pa.Table) -> None:
    packed = tmp_path / "packed.feather"
    feather.write_feather(table, packed, compression="zstd")
    with pytest.raises(sources.FileUnreadable, match=r"compressed.*read\(\)"):
        sources.adopt(packed, store=store)
    pq.write_table(table, tmp_path / "f.parquet")
    (tmp_path / "empty.arrow").write_bytes(b"")
    for name in ("f.parquet", "empty.arrow"):
        with pytest.raises(sources.FileUnreadable, match=name):
            sources.adopt(tmp_path / name, store=store)
    with pytest.raises(FileNotFoundError):
        sources.adopt(tmp_path / "nothing.arrow", store=store)
    assert store.list() == []
    assert store.loans() == []
