"""Chunks become contiguous columns, and slices are cut to their rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightstore.objects import encoding, gather
from flightstore.objects.registry import encode

from .conftest import open_payload
from .test_ipc import roundtrip

pytestmark = pytest.mark.req("TYP-1")

COLUMNS: dict[str, Callable[[int], pa.Array]] = {
    "int64": lambda n: pa.array(np.arange(n)),
    "int8 with nulls": lambda n: pa.array([None if i % 3 == 0 else i % 100 for i in range(n)], pa.int8()),
    "float16": lambda n: pa.array(np.arange(n).astype(np.float16)),
    "bool": lambda n: pa.array([i % 3 == 0 for i in range(n)]),
    "bool with nulls": lambda n: pa.array([[True, None, False][i % 3] for i in range(n)]),
    "string": lambda n: pa.array([f"s{i}" * (i % 5) for i in range(n)]),
    "large binary with nulls": lambda n: pa.array(
        [None if i % 4 == 0 else b"x" * (i % 7) for i in range(n)], pa.large_binary()
    ),
    "date": lambda n: pa.array([date(2024, 1, 1)] * n),
    "decimal256": lambda n: pa.array(range(n), pa.decimal256(60, 0)),
    "fixed binary": lambda n: pa.array([b"abc"] * n, pa.binary(3)),
    "interval": lambda n: pa.array([(1, 2, i) for i in range(n)], pa.month_day_nano_interval()),
    "null": lambda n: pa.nulls(n),
    "uuid": lambda n: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([i.to_bytes(16, "big") for i in range(n)], pa.binary(16))
    ),
    "all null": lambda n: pa.nulls(n, pa.float64()),
}
KEPT: dict[str, Callable[[int], pa.Array]] = {
    "list": lambda n: pa.array([[i, None] for i in range(n)], pa.list_(pa.int64())),
    "struct": lambda n: pa.array([{"a": i} for i in range(n)]),
    "view": lambda n: pa.array([f"longer than twelve {i}" for i in range(n)], pa.string_view()),
    "run end": lambda n: (
        pa.array([i // 4 for i in range(n)]).cast(pa.int64()).__class__
        and pa.RunEndEncodedArray.from_arrays(pa.array([n], pa.int32()), pa.array(["v"]))
    ),
}


def cut(array: pa.Array, sizes: list[int]) -> pa.ChunkedArray:
    """An array in chunks of these sizes, each a slice at an offset."""
    ends = np.cumsum([0, *sizes])
    return pa.chunked_array(
        [array.slice(start, size) for start, size in zip(ends, sizes, strict=False)], array.type
    )


@pytest.mark.parametrize("joined_bytes", [0, 1 << 40], ids=["large", "small"])
@pytest.mark.parametrize("piece_bytes", [0, 1 << 40], ids=["piece by piece", "column by column"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_chunks_is_contiguous(
    name: str, piece_bytes: int, joined_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "JOINED_BYTES", joined_bytes)
    monkeypatch.setattr(gather, "PIECE_BYTES", piece_bytes)
    sizes = [3, 0, 64, 1, 9, 100]
    column = cut(COLUMNS[name](sum(sizes)), sizes)
    got = roundtrip(pa.table({"before": cut(pa.array(range(177)), [100, 77]), name: column}))
    assert [part.num_chunks for part in got.columns] == [1, 1]
    assert got[name].null_count == column.null_count


@pytest.mark.parametrize("name", KEPT)
def test_other_columns_keep_their_chunks_and_do_not_hinder(name: str) -> None:
    sizes = [20, 30, 50]
    table = pa.table({"n": cut(pa.array(range(100)), sizes), name: cut(KEPT[name](100), sizes)})
    got = roundtrip(table)
    assert got["n"].num_chunks == 1
    assert got[name].num_chunks == 3


def test_dictionaries_that_are_the_same_are_gathered_and_others_are_not() -> None:
    words = pa.array(["a", "b", None])
    same = [pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), words) for _ in range(3)]
    other = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), pa.array(["x", "y"]))
    assert roundtrip(pa.table({"d": pa.chunked_array(same)}))["d"].num_chunks == 1
    assert roundtrip(pa.table({"d": pa.chunked_array([*same, other])}))["d"].num_chunks == 4


@pytest.mark.req("TYP-6")
def test_numbers_of_sixteen_chunks_are_arrays_without_a_copy() -> None:
    rows = 160_000
    sizes = [rows // 16] * 16
    table = pa.table({"n": cut(pa.array(np.arange(rows)), sizes), "x": cut(pa.array(np.ones(rows)), sizes)})
    obj = open_payload(encode(table))
    frame = obj.to_arrow().to_pandas(split_blocks=True, zero_copy_only=True)
    assert frame["n"].sum() == rows * (rows - 1) // 2


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.sampled_from([*COLUMNS, "list", "view", "struct"]), min_size=1, max_size=5, unique=True
    ),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    offset=st.integers(0, 9),
)
def test_any_columns_in_any_chunks(names: list[str], sizes: list[int], offset: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "JOINED_BYTES", 0)
        _any_columns(names, sizes, offset)


def _any_columns(names: list[str], sizes: list[int], offset: int) -> None:
    rows = sum(sizes)
    makers = {**COLUMNS, **KEPT}
    roundtrip(pa.table({name: cut(makers[name](rows + offset).slice(offset), sizes) for name in names}))


# --- slices ---

MANY = 100_000
WASTEFUL: dict[str, Callable[[], pa.Array]] = {
    "string": lambda: pa.array([f"the text of row {i}" for i in range(MANY)]),
    "string view": lambda: pa.array([f"the text of row {i}" for i in range(MANY)], pa.string_view()),
    "binary view with nulls": lambda: pa.array(
        [None if i % 3 else b"the bytes of row %d" % i for i in range(MANY)], pa.binary_view()
    ),
    "list": lambda: pa.array([[i, i] for i in range(MANY)]),
    "list view": lambda: pa.array([[i, i] for i in range(MANY)], pa.list_view(pa.int64())),
    "large list view of texts": lambda: pa.array(
        [[f"the text of row {i}"] for i in range(MANY)], pa.large_list_view(pa.string())
    ),
    "list of string views": lambda: pa.array(
        [[f"the text of row {i}", "short"] for i in range(MANY)], pa.list_(pa.string_view())
    ),
    "struct of string views": lambda: pa.array(
        [{"a": f"the text of row {i}"} for i in range(MANY)], pa.struct([("a", pa.string_view())])
    ),
    "struct of list views": lambda: pa.array(
        [{"a": [i, i]} for i in range(MANY)], pa.struct([("a", pa.list_view(pa.int32()))])
    ),
    "dictionary": lambda: pa.array([f"the text of row {i}" for i in range(MANY)]).dictionary_encode(),
    "list of dictionaries": lambda: pa.ListArray.from_arrays(
        pa.array(np.arange(MANY + 1, dtype=np.int32)),
        pa.array([f"the text of row {i}" for i in range(MANY)]).dictionary_encode(),
    ),
    "map": lambda: pa.array([[("k", i)] for i in range(MANY)], pa.map_(pa.string(), pa.int64())),
    "union": lambda: pa.UnionArray.from_sparse(
        pa.array(np.zeros(MANY, np.int8)), [pa.array([f"the text of row {i}" for i in range(MANY)])]
    ),
}


def stored_bytes(table: pa.Table) -> int:
    payload = encode(table)
    obj = open_payload(payload)
    got = obj.to_arrow()
    got.validate(full=True)
    assert got.schema == table.schema
    assert got.to_pydict() == table.to_pydict()
    return payload.size_bytes


@pytest.mark.parametrize("name", WASTEFUL)
def test_ten_rows_of_a_long_table_store_ten_rows(name: str) -> None:
    table = pa.table({"c": WASTEFUL[name]()}).slice(MANY // 2, 10)
    assert stored_bytes(table) <= 6 << 10


def test_a_filter_stores_what_it_let_through() -> None:
    """polars keeps the data of all rows behind the views of those that a filter lets through."""
    frame = pl.DataFrame({"s": [f"the text of row {i}" for i in range(MANY)], "n": range(MANY)})
    table = frame.filter(pl.col("n") % 5000 == 0).to_arrow(compat_level=pl.CompatLevel.newest())
    assert table["s"].type == pa.string_view()
    assert stored_bytes(table) <= 6 << 10


def test_views_of_many_buffers_in_many_chunks() -> None:
    whole = pa.array([f"the text of row {i}" for i in range(1000)], pa.string_view())
    joined = pa.concat_arrays([whole.slice(at, 300) for at in (0, 500, 100)])
    roundtrip(pa.table({"v": joined.slice(250, 400)}))
    roundtrip(pa.table({"v": pa.chunked_array([joined.slice(10, 20), joined.slice(500, 3), whole])}))


def test_garbage_in_null_rows_of_views_is_harmless() -> None:
    views = np.frombuffer(b"\xff" * 16 * 4, np.uint8)
    good = pa.array(["quite a long text", "x", "y", "z"], pa.string_view())
    raw = np.frombuffer(good.buffers()[1], np.uint8).copy()
    raw[16:32] = views[:16]
    array = pa.Array.from_buffers(
        pa.string_view(),
        4,
        [pa.py_buffer(b"\x0d"), pa.py_buffer(raw), pa.py_buffer(bytes(good.buffers()[2]) + bytes(5000))],
    )
    assert array.to_pylist() == ["quite a long text", None, "y", "z"]
    obj = open_payload(encode(pa.table({"v": array})))
    assert obj.to_arrow()["v"].to_pylist() == ["quite a long text", None, "y", "z"]
    assert obj.nbytes < 2000


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_a_dictionary_of_views_loses_what_no_row_uses(kind: pa.DataType) -> None:
    words = pa.array([f"a text that is longer than a view holds {i}" for i in range(MANY)], kind)
    array = pa.DictionaryArray.from_arrays(pa.array([9, None, 3], pa.int32()), words)
    obj = open_payload(encode(pa.table({"d": array})))
    got = obj.to_arrow()["d"].chunk(0)
    assert got.type == array.type
    assert got.dictionary.to_pylist() == [words[3].as_py(), words[9].as_py()]
    assert got.to_pylist() == array.to_pylist()
    assert obj.nbytes < 4000


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.string_view()), pa.struct([("v", pa.binary_view())]), pa.list_view(pa.string())],
    ids=str,
)
def test_a_dictionary_of_views_in_something_keeps_its_values(kind: pa.DataType) -> None:
    """Arrow takes no single ones of them."""
    texts = [f"a text that is longer than a view holds {i}" for i in range(MANY)]
    words = pa.array([{"v": text} if pa.types.is_struct(kind) else [text] for text in texts], kind)
    array = pa.DictionaryArray.from_arrays(pa.array([9, None, 3], pa.int32()), words)
    got = open_payload(encode(pa.table({"d": array}))).to_arrow()["d"].chunk(0)
    assert got.type == array.type
    assert got.to_pylist() == array.to_pylist()


def test_a_dictionary_keeps_its_order_and_small_ones_are_left_alone() -> None:
    words = pa.array([f"word {i:05}" for i in range(MANY)])
    array = pa.DictionaryArray.from_arrays(pa.array([9, None, 3, 9], pa.int32()), words, ordered=True)
    got = open_payload(encode(pa.table({"d": array}))).to_arrow()["d"].chunk(0)
    assert got.dictionary.to_pylist() == ["word 00003", "word 00009"]
    assert got.type == array.type
    few = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["used", "unused"]))
    assert open_payload(encode(pa.table({"d": few}))).to_arrow()["d"].chunk(0).dictionary.to_pylist() == [
        "used",
        "unused",
    ]
