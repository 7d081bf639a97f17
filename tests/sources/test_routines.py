"""Cutting, joining, sorting: every row is somewhere, in order, and what is shared is not copied."""

from __future__ import annotations

import decimal
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors import sources
from flightstore.connectors.sources.hashing import hash_rows
from flightstore.testing.children import child

pytestmark = pytest.mark.req("O-4")


def check_rows(parts: sources.Parts, table: pa.Table) -> None:
    """All rows are there, once, and in order within each part."""
    for part in parts:
        part.to_arrow().validate(full=True)
        assert (np.diff(part.to_arrow()["id"].to_numpy()) > 0).all()
    joined = pa.concat_tables([part.to_arrow() for part in parts]).sort_by("id")
    assert joined.schema.equals(table.schema)
    for name in table.column_names:
        assert joined[name].to_pylist() == table[name].to_pylist()


@pytest.fixture
def stored(store: fs.Store, table: pa.Table) -> Any:
    return store.get(store.put(table, "t"))


@pytest.mark.parametrize(
    "how",
    [
        {"by": "hash", "n": 5, "columns": "s"},
        {"by": "hash", "n": 3, "columns": ["x", "kind", "when"]},
        {"by": "range", "n": 4, "columns": "x"},
        {"by": "range", "n": 4, "columns": "s"},
        {"by": "range", "columns": "id", "boundaries": [10, 10, 15_000]},
        {"by": "value", "columns": ["kind"]},
        {"by": "value", "columns": ["s", "kind"]},
        {"by": "rows", "n": 7},
        {"by": "hash", "n": 1, "columns": "id"},
    ],
    ids=str,
)
def test_rows_are_divided(store: fs.Store, stored: Any, table: pa.Table, how: dict[str, Any]) -> None:
    parts = sources.partition(stored, store=store, name="p", metadata={"part": True}, **how)
    check_rows(parts, table)
    assert [part.name for part in parts] == [f"p/{number}" for number in range(len(parts))]
    assert parts[0].metadata == {"part": True}
    assert parts.report.copied_bytes + parts.report.shared_bytes == sum(part.nbytes for part in parts)
    if how["by"] == "hash":
        keys = [how["columns"]] if isinstance(how["columns"], str) else how["columns"]
        seen = [{tuple(row.values()) for row in part.to_arrow().select(keys).to_pylist()} for part in parts]
        assert sum(map(len, seen)) == len(set().union(*seen))
    if how["by"] == "rows":
        assert {part.num_rows for part in parts} == {table.num_rows // 7, table.num_rows // 7 + 1}


def test_ranges_are_in_order_and_as_even_as_can_be(store: fs.Store, stored: Any, table: pa.Table) -> None:
    parts = sources.partition(stored, by="range", n=4, columns="x", store=store)
    values = [part.to_arrow()["x"].drop_null().to_numpy() for part in parts]
    for low, high in itertools.pairwise(values):
        assert low.max() < high.min()
    assert max(map(len, values)) - min(map(len, values)) <= 2
    assert sum(part.to_arrow()["x"].null_count for part in parts[:-1]) == 0
    nan = store.get(store.put(pa.table({"x": [1.0, math.nan, 2.0, None, 3.0]})))
    parts = sources.partition(nan, by="range", columns="x", boundaries=[2.0], store=store)
    assert [part.num_rows for part in parts] == [1, 4]


def test_the_hash_is_the_same_for_ever() -> None:
    """These numbers are in files and other people's programs: never change them."""
    whole = pa.array([0, 1, -1, None])
    assert _mixed(hash_rows([whole])) == _mixed(hash_rows([whole.cast(pa.int8())]))
    assert _mixed(hash_rows([whole]))[:3] == GOLDEN_INT
    text = pa.array(["", "a", "exactly8", "more than eight", None])
    assert _mixed(hash_rows([text]))[:4] == GOLDEN_TEXT
    for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()):
        assert _mixed(hash_rows([text.cast(kind)])) == _mixed(hash_rows([text])), kind
    assert _mixed(hash_rows([text.dictionary_encode()])) == _mixed(hash_rows([text]))
    assert _mixed(hash_rows([text.slice(2)])) == _mixed(hash_rows([text]))[2:]
    numbers = pa.array([1.5, -0.0, 0.0, math.nan, None])
    hashed = _mixed(hash_rows([numbers]))
    assert hashed[1] == hashed[2]
    assert hashed == _mixed(hash_rows([numbers.cast(pa.float32())]))
    assert len(set(hashed)) == 4
    for array in (
        pa.array([True, None]),
        pa.array([1, None], pa.timestamp("ns", "UTC")),
        pa.array([1, None], pa.date32()),
        pa.array([1, None], pa.time64("us")),
        pa.array([decimal.Decimal("1.50"), None]),
        pa.array([b"ab", None], pa.binary(2)),
        pa.array([(1 << 64) - 1, None], pa.uint64()),
        pa.nulls(2),
    ):
        assert len(hash_rows([array])) == 2
        assert _mixed(hash_rows([array]))[1] == _mixed(hash_rows([pa.nulls(1)]))[0]
    with pytest.raises(fs.InvalidArgument, match="list"):
        hash_rows([pa.array([[1]])])


