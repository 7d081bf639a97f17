"""docs/format.md says what the code does: its tables against the code, and a store read by the page alone."""

from __future__ import annotations

import ast
import base64
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pyarrow as pa
import pytest
from pages import ROOT, table_after, tables

import flightstore as fs
from flightstore.catalog import keys, scopes, transaction
from flightstore.catalog.records import Continuation, ObjectRecord
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.layout import RESERVE_FILE, UNFINISHED
from flightstore.memory import control, leases
from flightstore.memory.allocator import size_class
from flightstore.memory.writers import MUTEX_BYTES
from flightstore.objects.blob import BlobLayout
from flightstore.objects.composition import ColumnRun, ComposedLayout, Segment
from flightstore.objects.ipc import TableLayout
from flightstore.objects.pyobject import PyObjectLayout
from flightstore.objects.tensor import TensorLayout

PAGE = (ROOT / "docs" / "format.md").read_text()
READER = Path(__file__).with_name("foreign_reader.py")


def spans(heading: str) -> dict[str, tuple[int, int]]:
    """(offset, bytes) of the fields in the table under a heading."""
    return {
        row["field"]: (int(row["offset"]), int(row["bytes"])) for row in table_after(PAGE, f"## {heading}")
    }


def struct_spans(layout: str, first: int, names: list[str]) -> dict[str, tuple[int, int]]:
    """Where the fields of a struct lie."""
    found, at = {}, first
    codes = re.findall(r"\d+s|[IQ]", re.sub(r"(\d)Q", lambda match: "Q" * int(match[1]), layout))
    for name, code in zip(names, codes, strict=True):
        found[name] = (at, struct.calcsize(f"<{code}"))
        at += found[name][1]
    return found


@pytest.mark.parametrize("row", table_after(PAGE, "### Constants"), ids=lambda row: row["constant"])
def test_constants(row: dict[str, str]) -> None:
    module, _, name = row["place"].partition(":")
    assert getattr(import_module(module), name) == ast.literal_eval(row["value"])


def test_stored_numbers_are_all_in_the_table_of_constants() -> None:
    listed = {row["place"] for row in table_after(PAGE, "### Constants")}
    prefixes = ("FLAG_", "KIND_", "CONTAINER_")
    modules = ["catalog.records", "objects.base", "objects.ipc"]
    stored = {
        f"flightstore.{module}:{name}"
        for module in modules
        for name in vars(import_module(f"flightstore.{module}"))
        if name.startswith(prefixes)
    }
    homes = {place.partition(":")[2] for place in listed}
    assert {place.partition(":")[2] for place in stored} - homes == set()


def test_identity() -> None:
    names = list(control.Identity.__dataclass_fields__)
    expected = struct_spans(control._IDENTITY.format, 0, ["magic", "version", "identity_bytes", *names])
    page = spans("control")
    assert {name: page[name] for name in expected} == expected
    assert page["checksum"] == (control._IDENTITY.size, 4)


def test_the_other_words_of_control() -> None:
    page = spans("control")
    assert page["mutex"] == (control._MUTEX_AT, MUTEX_BYTES)
    assert page["usage"] == (control._USAGE_AT, 5 * 8)
    assert page["destroyed"] == (control._DESTROYED_AT, 8)
    assert page["room_bell"] == (control._ROOM_AT, 4)
    assert page["bells"] == (control._BELL_AT, control.BELL_WORDS * control._BELL_STEP)
    assert page["event_bell"] == (control._EVENT_AT, 4)
    assert page["access"] == (control.ACCESS_AT, 8 * control.ACCESS_WORDS)
    assert sum(page["access"]) == control.CONTROL_BYTES


def test_client_files() -> None:
    page = spans("clients/")
    expected = struct_spans(
        leases.CLIENT_HEADER.format, 0, ["magic", "version", "pid", "start", "client", "created_ns"]
    )
    assert {name: page[name] for name in expected} == expected
    assert page["pid"][0] == leases._PID_AT
    assert page["high_water"] == (8 * leases.HIGH_WATER_WORD, 8)
    assert page["entries"] == (8 * leases.HEADER_WORDS, 8 * leases.MAX_ENTRIES)
    assert sum(page["entries"]) == leases.FILE_BYTES


