"""What each program of examples/ must do, checked against the store itself. Each check names what was seen,
or raises. Used by languages.py and the tests.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from language_checks.gateway import Gateway

LARGE_ROWS = 8_000_000
"""Of a table of 200 MB."""

BEYOND: dict[str, set[str]] = {
    "javascript": {"list_view", "run_end_encoded"},  # unknown to apache-arrow 21
    "rust": {"sparse_union"},  # arrow-flight 60 sends it as not nullable
}
"""Columns of `types` that a language's library cannot bring there and back."""


class CheckFailed(Exception):
    """A program did something else than it should."""


@dataclass(frozen=True)
class Run:
    """One language's program, the gateways to run it against, and a folder for files."""

    language: str
    command: Callable[..., list[str]]
    """Its command line, from the program's arguments."""
    open: Gateway
    secure: Gateway
    place: Path

    def __call__(self, *words: str | Path, gateway: Gateway | None = None) -> str:
        """Run it; what it printed.

        Raises:
            CheckFailed: it failed.
        """
        options = (gateway or self.open).options()
        return self.bare(*options, *words)

    def bare(self, *words: str | Path) -> str:
        """The same without the options."""
        command = self.command(*map(str, words))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise CheckFailed(f"{' '.join(command[-3:])}: exit status {done.returncode}: {done.stderr}")
        return done.stdout

    def name(self, what: str) -> str:
        """A name in the store that is this language's alone."""
        return f"{self.language}-{what}"

    def file(self, what: str) -> Path:
        """A file of this language's alone."""
        return self.place / f"{self.language}-{what}.arrow"


# --- tables and files ---


@functools.cache
def types() -> pa.Table:
    """A few rows of the types that are in use everywhere, with nulls and without."""
    day = datetime.date(2024, 2, 29)
    instant = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    text = ["", "short", None, "longer than twelve bytes: äöü", "last"]
    columns: dict[str, pa.Array] = {
        str(kind): pa.array([1, 2, None, 4, 5], kind)
        for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32())
    }
    return pa.table(
        columns
        | {
            "int64": pa.array([-(2**63), 0, None, 2**53 + 1, 2**63 - 1]),
            "uint64": pa.array([0, 1, None, 2**53 + 1, 2**64 - 1], pa.uint64()),
            "float": pa.array([0.5, -1.5, None, 1e10, 0], pa.float32()),
            "double": pa.array([0.1, -1.5, None, 1e300, 0]),
            "without nulls": pa.array([1.5, 2.5, 3.5, 4.5, 5.5]),
            "bool": pa.array([True, False, None, True, False]),
            "string": pa.array(text),
            "large_string": pa.array(text, pa.large_string()),
            "binary": pa.array([b"", b"\0\xff", None, b"abc", b"d"]),
            "large_binary": pa.array([b"", b"\0\xff", None, b"abc", b"d"], pa.large_binary()),
            "fixed_size_binary": pa.array([b"abc", b"def", None, b"ghi", b"jkl"], pa.binary(3)),
            "date32": pa.array([day, None, day, day, day]),
            "date64": pa.array([day, None, day, day, day], pa.date64()),
            "timestamp": pa.array([instant, None, instant, instant, instant], pa.timestamp("us")),
            "timestamp with a zone": pa.array([instant, None] * 2 + [instant], pa.timestamp("ms", "UTC")),
            "time64": pa.array([instant.time(), None] * 2 + [instant.time()], pa.time64("us")),
            "duration": pa.array([1, None, 3, 4, 5], pa.duration("us")),
            "decimal": pa.array([decimal.Decimal("1.25"), None, *[decimal.Decimal("-99.00")] * 3]),
            "list": pa.array([[1, 2], [], None, [3], [4, None]]),
            "list of strings": pa.array([["a"], [], None, ["b", "c"], [None]]),
            "fixed_size_list": pa.array([[1, 2], [3, 4], None, [5, 6], [7, 8]], pa.list_(pa.int32(), 2)),
            "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 4, "b": None}, None]),
            "map": pa.array(
                [[("k", 1)], [], None, [("l", 2), ("m", None)], []], pa.map_(pa.string(), pa.int64())
            ),
            "dictionary": pa.array(["red", "blue", None, "red", "green"]).dictionary_encode(),
            "null": pa.nulls(5),
            "halffloat": pa.array([0.5, -1.5, None, 2, 0], pa.float16()),
            "decimal256": pa.array([1, None, 3, 4, 5], pa.decimal256(50, 2)),
            "string_view": pa.array(text, pa.string_view()),
            "large_list": pa.array([[1, 2], [], None, [3], [4, None]], pa.large_list(pa.int64())),
            "list_view": pa.array([[1, 2], [], None, [3], [4, None]], pa.list_view(pa.int64())),
            "interval": pa.array([(1, 2, 3), None] * 2 + [(4, 5, 6)], pa.month_day_nano_interval()),
            "run_end_encoded": pa.RunEndEncodedArray.from_arrays([2, 5], pa.array(["a", None])),
            "sparse_union": pa.UnionArray.from_sparse(
                pa.array([0, 1, 0, 1, 0], pa.int8()), [pa.array([1, 2, 3, 4, 5]), pa.array(text)]
            ),
        }
    )


def types_for(language: str) -> pa.Table:
    """What of `types` its library can bring there and back."""
    return types().drop_columns(sorted(BEYOND.get(language, ())))


