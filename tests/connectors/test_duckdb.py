"""Stored tables in DuckDB: by name, shared, with what a query needs only; and results back in the store."""

from __future__ import annotations

import contextlib
import gc
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings

import flightstore as fs
from flightstore.connectors.duckdb import dataset, from_duckdb, query, register, to_duckdb
from flightstore.testing.children import spawned
from flightstore.testing.types import strategies

from .arrow_cases import leaves, nestings

ROWS = 1000


@pytest.fixture
def orders(store: fs.Store) -> fs.Store:
    table = pa.table(
        {"id": np.arange(ROWS), "price": np.arange(ROWS) * 0.5, "who": ["ann", "bob"] * (ROWS // 2)}
    )
    store.put(table, "orders")
    store.put(pa.table({"id": np.arange(ROWS), "city": ["Oslo"] * ROWS}), "2030/where they live")
    return store


def holders(store: fs.Store, name: str) -> int:
    gc.collect()
    return len(store.holders(name))


@pytest.mark.req("O-1")
def test_names_in_sql_are_stored_tables(orders: fs.Store) -> None:
    found = query(
        'select who, count(*), sum(price) from orders join "2030/where they live" using (id)'
        " where city = 'Oslo' and id < 10 group by who order by who",
        store=orders,
    )
    assert found.fetchall() == [("ann", 5, 10.0), ("bob", 5, 12.5)]


@pytest.mark.req("O-1")
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("from orders where id = 3", [(3, 1.5, "bob")]),
        ("select count(*) from 'orders'", [(ROWS,)]),
        ("with orders as (select 1 as k) from orders", [(1,)]),
        ("select (select max(id) from orders)", [(ROWS - 1,)]),
        ("select count(*) from orders a join orders b using (id)", [(ROWS,)]),
        ("select count(*) from (pivot orders on who using sum(id) group by price)", [(ROWS,)]),
        ("/* orders */ select 'orders' -- orders", [("orders",)]),
        ("select orders.id from orders limit 0", []),
        ("summarize orders", None),
    ],
)
def test_any_statement(orders: fs.Store, sql: str, expected: list[Any] | None) -> None:
    found = query(sql, store=orders).fetchall()
    assert expected is None or found == expected


@pytest.mark.req("O-1")
@pytest.mark.parametrize(
    "name", ["größe", "日本 2030", 'say "so"', "it's", "a;b -- c", "x/y.parquet", "select", "$n"]
)
def test_any_name(store: fs.Store, name: str) -> None:
    store.put(pa.table({"é": [1, 2]}), name)
    quoted = name.replace('"', '""')
    sql = f"""/* 😀 */ select '😀' as face, "é" from "{quoted}" where "é" > 1"""
    assert query(sql, store=store).fetchall() == [("😀", 2)]
    if name.isidentifier() and name != "select":
        assert query(f"select count(*) as né from {name}", store=store).fetchall() == [(2,)]


@pytest.mark.req("O-1")
def test_parameters_and_statements_without_rows(orders: fs.Store) -> None:
    con = duckdb.connect()
    query("create table few as select * from orders where id < $1", store=orders, con=con, params=[5])
    assert con.sql("select count(*) from few").fetchall() == [(5,)]
    assert query("from orders where id = $n", store=orders, params={"n": 2}).fetchall() == [(2, 1.0, "ann")]


@pytest.mark.req("O-1")
def test_tables_of_the_connection_come_first_and_are_left_alone(orders: fs.Store) -> None:
    con = duckdb.connect()
    con.execute("create table orders as select 7 as k")
    assert query("from orders", store=orders, con=con).fetchall() == [(7,)]
    query('from "2030/where they live"', store=orders, con=con).fetchall()
    assert con.sql("select count(*) from duckdb_views() where not internal").fetchall() == [(0,)]


@pytest.mark.req("O-1")
@pytest.mark.parametrize("sql", ["from nobody", "from Orders", "from elsewhere.orders", "from", "selec 1"])
def test_what_is_not_there_is_duckdbs_error(orders: fs.Store, sql: str) -> None:
    with pytest.raises(duckdb.Error):
        query(sql, store=orders).fetchall()
    assert holders(orders, "orders") == 0