def test_letters_of_the_catalog() -> None:
    page = {row["letter"].encode() for row in next(t for t in tables(PAGE) if "letter" in t[0])}
    letters = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, bytes)}
    assert page == letters | {keys.WARM.lower(), keys.COLD.lower()}


def test_counters() -> None:
    rows = table_after(PAGE, "**Counters**")
    assert [row["position"] for row in rows] == [str(i) for i in range(len(rows))]
    assert tuple(row["counter"] for row in rows) == transaction.Counters.__struct_fields__


@pytest.mark.parametrize(
    ("marker", "layout"),
    [
        ("### ObjectRecord", ObjectRecord),
        ("TableLayout:", TableLayout),
        ("ComposedLayout:", ComposedLayout),
        ("Segment:", Segment),
        ("ColumnRun:", ColumnRun),
        ("Continuation:", Continuation),
        ("SessionRecord:", scopes.SessionRecord),
        ("BatchRecord:", scopes.BatchRecord),
        ("SpillRecord:", scopes.SpillRecord),
        ("Lender:", scopes.Lender),
        ("EventRecord:", scopes.EventRecord),
        ("WaiterRecord:", scopes.WaiterRecord),
        ("TensorLayout:", TensorLayout),
        ("BlobLayout:", BlobLayout),
        ("PyObjectLayout:", PyObjectLayout),
    ],
)
def test_fields_of_records(marker: str, layout: type[msgspec.Struct]) -> None:
    rows = table_after(PAGE, marker)
    assert [row["position"] for row in rows] == [str(i) for i in range(len(rows))]
    assert tuple(row["field"] for row in rows) == layout.__struct_fields__


def test_kinds() -> None:
    rows = table_after(PAGE, "## Kinds")
    from flightstore.objects.registry import _KIND_NAMES

    assert {int(row["code"]): row["kind"] for row in rows} == _KIND_NAMES


def test_size_class() -> None:
    indented = re.search(
        r"((?:^    .*\n){3})", PAGE.partition("The size class of a length:")[2], re.MULTILINE
    )
    assert indented
    source = indented[1].replace("    ", "").replace("class =", "result =")

    def by_the_page(length: int) -> int:
        scope: dict[str, Any] = {"length": length, "bit_length": int.bit_length}
        exec(source, scope)
        return int(scope["result"])

    lengths = [*range(0, 5000, 7), *((1 << power) + extra for power in range(6, 45) for extra in (-1, 0, 1))]
    assert [by_the_page(length) for length in lengths] == [size_class(length) for length in lengths]


def test_the_directory(store_dir: Path) -> None:
    listed = {row["name"].rstrip("/") for row in table_after(PAGE, "## The directory")}
    with fs.connect(store_dir, capacity="16MiB") as store:
        assert {path.name for path in store_dir.iterdir()} == listed - {UNFINISHED}
        assert RESERVE_FILE in listed
        store.destroy()


def test_keys_of_a_store_are_as_long_as_the_page_says(store_dir: Path) -> None:
    with fs.connect(store_dir, capacity="16MiB") as store:
        store.put(bytes(100), name="a", object_id=fs.ObjectID(b"id"))
        store.put(bytes(200_000), name="b" * 481)
        held = store.get("a")
        store.delete("a")
        builder = store.create(10)
        lengths: dict[bytes, set[tuple[int, int]]] = {}
        for key, value in raw_records(store._conn):
            lengths.setdefault(key[:1], set()).add((len(key) - 1, len(value)))
        builder.abort()
        held.release()
    fixed = {b"F": {(0, 4)}, b"E": {(10, 12)}, b"W": {(8, 8)}, b"C": {(8, 8)}}
    fixed |= {b"w": {(10, 0)}, b"c": {(10, 0)}}
    assert {letter: lengths[letter] for letter in fixed} == fixed
    assert {key for key, _ in lengths[b"N"]} == {4 + 400 + 1 + 32}
    assert {key for key, _ in lengths[b"P"]} == {4 + 16}
    assert {key for key, _ in lengths[b"D"]} == {8}
    assert transaction._TRANSIT.size == 17


