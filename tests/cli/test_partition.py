"""put --partition: which objects, of which names, holding which rows; all of them at once or none."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flightstore
from flightstore.cli import partition
from flightstore.cli.partition import NULL_PARTITION, Partitioning, PartitionSpec, partitions
from flightstore.errors import InvalidArgument

from .conftest import Run


def orders(rows: int = 10) -> pa.Table:
    countries = ["DE", "FR", None]
    return pa.table({"id": list(range(rows)), "country": [countries[i % 3] for i in range(rows)]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.parquet"
    pq.write_table(orders(), path)
    return path


# --- through the command ---


@pytest.mark.req("O-1")
def test_so_many_parts(run: Run, file: Path, store: flightstore.Store) -> None:
    done = run("put", str(file), "--partition", "4", "--json")
    assert done.code == 0, done.err
    assert [(entry["name"], entry["rows"]) for entry in done.json["objects"]] == [
        ("orders/0", 3),
        ("orders/1", 3),
        ("orders/2", 2),
        ("orders/3", 2),
    ]
    parts = [store.get(f"orders/{i}").to_arrow() for i in range(4)]
    assert pa.concat_tables(parts).equals(orders())
    assert not store.contains("orders")


def test_numbers_sort(run: Run, file: Path, store: flightstore.Store) -> None:
    assert run("put", str(file), "--partition", "rows=1", "--name", "o").code == 0
    names = [info.name for info in store.list("o/*")]
    assert names == [f"o/{i}" for i in range(10)]
    assert run("put", str(file), "--partition", "12", "--name", "p").code == 0
    names = [info.name for info in store.list("p/*")]
    assert (names[0], names[-1]) == ("p/00", "p/11")
    assert pa.concat_tables([store.get(name).to_arrow() for name in sorted(names)]).equals(orders())


def test_parts_of_so_many_rows(run: Run, file: Path, store: flightstore.Store) -> None:
    done = run("put", str(file), "--partition", "rows=4", "--json")
    assert [entry["rows"] for entry in done.json["objects"]] == [4, 4, 2]


@pytest.mark.req("O-1")
def test_one_object_for_each_value(run: Run, file: Path, store: flightstore.Store) -> None:
    done = run("put", str(file), "--partition", "by=country", "--json")
    assert [(entry["name"], entry["rows"]) for entry in done.json["objects"]] == [
        ("orders/country=DE", 4),
        ("orders/country=FR", 3),
        (f"orders/country={NULL_PARTITION}", 3),
    ]
    german = store.get("orders/country=DE").to_arrow()
    assert german.to_pydict() == {"id": [0, 3, 6, 9], "country": ["DE"] * 4}
    assert store.get(f"orders/country={NULL_PARTITION}").to_arrow()["country"].null_count == 3


def test_standard_input_is_cut_too(run: Run, store: flightstore.Store) -> None:
    text = b"a,b\n1,x\n2,y\n3,x\n"
    done = run("put", "-", "--name", "in", "--format", "csv", "--partition", "by=b", stdin=text)
    assert done.code == 0, done.err
    assert store.get("in/b=x").to_arrow()["a"].to_pylist() == [1, 3]


@pytest.mark.req("API-13")
def test_all_parts_appear_in_one_commit(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    """Whoever looks while parts are replaced sees all old ones or all new ones."""
    path = tmp_path / "t.parquet"
    seen: list[set[int]] = []
    begun, stop = threading.Event(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            found = [info.num_rows or 0 for info in store.list("t/*")]
            assert len(found) in (0, 20)
            seen.append(set(found))
            begun.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert begun.wait(60)
        for rows in (20, 40, 60, 80):
            pq.write_table(pa.table({"x": list(range(rows))}), path)
            assert run("put", str(path), "--partition", "20").code == 0
    finally:
        stop.set()
        watcher.join()
    assert seen
    assert all(len(rows) <= 1 for rows in seen)


@pytest.mark.req("FAIL-5")
def test_parts_that_do_not_all_fit_leave_nothing(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "big.arrow"
    big = pa.table({"x": pa.nulls(20_000_000, pa.int64()).fill_null(7)})
    with pa.ipc.new_file(path, big.schema) as writer:
        writer.write_table(big)
    held = store.create(140 << 20, "room")
    done = run("put", str(path), "--partition", "8", "--json")
    assert (done.code, done.error["error"]) == (4, "StoreFull")
    assert store.list("big*") == []
    held.abort()
    assert run("put", str(path), "--partition", "8").code == 0
    assert store.fsck() == []


def test_parts_of_an_earlier_cut_are_named(run: Run, file: Path, store: flightstore.Store) -> None:
    assert run("put", str(file), "--partition", "3").err == ""
    fewer = run("put", str(file), "--partition", "2", "--json")
    assert fewer.code == 0
    assert "below orders/, 1 object is not of this put: orders/2" in fewer.err
    store.put(b"x", "ord[e]rs/1")
    strange = run("put", str(file), "--name", "ord[e]rs", "--partition", "1")
    assert "ord[e]rs/1" in strange.err, "the name is no pattern"
    assert "orders/" not in strange.err


def test_what_cannot_be_cut_is_told_before_anything_is_stored(run: Run, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "weights.npy"
    other.write_bytes(b"")
    done = run("put", str(file), str(other), "--partition", "2", "--json")
    assert (done.code, done.error["error"]) == (2, "InvalidArgument")
    assert "holds no table" in done.error["message"]
    assert run("put", str(file), "--raw", "--partition", "2").code == 2
    assert run("ls").code == 3, "not even a store was made"


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "rows=", "rows=0", "rows=x", "by=", "of=3", "1.5", "²"])
def test_wrong_specifications(run: Run, file: Path, text: str) -> None:
    done = run("put", str(file), f"--partition={text}", "--json")
    assert (done.code, done.error["error"]) == (2, "BadParameter")
    assert "rows=N" in done.error["message"]


def test_a_column_that_is_not_there(run: Run, file: Path, store: flightstore.Store) -> None:
    done = run("put", str(file), "--partition", "by=land", "--json")
    assert (done.code, done.error["error"]) == (2, "InvalidArgument")
    assert "'land'" in done.error["message"]
    assert "id, country" in done.error["hint"]
    assert store.list() == []


# --- the cut itself ---


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8", Partitioning(count=8)),
        ("rows=100000", Partitioning(rows=100_000)),
        ("by=country", Partitioning(by="country")),
        ("by=a=b,c", Partitioning(by="a=b,c")),
    ],
)
def test_specifications(text: str, meant: Partitioning) -> None:
    assert PartitionSpec().convert(text, None, None) == meant


@given(rows=st.integers(0, 200), count=st.integers(1, 50))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_number_of_parts_holds_every_row_once(rows: int, count: int) -> None:
    table = pa.table({"x": pa.array(range(rows), pa.int64())})
    parts = partitions(table, Partitioning(count=count), "t")
    sizes = [part.num_rows for part in parts.values()]
    assert len(parts) == count
    assert max(sizes) - min(sizes) <= 1
    assert list(parts) == sorted(parts)
    assert pa.concat_tables(parts.values()).equals(table)


@given(values=st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=50))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_texts_become_names_that_tell_them_again(values: list[str | None]) -> None:
    table = pa.table({"k/e=y": pa.array(values, pa.string()), "row": list(range(len(values)))})
    try:
        parts = partitions(table, Partitioning(by="k/e=y"), "t")
    except InvalidArgument:
        assert {None, NULL_PARTITION} <= set(values), "only a text that looks like null is refused"
        return
    rows = []
    for name, part in parts.items():
        column, equals, text = name.removeprefix("t/").partition("=")
        assert (unquote(column), equals) == ("k/e=y", "=")
        expected = None if text == NULL_PARTITION and None in values else unquote(text)
        assert set(part["k/e=y"].to_pylist()) == {expected}
        assert "/" not in text
        assert text.isprintable()
        found = part["row"].to_pylist()
        assert found == sorted(found), "rows stay in order"
        rows += found
    assert sorted(rows) == list(range(len(values)))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([2, 1, 2]), ["1", "2"]),
        (pa.array([True, None, False]), [NULL_PARTITION, "false", "true"]),
        (pa.array([1.5, float("nan"), float("nan")]), ["1.5", "nan"]),
        (pa.array([date(2024, 1, 31)] * 3), ["2024-01-31"]),
        (
            pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("s", "UTC")),
            ["2024-01-01 00:00:00Z"],
        ),
        (pa.array([Decimal("1.20")] * 3), ["1.20"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", "y", "x"], pa.string_view()), ["x", "y"]),
        (pa.nulls(3), [NULL_PARTITION]),
        (pa.chunked_array([["x"], ["y", "x"]]), ["x", "y"]),
    ],
)
def test_values_of_many_types(values: pa.Array, texts: list[str]) -> None:
    table = pa.table({"k": values, "row": [0, 1, 2]})
    parts = partitions(table, Partitioning(by="k"), "t")
    assert list(parts) == [f"t/k={text}" for text in sorted(texts)]
    assert sorted(row for part in parts.values() for row in part["row"].to_pylist()) == [0, 1, 2]
    assert all(part.schema.equals(table.schema) for part in parts.values())


@pytest.mark.parametrize(
    "values", [pa.array([[1], [2]]), pa.array([{"a": 1}] * 2), pa.array([b"\xff", b"a"])]
)
def test_values_that_are_no_names(values: pa.Array) -> None:
    with pytest.raises(InvalidArgument, match="'k'"):
        partitions(pa.table({"k": values}), Partitioning(by="k"), "t")


def test_several_columns() -> None:
    table = pa.table({"a": ["x", "x", "y", None], "b": [1, 2, 1, 1], "a,b": [0, 0, 1, 1]})
    parts = partitions(table, Partitioning(by="b"), "t")
    assert list(parts) == ["t/b=1", "t/b=2"]
    assert list(partitions(table, Partitioning(by="a,b"), "t")) == ["t/a,b=0", "t/a,b=1"], "a column's name"
    table = table.drop_columns(["a,b"])
    parts = partitions(table, Partitioning(by="a,b"), "t")
    assert {name: part.num_rows for name, part in parts.items()} == {
        f"t/a={NULL_PARTITION}/b=1": 1,
        "t/a=x/b=1": 1,
        "t/a=x/b=2": 1,
        "t/a=y/b=1": 1,
    }


def test_parts_of_a_table_without_rows() -> None:
    empty = orders().slice(0, 0)
    assert [part.num_rows for part in partitions(empty, Partitioning(count=2), "t").values()] == [0, 0]
    assert [part.num_rows for part in partitions(empty, Partitioning(rows=5), "t").values()] == [0]
    with pytest.raises(InvalidArgument, match="no rows"):
        partitions(empty, Partitioning(by="country"), "t")


def test_too_many_parts() -> None:
    table = pa.table({"id": list(range(partition.MAX_PARTITIONS + 1))})
    for how in (Partitioning(by="id"), Partitioning(rows=1), Partitioning(count=table.num_rows)):
        with pytest.raises(InvalidArgument, match="10,001 objects"):
            partitions(table, how, "t")
    assert len(partitions(table.slice(1), Partitioning(by="id"), "t")) == partition.MAX_PARTITIONS


def test_two_columns_of_one_name() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(InvalidArgument, match="two columns"):
        partitions(twice, Partitioning(by="x"), "t")


def test_rows_that_lie_together_are_not_copied() -> None:
    table = pa.table({"k": ["a"] * 1000 + ["b"] * 1000, "x": list(range(2000))})
    parts = partitions(table, Partitioning(by="k"), "t")
    whole = table["x"].chunk(0).buffers()[1]
    for part in parts.values():
        buffer = part["x"].chunk(0).buffers()[1]
        assert (buffer.address, buffer.size) == (whole.address, whole.size)
