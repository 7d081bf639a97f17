"""head, schema and the preview: what they show, for people and for programs, and what they leave alone."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore
from flightstore.cli.pickles import _imports
from flightstore.cli.preview import columns_that_fit
from flightstore.cli.values import cell_text

from .conftest import Run, Start, Terminal
from .samples import exotic


def numbers(rows: int = 50) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "name": [None if i % 3 == 2 else f"name {i}" for i in range(rows)],
            "größe 名": pa.array([i / 2 for i in range(rows)]),
        }
    )


class Trap:
    """A pickle of this touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def table(store: flightstore.Store) -> flightstore.Store:
    store.put(numbers(), "numbers")
    return store


# --- head: tables ---


def test_head_of_a_table(run: Run, table: flightstore.Store) -> None:
    lines = run("head", "numbers", "-n", "3").out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split() == ["id", "name", "größe", "名"])
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["0", "name", "0", "0.0"],
        ["1", "name", "1", "0.5"],
        ["2", "null", "1.0"],
    ]
    assert lines[-1] == "first 3 of 50 rows, 3 of 3 columns"


def test_tail_of_a_table(run: Run, table: flightstore.Store) -> None:
    out = run("head", "numbers", "--tail", "-n", "2").out
    assert out.splitlines()[-1] == "last 2 of 50 rows, 3 of 3 columns"
    document = run("head", "numbers", "--tail", "--rows", "2", "--json").json
    assert [row[0] for row in document["values"]] == [48, 49]
    assert (document["first"], document["rows"]) == (48, 50)


def test_more_rows_than_there_are(run: Run, table: flightstore.Store) -> None:
    for arguments in (("-n", "1000"), ("-n", "1000", "--tail")):
        document = run("head", "numbers", *arguments, "--json").json
        assert (document["first"], len(document["values"])) == (0, 50)
    assert run("head", "numbers", "-n", "0", "--json").json["values"] == []
    assert run("head", "numbers", "-n", "0").code == 0


def test_values_as_json(run: Run, store: flightstore.Store) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])])
    value = pa.table(
        {
            "n": [1, None],
            "f": [float("nan"), 1.5],
            "t": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
            "deep": [{"a": [1, 2]}, None],
            "bytes": [b"\xff", None],
            "union": union,
        }
    )
    store.put(value, "it")
    document = run("head", "it", "--json").json
    assert document["columns"] == value.column_names
    moment = "2023-11-14 22:13:20.123456789"
    assert document["values"] == [
        [1, None, moment, {"a": [1, 2]}, "/w==", "1"],
        [None, 1.5, None, None, None, "y"],
    ]


def test_every_type_can_be_looked_at(run: Run, store: flightstore.Store) -> None:
    value = pa.table(exotic())
    store.put(value, "exotic")
    for command in ("head", "schema"):
        assert run(command, "exotic").code == 0
    document = run("head", "exotic", "--json").json
    assert [len(row) for row in document["values"]] == [value.num_columns] * 2
    described = run("schema", "exotic", "--json").json["columns"]
    assert [column["type"] for column in described] == [str(kind) for kind in value.schema.types]


def test_chosen_columns(run: Run, table: flightstore.Store, store: flightstore.Store) -> None:
    for arguments in (("--columns", "name,id"), ("--columns", "name", "--columns", "id")):
        document = run("head", "numbers", "-n", "1", *arguments, "--json").json
        assert (document["columns"], document["values"]) == (["name", "id"], [["name 0", 0]])
    missing = run("head", "numbers", "--columns", "id,nonsense", "--json")
    assert (missing.code, missing.error["error"]) == (2, "InvalidArgument")
    assert "'nonsense'" in missing.error["message"]
    assert "größe 名" in missing.error["hint"]
    store.put(
        pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "x", "a,b"]), "odd"
    )
    assert run("head", "odd", "--columns", "x", "--json").json["values"] == [[1, 2]], "all of that name"
    assert run("head", "odd", "--columns", "a,b", "--json").json["values"] == [[3]], "a comma in a name"


def test_tables_without_rows_or_columns(run: Run, store: flightstore.Store) -> None:
    store.put(numbers(0), "rows")
    store.put(pa.table({}), "columns")
    assert run("head", "rows", "--json").json["values"] == []
    assert "id  name" in run("head", "rows").out
    assert run("head", "columns").code == 0
    assert run("schema", "columns", "--json").json["columns"] == []