def _mixed(numbers: Any) -> list[int]:
    return [int(one) for one in numbers]


GOLDEN_INT = [12035550249420947055, 6791897765849424158, 6755974106381971767]
GOLDEN_TEXT = [12035550249420947055, 14291139579252193271, 3040409924494557797, 16564290034677482870]


def test_another_process_divides_alike(store: fs.Store, stored: Any, store_dir: Path) -> None:
    parts = sources.partition(stored, by="hash", n=4, columns="s", store=store)

    def theirs() -> list[list[int]]:
        with fs.connect(store_dir) as other:
            found = sources.partition("t", by="hash", n=4, columns="s", store=other)
            return [part.to_arrow()["id"].to_pylist() for part in found]

    assert child(theirs) == [part.to_arrow()["id"].to_pylist() for part in parts]


def test_columns_are_divided_without_a_copy(store: fs.Store, stored: Any, table: pa.Table) -> None:
    used = store.stats().used_bytes
    parts = sources.partition(stored, by="column", columns=[["id", "s"], ["x"]], store=store)
    assert [part.column_names for part in parts] == [["id", "s"], ["x"]]
    assert parts[0].to_arrow().equals(table.select(["id", "s"]))
    assert parts.report.copied_bytes == 0
    assert store.stats().used_bytes - used < 10_000
    assert [part.num_columns for part in sources.partition(stored, by="column", n=3, store=store)] == [
        1,
        2,
        2,
    ]


def written_in_parts(store: fs.Store, table: pa.Table, rows: int) -> Any:
    with store.create_stream(table.schema, "parts", group_bytes=1) as writer:
        for at in range(0, table.num_rows, rows):
            writer.write(table.slice(at, rows))
    return store.get("parts")