def raw_records(conn: Connection) -> list[tuple[bytes, bytes]]:
    """All records of a catalog."""
    return conn.catalog.items(b"")


@contextmanager
def foreign_reader(store_dir: Path, name: str) -> Iterator[dict[str, Any]]:
    """What a program that imports nothing of flightstore reads of a table; it holds the table meanwhile."""
    command = [sys.executable, "-I", "-W", "error", str(READER), str(store_dir), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line, "the reader failed; see its standard error"
        yield json.loads(line)
        process.communicate(timeout=30)
    assert process.returncode == 0


def table_of(report: dict[str, Any]) -> pa.Table:
    """The table that a foreign reader read."""
    return pa.ipc.open_stream(base64.b64decode(report["stream"])).read_all()


BATCH = {"n": [1, None, 3], "s": ["x", "yy", None], "l": [[1], [], None]}
MAKERS: dict[str, Callable[[], pa.Table]] = {
    "small": lambda: pa.table(BATCH),
    "batches": lambda: pa.concat_tables([pa.table(BATCH)] * 3),
    "many batches": lambda: pa.concat_tables([pa.table(BATCH)] * 20),
    "dictionaries": lambda: pa.table({"d": pa.array(["x", "y", "x"]).dictionary_encode()}),
    "large": lambda: pa.table({"n": range(100_000), "s": [str(i) for i in range(100_000)]}),
}
LISTED = {
    "small": [[3]],
    "batches": [[9], [3, 3, 3]],  # the lists keep their batches
    "many batches": [[60], []],
    "dictionaries": [[]],
    "large": [[100_000]],
}
"""Rows of the listed batches of each stream."""


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_reader_that_knows_only_the_page(
    store_dir: Path, make: Callable[[], pa.Table], request: pytest.FixtureRequest
) -> None:
    table = make()
    with fs.connect(store_dir, capacity="16MiB") as store:
        store.put(table, name="näme" * 200)
        with foreign_reader(store_dir, "näme" * 200) as report:
            assert table_of(report).equals(table)
            assert report["num_rows"] == table.num_rows
            assert report["names"] == ["näme" * 200]
            assert report["listed_rows"] == LISTED[request.node.callspec.id]
            assert report["in_place"]
            assert report["aligned"]
            assert report["fingerprint_matches"]


@pytest.mark.req("O-2")
def test_the_reader_reads_composed_tables(store_dir: Path) -> None:
    """Of a few parts, and of so many that record and layout are folded."""
    table = pa.table(BATCH)
    with fs.connect(store_dir, capacity="16MiB") as store:
        store.put(table, "t")
        store.rename(store.with_columns("t", {"x": [1.5, 2.5, None]}), {"n": "number"}, "few")
        store.concat(["few"] * 7, "rows")
        parts = [store.put(pa.table({"n": [i, i + 1]})) for i in range(120)]
        store.concat(parts, "many")
        for name, members in (("few", 2), ("rows", 2), ("many", 120)):
            with foreign_reader(store_dir, name) as report:
                expected = store.get(name)
                assert table_of(report).equals(expected.to_arrow(), check_metadata=True)
                assert report["members"] == members
                assert report["in_place"]
                assert report["aligned"]
                assert report["fingerprint_matches"]


@pytest.mark.req("API-4")
def test_what_a_foreign_reader_holds_is_not_freed(store_dir: Path) -> None:
    with fs.connect(store_dir, capacity="16MiB") as store:
        store.put(pa.table(BATCH), name="t")
        with foreign_reader(store_dir, "t") as report:
            assert [(holder.pid, holder.refs) for holder in store.holders("t")] == [(report["pid"], 1)]
            store.delete("t")
            assert store.recover().freed_objects == 0
        assert store.recover().freed_objects == 1
        assert store.fsck() == []


def test_the_reader_imports_nothing_of_flightstore() -> None:
    modules = {
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(ast.parse(READER.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    outside = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert outside == {"lmdb", "msgspec", "pyarrow"}


def test_lmdb_is_of_the_series_that_the_page_names() -> None:
    major, minor, _ = lmdb.version()
    assert f"LMDB {major}.{minor} data format" in PAGE