def test_a_wide_table_on_a_terminal(start: Start, store: flightstore.Store) -> None:
    wide = pa.table({f"column {i}": ["x" * 100] for i in range(20)})
    store.put(wide, "wide")
    terminal = Terminal()
    terminal.resize(24, 80)
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = start("head", "wide", stdout=terminal.theirs, env=environment)
    process.wait(timeout=60)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text()).splitlines()
    assert lines[-1].startswith("first 1 of 1 rows, 2 of 20 columns (not shown: column 2, column 3,")
    assert lines[-1].endswith("and 10 more)")
    assert [line for line in lines[:-1] if len(line) > 80] == []
    assert "x" * 29 + "..." in lines[-2], "a long value is cut"
    assert "x" * 33 not in lines[-2]


def test_a_wide_table_in_a_pipe(start: Start, store: flightstore.Store) -> None:
    store.put(pa.table({f"column {i}": ["x" * 100] for i in range(20)}), "wide")
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    out, _ = start("head", "wide", env=environment).communicate(timeout=60)
    assert b"column 19" in out
    out, _ = start("head", "wide", env=environment | {"COLUMNS": "70"}).communicate(timeout=60)
    assert b"2 of 20 columns" in out, "as `watch` tells its width"


def test_columns_that_fit() -> None:
    names, columns = ["a", "long name", "c"], [["1"], ["2"], ["x" * 30]]
    assert columns_that_fit(names, columns, 80) == 3
    assert columns_that_fit(names, columns, 30) == 2
    assert columns_that_fit(names, columns, 3 + 9 + 2 + 30) == 3
    assert columns_that_fit(names, columns, 3 + 9 + 2 + 29) == 2
    assert columns_that_fit(names, columns, 1) == 1, "something is always shown"
    assert columns_that_fit([], [], 80) == 0
    assert columns_that_fit(["x", "y"], [["名名"], ["z"]], 6) == 1, "a Chinese character takes two places"


def test_head_sends_no_escape_sequences(run: Run, store: flightstore.Store) -> None:
    store.put(pa.table({"\x1b[31mred": ["\x1b[31m", "a\nb"]}), "it")
    store.put(["\x1b[31m"], "object")
    for arguments in (("head", "it"), ("head", "object", "--pickle"), ("schema", "it"), ("head", "object")):
        assert "\x1b" not in run(*arguments).out, arguments


def memory_touched(pid: int, name: str) -> int:
    """Bytes of a file that a process has mapped and touched."""
    found = 0
    counting = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counting = line.endswith(name)
        elif counting and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.parametrize("tail", [False, True])
def test_only_what_is_shown_is_read(store: flightstore.Store, store_path: str, tail: bool) -> None:
    import subprocess
    import sys

    value = pa.table({f"c{i}": np.arange(1_000_000) for i in range(12)} | {"text": ["x" * 50] * 1_000_000})
    store.put(value, "big")
    script = (
        "import sys, time\n"
        "from flightstore.cli import get\n"
        "from flightstore.cli.main import cli\n"
        "show = get.show\n"
        "def shown(obj, wanted):\n"
        "    show(obj, wanted); sys.stdout.flush(); sys.stdin.readline()\n"
        "get.show = shown\n"
        f"cli.main(['head', 'big', '--columns', 'c1,text', {'--tail' if tail else '-n10'!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(("first", "last")):
                break
        touched = memory_touched(process.pid, f"{store_path}/arena")
        process.communicate("\n", timeout=60)
    assert value.nbytes > 100 << 20
    # The kernel maps some pages around each that is touched.
    assert 0 < touched < 4 << 20


# --- head: everything else ---


def test_head_of_an_array(run: Run, store: flightstore.Store) -> None:
    store.put(np.arange(24.0).reshape(12, 2), "array")
    out = run("head", "array", "-n", "2").out
    assert "dtype  float64" in out
    assert "shape  (12, 2)" in out
    assert "[2. 3.]" in out
    assert out.splitlines()[-1] == "first 2 of 12 entries"
    assert "[22. 23.]" in run("head", "array", "-n", "1", "--tail").out
    document = run("head", "array", "-n", "3", "--json").json
    assert (document["dtype"], document["shape"], document["order"]) == ("float64", [12, 2], "C")
    assert document["values"] == [0.0, 1.0, 2.0]
    assert run("head", "array", "-n", "3", "--tail", "--json").json["values"] == [21.0, 22.0, 23.0]


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (np.array(7), [7]),
        (np.zeros((0, 3)), []),
        (np.asfortranarray([[1, 2], [3, 4]]), [1, 3, 2, 4]),
        (np.array([1 + 2j]), ["(1+2j)"]),
        (np.array(["2024-01-01"], "M8[D]"), ["2024-01-01"]),
        (np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]), [[1, 2.5]]),
        (np.array([b"\xff"]), ["/w=="]),
        (np.array([np.nan, np.inf]), [None, None]),
    ],
)
def test_head_of_any_array(run: Run, store: flightstore.Store, array: np.ndarray, values: list) -> None:  # type: ignore[type-arg]
    store.put(array, "array")
    assert run("head", "array", "--json").json["values"] == values
    shown = run("head", "array")
    assert (shown.code, shown.err) == (0, "")