@functools.cache
def large() -> pa.Table:
    """Some 200 MB in one batch, far above the limit of a gRPC message."""
    numbers = np.arange(LARGE_ROWS)
    text = pa.array(numbers % 1000).cast(pa.string())
    return pa.table({"n": numbers, "x": numbers / 2, "text": text})


def written(path: Path, table: pa.Table) -> Path:
    """The table as an Arrow file."""
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


def content(path: Path) -> pa.Table:
    """The table in an Arrow stream."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return reader.read_all()


def same(found: pa.Table, wanted: pa.Table) -> None:
    """Raise CheckFailed unless they are equal."""
    if found.schema != wanted.schema:
        raise CheckFailed(f"the schema is\n{found.schema}\ninstead of\n{wanted.schema}")
    for name in wanted.column_names:
        if not found[name].equals(wanted[name]):
            raise CheckFailed(f"{name}: {str(found[name])[:300]} instead of {str(wanted[name])[:300]}")


# --- the checks ---


def put(run: Run) -> str:
    """What a program put is what the file has."""
    table = types_for(run.language)
    run("put", run.name("put"), written(run.file("types"), table))
    with run.open.store.get(run.name("put")) as held:
        same(held.to_arrow(), table)
    return f"ok, {table.num_columns} types"


def get(run: Run) -> str:
    """What a program got is what was stored."""
    table = types_for(run.language)
    run.open.store.put(table, run.name("get"))
    run("get", run.name("get"), run.file("got"))
    same(content(run.file("got")), table)
    return f"ok, {table.num_columns} types"


def put_large(run: Run) -> str:
    """200 MB, put by the program."""
    path = written(run.file("large"), large())
    began = time.monotonic()
    run("put", run.name("put-large"), path)
    took = time.monotonic() - began
    path.unlink()
    with run.open.store.get(run.name("put-large")) as held:
        same(held.to_arrow(), large())
    run.open.store.delete(run.name("put-large"))
    return f"ok, {took:.1f} s"


def get_large(run: Run) -> str:
    """200 MB, got by the program."""
    run.open.store.put(large(), run.name("get-large"))
    began = time.monotonic()
    run("get", run.name("get-large"), run.file("got-large"))
    took = time.monotonic() - began
    run.open.store.delete(run.name("get-large"))
    same(content(run.file("got-large")), large())
    run.file("got-large").unlink()
    return f"ok, {took:.1f} s"


def list_objects(run: Run) -> str:
    """The list names what is stored."""
    run.open.store.put(types(), run.name("listed"))
    if run.name("listed") not in run("list"):
        raise CheckFailed("list does not name an object that is there")
    return "ok"


def info(run: Run) -> str:
    """Rows and columns are right; what is not there is said by its name."""
    run.open.store.put(large().slice(0, 1234), run.name("info"))
    said = run("info", run.name("info"))
    if "1234 rows" not in said or "text" not in said:
        raise CheckFailed(f"info says {said}")
    try:
        run("info", run.name("nowhere"))
    except CheckFailed as refused:
        if run.name("nowhere") in str(refused) and "Traceback" not in str(refused):
            return "ok"
        raise
    raise CheckFailed("info of an object that is not there succeeded")


def add_column(run: Run) -> str:
    """The new table has the old columns and one more, and nothing else has been made."""
    table = large().slice(0, 100_000)
    run.open.store.put(table, run.name("add"))
    before = {str(one.id) for one in run.open.store.list()}
    run("add-column", run.name("add"), run.name("added"))
    with run.open.store.get(run.name("added")) as held:
        same(held.to_arrow(), table.append_column("doubled", pa.array(table["x"].to_numpy() * 2)))
    made = [one.name for one in run.open.store.list() if str(one.id) not in before]
    if made != [run.name("added")]:
        raise CheckFailed(f"adding a column also made {made}")
    return "ok"


def in_place(run: Run) -> str:
    """A table is read where it lies in the store's memory; the lease is given back."""
    name = run.name("in-place")
    run.open.store.put(large(), name)
    said = run("inplace", name)
    wanted = f"in place: true, {LARGE_ROWS} rows, sum of float64 columns: {large()['x'].to_numpy().sum()}"
    if said.strip() != wanted:
        raise CheckFailed(f"it says {said} instead of {wanted}")
    if run.open.store.stat(name).refs:
        raise CheckFailed("the lease was not given back")
    run.open.store.delete(name)
    return "ok"


def token_and_tls(run: Run) -> str:
    """With a token over TLS all works; without the token nothing does."""
    path = written(run.file("secret"), types_for(run.language))
    run("put", run.name("secret"), path, gateway=run.secure)
    run("get", run.name("secret"), run.file("got-secret"), gateway=run.secure)
    same(content(run.file("got-secret")), types_for(run.language))
    without_token = ["--url", run.secure.url, "--ca", run.secure.ca]
    with_wrong_one = [*without_token, "--token", json.dumps("wrong")]
    for options in (without_token, with_wrong_one):
        try:
            run.bare(*options, "list")
        except CheckFailed:
            continue
        raise CheckFailed("a call without the token succeeded")
    return "ok"


OPERATIONS: dict[str, Callable[[Run], str]] = {
    "put": put,
    "get": get,
    "put 200 MB": put_large,
    "get 200 MB": get_large,
    "list": list_objects,
    "info": info,
    "add column": add_column,
    "in place": in_place,
    "token and TLS": token_and_tls,
}
"""By the words of the table. Only languages that map memory do "in place"."""