@pytest.mark.req("O-1")
def test_a_connection_that_looks_nowhere_is_told(orders: fs.Store) -> None:
    con = duckdb.connect()
    con.execute("set python_enable_replacements = false")
    with pytest.raises(fs.InvalidArgument, match="outside of itself") as refused:
        query("from orders", store=orders, con=con)
    assert "register" in refused.value.hint
    assert register(con, "ord*", store=orders) == ["orders"]
    assert con.sql("select count(*) from orders").fetchall() == [(ROWS,)]


@pytest.mark.req("INV-2", "O-1")
def test_a_relation_keeps_what_it_was_made_of(orders: fs.Store) -> None:
    relation = query("select sum(id) from orders", store=orders)
    assert holders(orders, "orders") == 1
    assert holders(orders, "2030/where they live") == 0, "not named, not held"
    orders.put(pa.table({"id": [1]}), "orders")
    orders.recover()
    assert relation.fetchall() == [(sum(range(ROWS)),)]
    assert query("select sum(id) from orders", store=orders).fetchall() == [(1,)]
    del relation
    gc.collect()
    assert orders.recover().freed_objects == 1


@pytest.mark.req("O-3")
def test_only_what_a_query_needs_is_read(orders: fs.Store) -> None:
    relation = query("select price from orders where id > 990 and who = 'ann'", store=orders)
    plan = relation.explain()
    scan = plan[plan.index("Scan") :]
    assert "id" in scan
    assert "Filters" in scan, plan
    assert "Projections: price" in scan, plan
    assert relation.fetchall() == [(value * 0.5,) for value in (992, 994, 996, 998)]
    everything = query("select who from orders", store=orders).explain()
    assert "Projections: who" in everything
    assert "price" not in everything


@pytest.mark.req("O-1")
def test_views_that_are_registered(orders: fs.Store) -> None:
    con = duckdb.connect()
    orders.put(np.arange(3), "no table")
    assert register(con, store=orders) == ["2030/where they live", "orders"]
    assert con.sql('select count(*) from "2030/where they live" join orders using (id)').fetchall() == [
        (ROWS,)
    ]
    con.close()
    assert holders(orders, "orders") == 0
    orders.put(pa.table({"id": [1]}), "ORDERS")
    with pytest.raises(fs.InvalidArgument, match="one name to DuckDB"):
        register(duckdb.connect(), store=orders)


@pytest.mark.req("O-1")
def test_a_relation_of_an_object(orders: fs.Store) -> None:
    obj: Any = orders.get("orders")
    con = duckdb.connect()
    relation = obj.to_duckdb(con)
    assert relation.filter("id < 3").project("who").fetchall() == [("ann",), ("bob",), ("ann",)]
    assert to_duckdb(obj).count("*").fetchall() == [(ROWS,)]
    assert obj.to("duckdb", con=con).limit(1).fetchall() == [(0, 0.0, "ann")]
    orders.put(np.arange(3), "tensor")
    with pytest.raises(fs.NotConvertible, match="no table"):
        orders.get("tensor").to("duckdb")


# --- results back ---


@pytest.mark.req("O-1")
def test_results_come_back(orders: fs.Store) -> None:
    relation = query("select who, sum(price) as total from orders group by who order by who", store=orders)
    expected = {"who": ["ann", "bob"], "total": [249500 / 2, 250000 / 2]}
    orders.put(relation, "totals")
    made = from_duckdb(relation, orders, "streamed", metadata={"by": "who"})
    for name in ("totals", "streamed"):
        assert orders.get(name).to_arrow().to_pydict() == expected  # type: ignore[attr-defined]
    assert made.metadata == {"by": "who"}
    empty = from_duckdb(query("from orders where id < 0", store=orders), orders)
    assert empty.to_arrow().schema.names == ["id", "price", "who"]  # type: ignore[attr-defined]


class Breaking:
    """A relation whose query fails after two parts' worth of rows."""

    def __init__(self, store: fs.Store) -> None:
        self.store = store
        self.objects_seen = 0

    def to_arrow_reader(self, rows: int) -> pa.RecordBatchReader:
        batch = pa.record_batch({"a": np.zeros(2 << 20)})

        def batches() -> Iterator[pa.RecordBatch]:
            yield from [batch] * 5
            self.objects_seen = self.store.stats().objects
            raise ArithmeticError("in the middle")

        return pa.RecordBatchReader.from_batches(batch.schema, batches())