def test_head_of_a_large_array_is_short(run: Run, store: flightstore.Store) -> None:
    store.put(np.zeros((4, 1_000_000)), "array")
    assert len(run("head", "array").out) < 3000


def test_head_of_a_blob(run: Run, store: flightstore.Store) -> None:
    store.put(bytes(range(256)) + b"the end", "blob")
    lines = run("head", "blob", "-n", "2").out.splitlines()
    assert lines[-3] == "00000000  " + bytes(range(16)).hex(" ") + "  |................|"
    assert lines[-1] == "first 32 of 263 bytes"
    last = run("head", "blob", "-n", "1", "--tail").out.splitlines()
    assert last[-2].startswith("00000100  74 68 65 20 65 6e 64 ")
    assert last[-2].endswith("|the end|")
    document = run("head", "blob", "-n", "1", "--tail", "--json").json
    assert (document["first"], bytes.fromhex(document["hex"])) == (256, b"the end")
    for name, value in (("empty", b""), ("items", memoryview(np.arange(4.0)))):
        store.put(value, name)
        shown = run("head", name, "--json").json
        assert bytes.fromhex(shown["hex"]) == bytes(value)
        assert run("head", name).code == 0


def test_head_of_an_object_does_not_unpickle(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    store.put(Trap(sprung), "trap")
    for arguments in (("head", "trap"), ("get", "trap", "--json"), ("schema", "trap")):
        shown = run(*arguments)
        assert shown.code == 0, shown.err
        assert not sprung.exists(), arguments
    assert "posix.mkdir" in run("head", "trap").out
    assert "--pickle" in run("head", "trap").out
    document = run("head", "trap", "--json").json
    assert (document["imports"], document["complete"], document["buffers"]) == (["posix.mkdir"], True, 0)
    assert not sprung.exists()
    assert run("head", "trap", "--pickle").code == 0
    assert sprung.exists()


def test_an_object_with_its_leave(run: Run, store: flightstore.Store) -> None:
    store.put({"any": ["thing", 1]}, "thing")
    assert "{'any': ['thing', 1]}" in run("head", "thing", "--pickle").out
    assert run("head", "thing", "--pickle", "--json").json["value"] == "{'any': ['thing', 1]}"
    store.put({"array": np.zeros(100_000)}, "arrays")
    assert run("head", "arrays", "--json").json["buffers"] == 1


def test_get_on_a_terminal_does_not_unpickle(start: Start, store: flightstore.Store, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    store.put(Trap(sprung), "trap")
    terminal = Terminal()
    start("get", "trap", stdout=terminal.theirs).wait(timeout=60)
    assert "not unpickled" in terminal.text()
    assert not sprung.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_imports(protocol: int) -> None:
    value = [Path("x"), np.float64(1.5), Path("y"), "decoy", np.dtype("f4")]
    names, complete = _imports(pickle.dumps(value, protocol))
    assert complete
    assert {name for name in names if name.startswith("numpy")} >= {"numpy.dtype"}
    assert any(name.startswith("pathlib") for name in names)
    assert not any("decoy" in name for name in names)


def test_what_is_no_pickle_or_a_long_one() -> None:
    assert _imports(b"\x80\x05nonsense") == ((), False)
    assert _imports(pickle.dumps(list(range(100_000))))[1] is False


def test_columns_are_for_tables(run: Run, store: flightstore.Store) -> None:
    store.put(b"x", "blob")
    refused = run("head", "blob", "--columns", "x", "--json")
    assert (refused.code, refused.error["error"]) == (2, "InvalidArgument")


def test_head_of_what_is_not_there(run: Run, store: flightstore.Store) -> None:
    for command in ("head", "schema"):
        done = run(command, "nothing", "--json")
        assert (done.code, done.error["error"]) == (3, "ObjectNotFound")


# --- single values ---


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (pa.array([None], pa.int32()), "null"),
        (pa.array(["x" * 100]), "x" * 17 + "..."),
        (pa.array(["ü" * 100], pa.string_view()), "ü" * 17 + "..."),
        (pa.array(["😀" * 20]), "😀" * 20),
        (pa.array([b"\xff\x00"]), "b'\\xff\\x00'"),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")), "2023-11-14 22:13:..."),
        (pa.array([3_723_000_000_007], pa.time64("ns")), "01:02:03.000000007"),
        (pa.array([[1, None]]), "[1, null]"),
        (pa.array([list(range(1000))]), "[0, 1, 2, 3, 4, 5..."),
        (pa.array([[1, 2]], pa.list_view(pa.int8())), "[1, 2]"),
        (pa.array([{"a": 1, "b": "x"}]), "{a: 1, b: x}"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), "{k: 1}"),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([None, "x"]).dictionary_encode(), "null"),
        (pa.RunEndEncodedArray.from_arrays([1], ["run"]), "run"),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array(["in"])]), "in"),
        (pa.array([b"0123456789abcdef"], pa.uuid()), "30313233-3435-363..."),
        (pa.array([1.5], pa.float16()), "1.5"),
        (pa.array([True]), "True"),
    ],
)
def test_one_value_as_text(array: pa.Array, text: str) -> None:
    assert cell_text(array[0], 20) == text