def test_cuts_between_parts_share_and_cuts_through_one_copy_that_one(
    store: fs.Store, table: pa.Table
) -> None:
    obj = written_in_parts(store, table, 1000)
    used = store.stats().used_bytes
    chunks = sources.chunk(obj, rows=5000, store=store, name="c")
    check_rows(chunks, table)
    assert [chunk.num_rows for chunk in chunks] == [5000] * 4
    assert chunks.report.shared_bytes > 0.8 * obj.nbytes
    assert store.stats().used_bytes - used < obj.nbytes / 5
    through = sources.chunk(obj, rows=2500, store=store)
    check_rows(through, table)
    assert store.fsck() == []
    whole = sources.concat(chunks, store=store, name="whole")
    assert whole.to_arrow().equals(table)
    several = sources.repartition([chunks[1], chunks[0]], 3, store=store)
    rows = [one for part in several for one in part.to_arrow()["id"].to_pylist()]
    assert rows == [*range(5000, 10_000), *range(5000)]
    store.delete(["parts", "whole", *[f"c/{number}" for number in range(4)]])
    store.recover()
    check_rows(through, table)
    by_bytes = sources.chunk(through[0], nbytes=through[0].nbytes // 5, store=store)
    assert len(by_bytes) in (5, 6)


def test_parts_where_columns_are_cut_differently(store: fs.Store, table: pa.Table) -> None:
    """A column that was added later lies in one piece."""
    obj = written_in_parts(store, table, 1000)
    wide = store.with_columns(obj, {"more": [f"more {i}" for i in range(table.num_rows)]})
    parts = sources.partition(wide, by="rows", n=4, store=store)
    check_rows(parts, wide.to_arrow())
    bounds = store.split(wide, rows=[0, 0, table.num_rows])
    assert [part.num_rows for part in bounds] == [0, 0, table.num_rows, 0]
    assert bounds[2].to_arrow().equals(wide.to_arrow())
    assert all(part.to_arrow().schema.equals(wide.schema) for part in bounds)


def test_all_parts_or_none(store: fs.Store, stored: Any, table: pa.Table) -> None:
    before = {info.name for info in store.list()}
    with pytest.raises(fs.InvalidArgument):
        sources.partition(stored, by="hash", n=3, columns="s", store=store, name="{")
    with pytest.raises(fs.InvalidArgument):
        store.split(stored, rows=[10], names=["a", "a"])
    with pytest.raises(fs.InvalidArgument):
        store.split(stored, rows=[10, 5])
    with pytest.raises(fs.InvalidArgument):
        store.split(stored, rows=[table.num_rows + 1])
    with pytest.raises(fs.InvalidArgument):
        store.split(stored)
    store.put(bytes(store.stats().free_bytes - table.nbytes // 2), "filler")
    with pytest.raises(fs.StoreFull):
        sources.partition(stored, by="hash", n=3, columns="s", store=store, name="p")
    with pytest.raises(fs.StoreFull):
        sources.chunk(stored, rows=100, store=store, name="p")
    assert {info.name for info in store.list()} == before | {"filler"}
    assert store.stats().pending == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "hash", "n": 2, "columns": "nothing"},
        {"by": "hash", "n": 2},
        {"by": "hash", "columns": "s"},
        {"by": "hash", "n": 0, "columns": "s"},
        {"by": "hash", "n": 100_000, "columns": "s"},
        {"by": "range", "n": 2, "columns": ["s", "x"]},
        {"by": "range", "columns": "x", "boundaries": [2.0, 1.0]},
        {"by": "rows"},
        {"by": "column", "columns": [["nothing"]]},
        {"by": "colour", "columns": "s"},
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said(store: fs.Store, stored: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(fs.InvalidArgument):
        sources.partition(stored, store=store, **wrong)
    assert len(store.list()) == 1


def test_sorting(store: fs.Store, stored: Any, table: pa.Table) -> None:
    order = [("kind", "descending"), ("x", "ascending"), ("id", "ascending")]
    value = table.set_column(4, "kind", table["kind"].cast(pa.string()))
    tables = [store.get(store.put(value.slice(0, 15_000))), written_in_parts(store, value, 1000)]
    found = sources.sort_within(tables, order, store=store, name="sorted")
    for part, original in zip(found, [value.slice(0, 15_000), value], strict=True):
        assert part.to_arrow().combine_chunks().equals(original.sort_by(order).combine_chunks())
    one = sources.sort_within("t", "s", store=store)
    assert one[0].to_arrow()["s"].to_pylist()[-1] is None
    with pytest.raises(fs.InvalidArgument):
        sources.sort_within("t", "nothing", store=store)


def test_frames_stay_frames(store: fs.Store) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [3, 1, 2, 5], "b": list("wxyz")})
    store.put(frame, "frame")
    halves = sources.partition("frame", by="rows", n=2, store=store)
    pd.testing.assert_frame_equal(halves[1].to_pandas(), frame[2:].reset_index(drop=True))
    odd = sources.partition("frame", by="value", columns="b", store=store)
    assert odd[3].to_pandas()["a"].tolist() == [5]


def test_no_rows(store: fs.Store, table: pa.Table) -> None:
    nothing = store.get(store.put(table.slice(0, 0)))
    for how in (
        {"by": "hash", "n": 2, "columns": "s"},
        {"by": "range", "n": 2, "columns": "x"},
        {"by": "rows", "n": 2},
    ):
        parts = sources.partition(nothing, store=store, **how)
        assert [part.num_rows for part in parts] == [0, 0]
        assert parts[0].schema.equals(table.schema)
    assert sources.partition(nothing, by="value", columns="s", store=store) == []
    assert [chunk.num_rows for chunk in sources.chunk(nothing, rows=10, store=store)] == [0]
    assert sources.sort_within(nothing, "id", store=store)[0].num_rows == 0
