"""Composed tables: new columns, selections, names and rows without writing the old ones again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flightstore as fs
from flightstore.testing.children import child

pytestmark = pytest.mark.req("O-2")

ROWS = 100_000
HEADERS = 8 << 10


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "n": np.arange(ROWS),
            "x": np.linspace(0, 1, ROWS),
            "s": [f"row {i}" for i in range(ROWS)],
            "l": pa.array([[i, i + 1] for i in range(ROWS)], pa.list_(pa.int32())),
        },
        metadata={"made": "here"},
    )


@pytest.fixture
def orders(store: fs.Store, table: pa.Table) -> fs.Object:
    store.put(table, "orders")
    return store.get("orders")


def growth(store: fs.Store, before: int) -> int:
    store.recover()
    return store.stats().used_bytes - before


NEW = np.arange(ROWS) * 2.5
COLUMNS = {
    "arrow": lambda: pa.array(NEW),
    "chunked": lambda: pa.chunked_array([NEW[:10], NEW[10:]]),
    "numpy": lambda: NEW,
    "pandas": lambda: pd.Series(NEW),
    "polars": lambda: pl.Series(NEW),
    "list": NEW.tolist,
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_new_column_costs_its_own_bytes(
    store: fs.Store, orders: fs.Object, table: pa.Table, kind: str
) -> None:
    before = store.stats().used_bytes
    bigger = store.with_columns("orders", {"vat": COLUMNS[kind]()}, "orders_vat")
    assert NEW.nbytes <= growth(store, before) <= NEW.nbytes + HEADERS
    expected = table.append_column("vat", pa.array(NEW))
    assert bigger.to_arrow().equals(expected, check_metadata=True)
    assert bigger.to_arrow().schema.equals(expected.schema, check_metadata=True)
    assert bigger.members == [orders.id]
    assert bigger.nbytes >= orders.nbytes + NEW.nbytes
    old = [column.chunk(0).buffers()[-1].address for column in orders.to_arrow().columns[:3]]
    assert [column.chunk(0).buffers()[-1].address for column in bigger.to_arrow().columns[:3]] == old
    assert store.fsck() == []


FRAMES = {
    "arrow": lambda: pa.table({"a": NEW, "b": NEW}),
    "batch": lambda: pa.record_batch({"a": NEW, "b": NEW}),
    "pandas": lambda: pd.DataFrame({"a": NEW, "b": NEW}),
    "polars": lambda: pl.DataFrame({"a": NEW, "b": NEW}),
}


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_adds_all_its_columns(store: fs.Store, kind: str) -> None:
    before = store.stats().used_bytes
    bigger = store.with_columns("orders", FRAMES[kind]())
    assert 2 * NEW.nbytes <= growth(store, before) <= 2 * NEW.nbytes + HEADERS
    assert bigger.schema.names == ["n", "x", "s", "l", "a", "b"]
    assert bigger.to_arrow()["b"].to_pylist() == NEW.tolist()
    assert not any(field.metadata for field in bigger.schema)


@pytest.mark.usefixtures("orders")
def test_stored_columns_are_shared_when_they_are_added(store: fs.Store) -> None:
    store.put(pa.table({"a": NEW, "b": NEW}), "new")
    before = store.stats().used_bytes
    both = store.with_columns("orders", store.get("new"))
    one = store.with_columns("orders", {"c": store.select("new", ["b"])})
    assert growth(store, before) <= HEADERS
    assert both.schema.names == ["n", "x", "s", "l", "a", "b"]
    assert one.to_arrow()["c"].to_pylist() == NEW.tolist()
    with pytest.raises(fs.InvalidArgument, match="2 columns, one is wanted for 'c'"):
        store.with_columns("orders", {"c": store.get("new")})


def test_a_column_takes_the_place_of_one_of_its_name(
    store: fs.Store, orders: fs.Object, table: pa.Table
) -> None:
    changed = store.with_columns("orders", {"x": NEW})
    assert changed.to_arrow().equals(table.set_column(1, "x", pa.array(NEW)))
    assert orders.to_arrow().equals(table)


@pytest.mark.usefixtures("orders")
def test_select_drop_rename_and_concat_write_no_rows(store: fs.Store, table: pa.Table) -> None:
    before = store.stats().used_bytes
    selected = store.select("orders", ["s", "n"], "selected")
    dropped = store.drop("orders", ["l"], "dropped")
    renamed = store.rename("orders", {"n": "number", "s": "words"}, "renamed")
    longer = store.concat(["orders", "orders", "orders"], "longer")
    none = store.select("orders", [])
    assert growth(store, before) <= HEADERS
    assert selected.to_arrow().equals(table.select(["s", "n"]), check_metadata=True)
    assert dropped.to_arrow().equals(table.drop_columns(["l"]), check_metadata=True)
    expected = table.rename_columns(["number", "x", "words", "l"]).replace_schema_metadata(
        table.schema.metadata
    )
    assert renamed.to_arrow().equals(expected, check_metadata=True)
    assert longer.to_arrow().equals(pa.concat_tables([table] * 3), check_metadata=True)
    assert (none.num_rows, none.to_arrow().num_rows, none.schema.names) == (ROWS, ROWS, [])
    assert selected.nbytes < dropped.nbytes < longer.nbytes + 1
    again = store.concat(
        [longer, store.select(store.rename(renamed, {"number": "n", "words": "s"}), list("nxsl"))]
    )
    assert again.to_arrow().equals(pa.concat_tables([table] * 4))
    assert store.fsck() == []


def test_nothing_breaks_when_the_original_goes_and_all_comes_back(store: fs.Store, table: pa.Table) -> None:
    store.recover()
    before = store.stats().used_bytes
    store.put(table, "orders")
    store.with_columns("orders", {"vat": NEW}, "vat")
    store.select("vat", ["vat", "s"], "part")
    store.rename("part", {"s": "words"}, "words")
    store.delete("orders")
    store.delete("vat")
    store.put(bytes(store.stats().free_bytes // 2))  # were anything freed too early, it would be overwritten
    words = store.get("words")
    assert words.to_arrow()["words"].to_pylist() == table["s"].to_pylist()
    del words
    store.delete([info.id for info in store.list()])
    store.recover()
    assert store.stats().used_bytes == before
    assert store.fsck() == []


def test_a_released_original_can_go_while_its_successor_is_read(store: fs.Store, table: pa.Table) -> None:
    store.put(table, "orders")
    view = store.with_columns(store.get("orders"), {"vat": NEW}).to_arrow()
    store.delete([info.id for info in store.list()])
    store.recover()
    store.put(bytes(store.stats().free_bytes // 2))
    assert view.equals(table.append_column("vat", pa.array(NEW)))
    del view
    assert store.recover().freed_objects >= 1


def test_a_deleted_object_that_is_still_held_can_be_built_upon(
    store: fs.Store, orders: fs.Object, table: pa.Table
) -> None:
    store.delete("orders")
    bigger = store.with_columns(orders, {"vat": NEW}, "late")
    orders.release()
    store.recover()
    assert bigger.to_arrow().drop_columns(["vat"]).equals(table)
    assert bigger.members == []
    assert store.fsck() == []


def test_an_overwritten_member_stays_under_its_id_until_its_last_user_goes(
    store: fs.Store, table: pa.Table
) -> None:
    old = store.put(table, "orders")
    store.with_columns("orders", {"vat": NEW}, "orders")  # takes the name of what it is made of
    assert store.get("orders").schema.names[-1] == "vat"
    assert store.get(old).to_arrow().equals(table)
    assert store.delete(old, if_unused=True) == 0
    store.put(b"", "orders")
    with pytest.raises(fs.ObjectNotFound):
        store.get(old)
    assert store.fsck() == []
    store.delete("orders")
    store.recover()
    assert store.stats().objects == 0
    assert store.stats().used_bytes == 0


def test_a_column_added_a_hundred_times_under_one_name(store: fs.Store) -> None:
    store.put(pa.table({"n": [1, 2]}), "t")
    for number in range(100):
        store.with_columns("t", {f"c{number}": [number, number]}, "t")
    table = store.get("t").to_arrow()
    assert table.num_columns == 101
    assert table["c99"].to_pylist() == [99, 99]
    assert store.fsck() == []
    del table
    store.delete("t")
    store.recover()
    assert (store.stats().objects, store.stats().used_bytes) == (0, 0)


def test_metadata_names_and_ids(store: fs.Store, orders: fs.Object) -> None:
    chosen = fs.ObjectID(b"chosen")
    notes = {"why": "x" * 5000}
    made = store.select(orders, ["n"], "made", object_id=chosen, metadata=notes)
    assert (made.id, made.name, made.metadata) == (chosen, "made", notes)
    assert store.get("made").to_arrow().num_columns == 1
    with pytest.raises(fs.ObjectExists):
        store.select(orders, ["n"], object_id=chosen)
    assert [holder.refs for holder in made.holders()] == [1]


@pytest.mark.usefixtures("orders")
@pytest.mark.req("API-11")
def test_what_is_refused(store: fs.Store) -> None:
    store.put(np.zeros(3), "tensor")
    store.put(pa.table([[1], [2]], names=["d", "d"]), "twice")
    with pytest.raises(fs.InvalidArgument, match=r"'vat' has 3 rows, the object 'orders' has 100,000"):
        store.with_columns("orders", {"vat": [1, 2, 3]})
    with pytest.raises(fs.InvalidArgument, match=r"'orders' has no column 'z'.*'n', 'x'"):
        store.select("orders", ["z"])
    with pytest.raises(fs.InvalidArgument, match="2 columns 'd'"):
        store.drop("twice", ["d"])
    with pytest.raises(fs.InvalidArgument, match="'tensor' is a tensor, not a table"):
        store.rename("tensor", {})
    with pytest.raises(fs.InvalidArgument, match=r"\['d', 'd'\]"):
        store.concat(["orders", "twice"])
    with pytest.raises(fs.InvalidArgument, match="nothing to concatenate"):
        store.concat([])
    with pytest.raises(fs.NotStorable, match="'vat'"):
        store.with_columns("orders", {"vat": [object()] * ROWS})
    with pytest.raises(fs.NotStorable, match="int is neither"):
        store.with_columns("orders", 3)
    store.put(
        pa.table({"n": ["text"], "x": [1.0], "s": ["s"], "l": pa.array([[1]], pa.list_(pa.int32()))}), "o"
    )
    with pytest.raises(fs.InvalidArgument, match="'n' is int64 in the object 'orders' and string"):
        store.concat(["orders", "o"])
    assert store.stats().objects == 4
    assert store.fsck() == []


def test_an_object_of_another_store_is_refused(store: fs.Store, store_dir: str) -> None:
    with fs.connect(f"{store_dir}-other", capacity="1MiB") as other:
        other.put(pa.table({"a": [1]}), "t")
        with pytest.raises(fs.InvalidArgument, match="in another store"):
            store.select(other.get("t"), ["a"])
        other.destroy()


def test_another_process_reads_what_was_composed(store: fs.Store, orders: fs.Object, table: pa.Table) -> None:
    made = store.rename(store.with_columns(orders, {"vat": NEW}), {"n": "number"}, "made")
    expected = made.to_arrow()

    def read() -> bool:
        with fs.connect(store.path) as there:
            return bool(there.get("made").to_arrow().equals(expected, check_metadata=True))

    assert child(read)


def test_a_composed_table_put_again_is_a_table_of_its_own(store: fs.Store, orders: fs.Object) -> None:
    made = store.rename(orders, {"n": "number"})
    copy = store.get(store.put(made))
    assert copy.to_arrow().equals(made.to_arrow(), check_metadata=True)
    assert copy.members == []


def test_a_frame_stays_a_frame(store: fs.Store) -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    store.put(frame, "frame")
    made = store.with_columns("frame", {"c": pl.Series([0.5, 1.5])})
    assert made.value().equals(frame.with_columns(c=pl.Series([0.5, 1.5])))


columns = st.lists(st.sampled_from("abcd"), unique=True, min_size=1, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("select"), columns),
        st.tuples(st.just("drop"), columns),
        st.tuples(st.just("with"), st.sampled_from("abcdef")),
        st.tuples(st.just("concat"), st.integers(1, 3)),
        st.tuples(st.just("rename"), st.sampled_from("abcd")),
    ),
    max_size=6,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_any_steps_do_what_arrow_does(store: fs.Store, steps: list[tuple[str, object]]) -> None:
    """The same steps on the stored table and on an Arrow table in memory."""
    model = pa.table({name: pa.array([f"{name}{i}" for i in range(3)]) for name in "abcd"})
    obj = store.get(store.put(model))
    for number, (step, argument) in enumerate(steps):
        names = model.schema.names
        if step == "select":
            chosen = [name for name in argument if name in names]  # type: ignore[attr-defined]
            model, obj = model.select(chosen), store.select(obj, chosen)
        elif step == "drop":
            chosen = [name for name in argument if name in names]  # type: ignore[attr-defined]
            model, obj = model.drop_columns(chosen), store.drop(obj, chosen)
        elif step == "with":
            column = pa.array([f"{argument}{number}{i}" for i in range(model.num_rows)])
            where = names.index(argument) if argument in names else len(names)
            changed = model.set_column if argument in names else model.add_column
            model, obj = changed(where, argument, column), store.with_columns(obj, {str(argument): column})
        elif step == "concat" and names:  # Arrow forgets the rows of tables without columns
            model = pa.concat_tables([model] * argument)  # type: ignore[operator]
            obj = store.concat([obj] * argument)  # type: ignore[operator]
        elif step == "rename" and argument in names:
            new = f"{argument}{number}"
            model = model.rename_columns([new if name == argument else name for name in names])
            obj = store.rename(obj, {str(argument): new})
        assert obj.num_rows == model.num_rows
        assert obj.to_arrow().equals(model)
    del obj
    store.delete([info.id for info in store.list()])
    store.recover()
    assert store.stats().used_bytes == 0
    assert store.fsck() == []
