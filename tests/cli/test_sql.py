"""sql: stored tables by name; the result shown, in a file, or in the store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import flightstore

from .conftest import Run


@pytest.fixture
def orders(store: flightstore.Store) -> flightstore.Store:
    store.put(pa.table({"id": range(50), "who": ["ann", "bob"] * 25}), "orders")
    store.put(pa.table({"x": [1.5]}), "2030/other")
    return store


@pytest.mark.req("O-1")
def test_people_see_the_first_rows(orders: flightstore.Store, run: Run) -> None:
    ran = run("sql", "select who, sum(id) as total from orders group by who order by who")
    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["who", "total"],
        ["ann", "600"],
        ["bob", "625"],
    ]
    some = run("sql", "from orders order by id", "-n", "3").out
    assert "first 3 rows; there are more" in some
    assert len(some.splitlines()) == 5
    assert "1.5" in run("sql", 'from "2030/other"').out


@pytest.mark.req("O-1")
def test_programs_get_json(orders: flightstore.Store, run: Run) -> None:
    ran = run("sql", "from orders order by id", "--rows", "2", "--json")
    assert ran.json == {"columns": ["id", "who"], "values": [[0, "ann"], [1, "bob"]], "more": True}
    assert run("sql", "select count(*) as n from orders", "--json").json["values"] == [[50]]


@pytest.mark.req("O-1")
def test_into_a_file_and_into_the_store(orders: flightstore.Store, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    ran = run("sql", "from orders where id < 7", "-o", str(path))
    assert (ran.code, "7 rows" in ran.out) == (0, True)
    assert parquet.read_table(path).num_rows == 7
    assert run("sql", "from orders", "-o", str(path), "--json").json["rows"] == 50
    ran = run("sql", "from orders where who = 'bob'", "--name", "bobs")
    assert "bobs: 25 rows" in ran.out
    assert orders.get("bobs").num_rows == 25  # type: ignore[attr-defined]
    assert run("sql", "from bobs", "--name", "again", "--json").json["rows"] == 25


@pytest.mark.req("API-14")
def test_what_is_wrong_is_said(orders: flightstore.Store, run: Run, tmp_path: Path) -> None:
    ran = run("sql", "from nobody")
    assert ran.code == 2
    assert "nobody" in ran.err
    assert "Traceback" not in ran.err
    assert run("sql", "selec 1", "--json").error["error"] == "InvalidArgument"
    assert run("sql", "from orders", "-o", "x.parquet", "--name", "x").code == 2
    assert run("sql", "from orders", "-o", str(tmp_path / "x.npy")).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.req("ISO-1")
def test_a_sessions_tables(orders: flightstore.Store, run: Run) -> None:
    session = orders.session("mine")
    session.put(pa.table({"id": [7]}), "orders")
    assert run("sql", "from orders", "--session", "mine", "--json").json["values"] == [[7]]