def test_of_a_huge_value_only_the_beginning_is_read() -> None:
    # Made without its values: reading them all would take seconds and gigabytes.
    count = 1 << 30
    memory = pa.py_buffer(np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), (8,), (0,)).copy())
    zeros = pa.Array.from_buffers(pa.null(), count, [None])
    offsets = pa.array([0, count], pa.int64())
    huge = pa.LargeListArray.from_arrays(offsets, zeros)
    assert memory.size == 8
    assert cell_text(huge[0], 20) == "[null, null, null..."


# --- schema ---


def test_schema_of_a_table(run: Run, store: flightstore.Store) -> None:
    fields = [
        pa.field("id", pa.int64(), nullable=False, metadata={"unit": "number"}),
        pa.field("tags", pa.list_(pa.struct([pa.field("k", pa.string(), nullable=False)]))),
        pa.field("colour", pa.dictionary(pa.int8(), pa.string())),
        pa.field("map", pa.map_(pa.string(), pa.int32())),
    ]
    schema = pa.schema(fields, metadata={"owner": "sales ü", b"\xff": b"\x00\xfe"})
    columns = [
        pa.array([1, 2, 3]),
        pa.array([None, [{"k": "x"}], []], fields[1].type),
        pa.array(["red", "green", None]).dictionary_encode().cast(fields[2].type),
        pa.array([[("k", 1)], None, []], fields[3].type),
    ]
    store.put(pa.Table.from_arrays(columns, schema=schema), "it")
    document = run("schema", "it", "--json").json
    assert (document["rows"], document["chunks"]) == (3, 1)
    assert document["metadata"] == {"owner": "sales ü", "hex:ff": "hex:00fe"[:4] + "00fe"}
    described = {column["name"]: column for column in document["columns"]}
    assert list(described) == ["id", "tags", "colour", "map"]
    number = described["id"]
    assert (number["type"], number["nullable"], number["bytes"], number["nulls"]) == ("int64", False, 24, 0)
    assert number["metadata"] == {"unit": "number"}
    inner = described["tags"]["fields"][0]["fields"][0]
    assert (inner["name"], inner["type"], inner["nullable"]) == ("k", "string", False)
    assert described["tags"]["nulls"] == 1
    assert described["colour"]["dictionary_values"] == [2]
    assert described["id"]["dictionary_values"] is None
    assert [part["name"] for part in described["map"]["fields"]] == ["key", "value"]
    out = run("schema", "it").out
    assert re.search(r"^id +int64 +24 B +0 +1$", out, re.M)
    assert re.search(r"^tags +list.* yes +", out, re.M)
    assert re.search(r"^    k +string$", out, re.M)
    assert re.search(r"^colour +dictionary.* 2$", out, re.M)
    assert re.search(r"^  owner  sales ü$", out, re.M)
    assert "metadata of id" in out


def test_schema_of_several_chunks(run: Run, store: flightstore.Store) -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c"]).dictionary_encode()]
    reader = pa.table({"d": pa.chunked_array(chunks)})
    store.put(reader, "it")
    column = run("schema", "it", "--json").json["columns"][0]
    assert column["chunks"] == len(column["dictionary_values"])


def test_long_metadata_are_cut_for_people_only(run: Run, store: flightstore.Store) -> None:
    store.put(numbers(1).replace_schema_metadata({"long": "x" * 5000}), "it")
    assert "(5,000 characters)" in run("schema", "it").out
    assert run("schema", "it", "--json").json["metadata"]["long"] == "x" * 5000


def test_schema_of_everything_else(run: Run, store: flightstore.Store) -> None:
    store.put(np.asfortranarray(np.zeros((2, 3), np.int16)), "array")
    store.put(b"bytes", "blob")
    store.put({"a": 1}, "object")
    document = run("schema", "array", "--json").json
    assert (document["dtype"], document["shape"], document["order"]) == ("int16", [2, 3], "F")
    assert (document["strides"], document["item_bytes"]) == ([2, 4], 2)
    assert "strides  (2, 4)" in run("schema", "array").out
    assert run("schema", "blob", "--json").json["bytes"] == 5
    assert run("schema", "object", "--json").json["imports"] == []
    for name in ("blob", "object"):
        assert run("schema", name).code == 0