@pytest.mark.req("FAIL-2")
def test_a_query_that_fails_leaves_nothing(shared_store: fs.Store) -> None:
    shared_store.recover()
    before = shared_store.stats()
    relation = Breaking(shared_store)
    with pytest.raises(ArithmeticError, match="in the middle"):
        from_duckdb(relation, shared_store, "broken")
    assert relation.objects_seen == before.objects + 2, "parts were there"
    gc.collect()
    shared_store.recover()
    after = shared_store.stats()
    assert (after.objects, after.used_bytes) == (before.objects, before.used_bytes)
    assert shared_store.batches() == []


class Sampled:
    """A relation that looks, at each batch, how much private memory the process has."""

    def __init__(self, relation: Any) -> None:
        self.relation = relation
        self.most = 0

    def to_arrow_reader(self, rows: int) -> pa.RecordBatchReader:
        reader = self.relation.to_arrow_reader(rows)

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                self.most = max(self.most, private_bytes())
                yield batch

        return pa.RecordBatchReader.from_batches(reader.schema, batches())


def private_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def streamed(path: str) -> tuple[int, int, int]:
    """(bytes stored, sum of a column, most private memory beyond that before)."""
    with fs.connect(path) as store:
        con = duckdb.connect(config={"threads": 2})
        relation = Sampled(con.sql("select range as a, range * 2 as b from range(20000000)"))
        before = private_bytes()
        made: Any = from_duckdb(relation, store, "big")
        return made.nbytes, pa.compute.sum(made.to_arrow()["b"]).as_py(), relation.most - before


@pytest.mark.req("O-3")
@pytest.mark.slow
def test_a_large_result_is_never_in_private_memory(store_dir: str) -> None:
    with fs.connect(store_dir, capacity="512MiB") as store:
        stored, total, most = spawned(streamed, store_dir)
        assert stored >= 320_000_000
        assert total == 20_000_000 * 19_999_999
        assert most < 200 << 20
        store.destroy()


# --- types ---


def cases() -> Iterator[tuple[str, pa.Array]]:
    for name, array in leaves().items():
        yield name, array
        for around, nested in nestings(array).items():
            yield f"{around} of {name}", nested


def plain(array: Any) -> list[Any]:
    """The values as DuckDB has them: instants without a zone, durations as intervals, other numbers alike."""
    return [_plain(value) for value in array.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "total_seconds"):
        return ("interval", 0, 0, _wrapped(int(pa.scalar(value, pa.duration("us")).value) * 1000))
    if isinstance(value, pa.MonthDayNano):
        return ("interval", *value)
    if hasattr(value, "astimezone") and value.tzinfo is not None:
        return ("instant", value.timestamp())
    if isinstance(value, Decimal):
        return value.normalize()
    return repr(str(value) if isinstance(value, uuid.UUID) else value)


def _wrapped(number: int) -> int:
    """As 64 bits hold it: DuckDB's intervals are wider than Arrow's, in which the test gets them back."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def attempt(stored: Any) -> tuple[Any, Any]:
    """The dataset, or why there is none."""
    try:
        return dataset(stored), None
    except fs.NotConvertible as error:
        return None, error


@pytest.mark.req("TYP-1")
def test_every_type_comes_through_or_is_refused_by_name(shared_store: fs.Store) -> None:
    con, refused, wrong = duckdb.connect(), [], []
    for name, array in cases():
        stored = shared_store.get(shared_store.put(pa.table({"the column": array})))
        if stored.kind != "table":  # Arrow's streams cannot say it
            continue
        source, error = attempt(stored)
        if source is None:
            assert "'the column'" in error.message, name
            assert str(array.type)[:20] in error.message, name
            assert error.hint
            refused.append(name)
            continue
        found = con.from_arrow(source).to_arrow_table().column(0)
        if plain(found) != plain(array):
            wrong.append((name, plain(found), plain(array)))
    assert wrong == []
    assert {"dense union", "interval", "decimal256, wide", "list of halffloat"} <= set(refused)
    assert len([name for name in refused if " of " not in name]) <= 5


@pytest.mark.req("TYP-1")
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=strategies.tables())
def test_generated_tables_come_through_or_are_refused(shared_store: fs.Store, table: pa.Table) -> None:
    with contextlib.suppress(fs.NotStorable):
        shared_store.put(table, "generated", pickle=False)
        source, _ = attempt(shared_store.get("generated"))
        assume(source is not None)
        try:
            found = duckdb.connect().from_arrow(source).to_arrow_table()
        except (duckdb.ConversionException, duckdb.InvalidInputException):
            # Said aloud: an instant beyond DuckDB's; nothing but empty lists over a dictionary.
            return
        for ours, theirs in zip(table.columns, found.columns, strict=True):
            with contextlib.suppress(OverflowError):  # beyond Python's dates: not to be compared here
                assert plain(theirs) == plain(ours)


@pytest.mark.req("TYP-1")
def test_what_is_changed_on_request(store: fs.Store) -> None:
    values = {"n": pa.array([pa.MonthDayNano([1, 2, 3001])]), "N": [1], "half": pa.array([1.5], pa.float16())}
    obj: Any = store.get(store.put(pa.table(values)))
    with pytest.raises(fs.NotConvertible, match="'n' and 'N'"):
        obj.to_duckdb()
    relation = obj.to_duckdb(strict=False)
    assert relation.columns == ["n", "N_2", "half"]
    found = relation.to_arrow_table()
    assert found["n"].to_pylist() == [pa.MonthDayNano([1, 2, 3000])]
    assert found["half"].to_pylist() == [1.5]
    store.put(obj, "t")
    with pytest.raises(fs.NotConvertible, match="table 't': columns"):
        query("from t", store=store)
    assert query('select "N_2" from t', store=store, strict=False).fetchall() == [(1,)]


@pytest.mark.req("TYP-1")
@pytest.mark.parametrize("inner", [pa.struct([]), pa.struct([("x", pa.int8())]), pa.list_(pa.int8(), 2)])
def test_run_ends_of_what_has_parts_are_refused(store: fs.Store, inner: pa.DataType) -> None:
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.nulls(1, inner))
    obj: Any = store.get(store.put(pa.table({"runs": ends})))
    with pytest.raises(fs.NotConvertible, match=r"'runs' .* run ends of anything but plain values"):
        obj.to_duckdb()


@pytest.mark.req("TYP-1")
@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
def test_lists_over_run_ends_are_refused(store: fs.Store, make: Callable[[Any], pa.DataType]) -> None:
    kind = make(pa.run_end_encoded(pa.int32(), pa.string()))
    obj: Any = store.get(store.put(pa.table({"lists": pa.chunked_array([], kind)})))
    with pytest.raises(fs.NotConvertible, match=r"'lists' .* lists over run ends"):
        obj.to_duckdb()


@pytest.mark.req("TYP-1")
@pytest.mark.parametrize("precision", [1, 39, 76])
def test_decimals_finer_than_duckdbs(store: fs.Store, precision: int) -> None:
    """It has 38 digits after the point: what needs no more is taken."""
    kind = pa.decimal256(precision, 39)
    units = [0, 10, -90] if precision > 1 else [0]
    raw = b"".join(number.to_bytes(32, "little", signed=True) for number in units)
    table = pa.table({"d": pa.Array.from_buffers(kind, len(units), [None, pa.py_buffer(raw)])})
    obj: Any = store.get(store.put(table))
    found = obj.to_duckdb().to_arrow_table().column(0)
    assert plain(found) == plain(table.column(0))
    one = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer((1).to_bytes(32, "little"))])
    finer: Any = store.get(store.put(pa.table({"d": one})))
    with pytest.raises(fs.NotConvertible, match="'d' is of type decimal256"):
        finer.to_duckdb()
    assert finer.to_duckdb(strict=False).fetchall() == [("1E-39",)]


@pytest.mark.req("TYP-1")
def test_durations_that_fit_are_taken(store: fs.Store) -> None:
    whole = pa.array([1000, None, -3_000_000], pa.duration("ns"))
    for array in (whole, pa.concat_arrays([whole, whole])[2:]):
        obj: Any = store.get(store.put(pa.table({"d": array})))
        assert obj.to_duckdb().count("*").fetchall() == [(len(array),)]
    fine: Any = store.get(store.put(pa.table({"d": pa.array([1001], pa.duration("ns"))})))
    with pytest.raises(fs.NotConvertible, match="'d' is of type duration"):
        fine.to_duckdb()


@pytest.mark.req("TYP-1")
def test_tables_without_columns_are_refused(store: fs.Store) -> None:
    obj: Any = store.get(store.put(pa.table({"x": pa.nulls(3)}).select([])))
    with pytest.raises(fs.NotConvertible, match="without columns"):
        obj.to_duckdb()
