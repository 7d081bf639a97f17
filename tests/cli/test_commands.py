"""Every command on a real store, in this process: output for people, JSON for programs, exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flightstore
from flightstore.cli.preview import columns_that_fit

from .conftest import Run


def orders(rows: int = 5) -> pa.Table:
    return pa.table({"id": list(range(rows)), "name": [f"row {i}" for i in range(rows)]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.parquet"
    pq.write_table(orders(), path)
    return path


@pytest.mark.req("O-1")
def test_what_the_command_line_puts_a_program_gets(run: Run, file: Path, store_path: str) -> None:
    done = run("put", str(file), "--json")
    assert done.code == 0, done.err
    (described,) = done.json["objects"]
    assert (described["name"], described["kind"], described["rows"]) == ("orders", "table", 5)
    with flightstore.connect(store_path) as store:
        assert store.get("orders").to_arrow().equals(orders())
        assert str(store.get("orders").id) == described["id"]


@pytest.mark.req("O-1")
@pytest.mark.parametrize(
    "extension", ["parquet", "csv", "csv.gz", "arrow", "feather", "arrows", "jsonl", "ndjson"]
)
def test_every_format_makes_the_round_trip(run: Run, file: Path, tmp_path: Path, extension: str) -> None:
    assert run("put", str(file)).code == 0
    copy = tmp_path / f"copy.{extension}"
    written = run("get", "orders", "-o", str(copy), "--json")
    assert written.code == 0, written.err
    assert written.json["written"]["bytes"] == copy.stat().st_size
    assert run("put", str(copy)).code == 0
    final = tmp_path / "final.parquet"
    assert run("get", "copy", "-o", str(final)).code == 0
    assert pq.read_table(final).equals(orders())


def test_a_table_in_many_pieces_is_stored_in_one(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "pieces.parquet"
    pq.write_table(orders(1000), path, row_group_size=100)
    assert run("put", str(path)).code == 0
    table = store.get("pieces").to_arrow()
    assert table.equals(orders(1000))
    assert [column.num_chunks for column in table.columns] == [1, 1]


def test_only_nothing_is_null_in_csv_unless_told(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "c.csv"
    path.write_text('country,n\nNA,1\n,2\n"",NA\n')
    assert run("put", str(path)).code == 0
    assert store.get("c").to_arrow().to_pydict() == {"country": ["NA", None, ""], "n": ["1", "2", "NA"]}
    assert run("put", str(path), "--null", "NA").code == 0
    assert store.get("c").to_arrow().to_pydict() == {"country": [None, None, ""], "n": [1, 2, None]}


def test_put_several_files(run: Run, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "prices.csv"
    other.write_text("p\n1\n")
    done = run("put", str(file), str(other), "--json")
    assert [entry["name"] for entry in done.json["objects"]] == ["orders", "prices"]


def test_put_reports_what_it_stored_before_it_failed(run: Run, file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    done = run("put", str(file), str(broken), "--json")
    assert done.code == 1
    assert [entry["name"] for entry in done.json["objects"]] == ["orders"]
    assert done.error["error"] == "FileUnreadable"
    assert "broken.parquet" in done.error["message"]


def test_two_files_for_one_name_store_nothing(run: Run, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "orders.csv"
    other.write_text("p\n1\n")
    done = run("put", str(file), str(other))
    assert done.code == 2
    assert "both be named 'orders'" in done.err
    assert run("ls").code == 3, "not even a store was made"


@pytest.mark.parametrize("content", [b"", b"x", b"0123456789" * 1_000_000])
def test_raw_bytes(run: Run, tmp_path: Path, store: flightstore.Store, content: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    done = run("put", str(path), "--raw", "--json")
    assert done.code == 0, done.err
    assert done.json["objects"][0]["kind"] == "blob"
    assert bytes(store.get("model").value()) == content
    copy = tmp_path / "copy"
    assert run("get", "model", "-o", str(copy)).code == 0
    assert copy.read_bytes() == content


def test_an_unknown_extension_says_what_to_do(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    done = run("put", str(path))
    assert done.code == 2
    assert "--raw" in done.err


def test_standard_input(run: Run, store: flightstore.Store) -> None:
    assert run("put", "-", "--name", "bytes", stdin=b"\x00\xff" * 10).code == 0
    assert bytes(store.get("bytes").value()) == b"\x00\xff" * 10
    assert run("put", "-", "--name", "lines", "--format", "jsonl", stdin=b'{"a": 1}\n{"a": 2}\n').code == 0
    assert store.get("lines").to_arrow().to_pylist() == [{"a": 1}, {"a": 2}]
    nameless = run("put", "-", stdin=b"x")
    assert (nameless.code, "--name" in nameless.err) == (2, True)


def test_arrays(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "weights.npy"
    np.save(path, array)
    assert run("put", str(path)).code == 0
    np.testing.assert_array_equal(store.get("weights").to_numpy(), array)
    copy = tmp_path / "copy.npy"
    assert run("get", "weights", "-o", str(copy)).code == 0
    np.testing.assert_array_equal(np.load(copy), array)
    assert run("get", "weights", "--json").json["shape"] == [3, 4]


def test_an_array_file_with_pickles_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    done = run("put", str(path), "--json")
    assert (done.code, done.error["error"]) == (1, "FileUnreadable")


def test_put_replaces_and_readers_keep(run: Run, file: Path, store: flightstore.Store) -> None:
    run("put", str(file))
    with store.get("orders") as held:
        before = held.to_arrow()
        pq.write_table(orders(7), file)
        assert run("put", str(file), "--json").json["objects"][0]["rows"] == 7
        assert before.equals(orders())


@pytest.mark.req("FAIL-5")
def test_a_full_store(run: Run, tmp_path: Path, store: flightstore.Store) -> None:
    path = tmp_path / "big.bin"
    with path.open("wb") as big:
        big.truncate(300 << 20)
    done = run("put", str(path), "--raw", "--json")
    assert (done.code, done.error["error"]) == (4, "StoreFull")
    assert done.error["capacity_bytes"] == 256 << 20
    assert done.error["asked_bytes"] >= 300 << 20
    assert store.stats().pending == 0
    assert store.fsck() == []


@pytest.mark.req("API-11")
def test_names_and_ids_mean_the_same_object(run: Run, file: Path) -> None:
    described = run("put", str(file), "--json").json["objects"][0]
    by_name, by_id = run("stat", "orders", "--json"), run("stat", described["id"], "--json")
    assert by_name.json == by_id.json
    assert by_name.json["id"] == described["id"]


@pytest.mark.req("API-11")
@pytest.mark.parametrize("name", ["naïve/名前 with blanks", "[red]markup[/red]", "\x1b[31mescape", "-dash"])
def test_any_string_is_a_name(run: Run, file: Path, name: str) -> None:
    assert run("put", str(file), f"--name={name}").code == 0
    assert [entry["name"] for entry in run("ls", "--json").json["objects"]] == [name]
    listed = run("ls").out
    assert "\x1b" not in listed
    assert name.replace("\x1b", "\\x1b") in listed
    assert run("rm", "--", name).code == 0


def test_ls(run: Run, file: Path, store: flightstore.Store) -> None:
    run("put", str(file))
    store.put(b"12345678", "bytes")
    listed = run("ls", "--json").json["objects"]
    assert [entry["name"] for entry in listed] == ["bytes", "orders"]
    assert [entry["name"] for entry in run("ls", "ord*", "--json").json["objects"]] == ["orders"]
    assert run("ls", "nothing*", "--json").json == {"objects": []}
    text = run("ls").out.splitlines()
    assert text[0].split() == ["name", "id", "kind", "size", "rows", "created", "refs", "pinned", "state"]
    assert len(text) == 3
    assert str(store.stat("orders").id)[:15] in text[2]


@pytest.mark.req("INV-1")
def test_stat_counts_the_holders(run: Run, file: Path, store: flightstore.Store) -> None:
    run("put", str(file))
    with store.get("orders"):
        seen = run("stat", "orders", "--json").json
        assert seen["refs"] == 1
        assert [holder["refs"] for holder in seen["holders"]] == [1]
    assert run("stat", "orders", "--json").json["holders"] == []
    assert [field["name"] for field in seen["schema"]] == ["id", "name"]
    assert "int64" in run("stat", "orders").out


def test_get_without_a_file_goes_to_the_pipe(run: Run, file: Path) -> None:
    run("put", str(file))
    assert run("get", "orders", "--format", "csv").out.splitlines()[:2] == ['"id","name"', '0,"row 0"']
    lines = run("get", "orders", "-o", "-", "--format", "jsonl").out.splitlines()
    assert json.loads(lines[1]) == {"id": 1, "name": "row 1"}


def test_get_to_a_pipe_is_an_arrow_stream(start, run: Run, file: Path) -> None:  # type: ignore[no-untyped-def]
    run("put", str(file))
    process = start("get", "orders")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert pa.ipc.open_stream(io.BytesIO(out)).read_all().equals(orders())


def test_get_as_json_is_a_preview(run: Run, file: Path) -> None:
    pq.write_table(orders(1000), file)
    run("put", str(file))
    seen = run("get", "orders", "--json").json
    assert (seen["rows"], len(seen["preview"])) == (1000, 10)
    assert seen["preview"][1] == ["1", "row 1"]


def test_a_preview_shows_the_columns_that_fit() -> None:
    names, columns = ["a", "long name", "c"], [["1"], ["2"], ["x" * 30]]
    assert columns_that_fit(names, columns, 80) == 3
    assert columns_that_fit(names, columns, 30) == 2
    assert columns_that_fit(names, columns, 1) == 1, "something is always shown"
    assert columns_that_fit([], [], 80) == 0


def test_get_refuses_what_a_format_cannot_hold(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    store.put(b"bytes", "blob")
    store.put({"any": "thing"}, "thing")
    store.put(pa.table({"deep": [[1]]}), "deep")
    target = tmp_path / "out.csv"
    for ref in ("blob", "thing", "deep"):
        done = run("get", ref, "-o", str(target), "--json")
        assert (done.code, done.error["error"], bool(done.error["hint"])) == (2, "InvalidArgument", True)
    assert run("get", "deep", "--format", "parquet").code == 2, "Parquet cannot be written to a pipe"
    assert run("get", "deep", "--format", "csv", "--json").code == 2, "two documents on one stdout"
    assert list(tmp_path.iterdir()) == [], "nothing is left of what failed"


def test_get_of_a_missing_object(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    done = run("get", "nothing", "-o", str(tmp_path / "x.csv"), "--json")
    assert (done.code, done.error["error"]) == (3, "ObjectNotFound")
    assert "nothing" in done.error["message"]
    waited = run("get", "nothing", "--timeout", "0.05", "--format", "csv")
    assert waited.code == 5
    assert waited.err.startswith("error: ")
    assert "hint: flightstore ls" in waited.err


def test_rm(run: Run, store: flightstore.Store) -> None:
    for name in ("a", "b"):
        store.put(b"x", name)
    done = run("rm", "a", "nothing", "b", "--json")
    assert done.code == 3
    assert done.json == {"deleted": ["a", "b"]}
    assert "nothing" in done.error["message"]
    assert store.list() == []


@pytest.mark.req("INV-9")
def test_rm_if_unused_keeps_what_is_held(run: Run, store: flightstore.Store) -> None:
    store.put(b"x" * 1000, "held")
    store.put(b"y" * 1000, "free")
    with store.get("held"):
        done = run("rm", "--if-unused", "held", "free", "--json")
        assert (done.code, done.error["error"]) == (5, "ObjectInUse")
        assert done.json == {"deleted": ["free"]}
        assert store.contains("held")
    assert run("rm", "--if-unused", "held").code == 0


@pytest.mark.req("API-10")
def test_stats(run: Run, store: flightstore.Store) -> None:
    store.put(b"x" * 100_000, "a")
    seen = run("stats", "--json").json
    assert (seen["capacity_bytes"], seen["objects"]) == (256 << 20, 1)
    assert seen["used_bytes"] + seen["free_bytes"] == seen["capacity_bytes"]
    text = run("stats").out
    assert "256.0 MiB  (268,435,456)" in text


def test_recover_says_what_it_did(run: Run, store: flightstore.Store) -> None:
    assert run("recover").out == "nothing to do\n"
    store.put(b"x" * 100_000, "a")
    store.delete("a")
    assert run("recover", "--json").json["freed_objects"] == 1
    assert run("fsck").out == "clean\n"
    assert run("fsck", "--json").json == {"clean": True, "findings": []}


def test_destroy_asks_first(run: Run, store: flightstore.Store, store_path: str) -> None:
    refused = run("destroy")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert Path(store_path, "control").exists()
    assert run("destroy", "--yes", "--json").json["destroyed"] == store_path
    assert not Path(store_path).exists()


def test_no_store(run: Run, store_path: str) -> None:
    for command in (
        ("ls",),
        ("stats",),
        ("get", "x"),
        ("fsck",),
        ("recover",),
        ("rm", "x"),
        ("destroy", "--yes"),
    ):
        done = run(*command, "--json")
        assert (done.code, done.error["error"]) == (3, "NotAStore"), command
        assert "flightstore put" in done.error["hint"]
        assert not Path(store_path).exists(), "looking makes no store"


def test_not_a_store(run: Run, tmp_path: Path, file: Path) -> None:
    done = run("--store", str(tmp_path), "put", str(file))
    assert done.code == 3
    assert "not a store" in done.err
    (tmp_path / "control").write_bytes(b"\0" * 8192)
    assert run("--store", str(tmp_path), "ls").code == 3


def test_options_before_and_after_the_command(run: Run, store: flightstore.Store, store_path: str) -> None:
    store.put(b"x", "a")
    documents = [
        run("--store", store_path, "--json", "ls").json,
        run("ls", "--store", store_path, "--json").json,
        run("--json", "ls", "--store", store_path).json,
    ]
    assert [entry["name"] for entry in documents[0]["objects"]] == ["a"]
    assert documents[0] == documents[1] == documents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("put",),
        ("get", "a", "b"),
        ("ls", "--nonsense"),
        ("put", "x.csv", "--timeout", "-1"),
        ("get", "id:xyz"),
    ],
)
def test_wrong_usage(run: Run, store: flightstore.Store, arguments: tuple[str, ...]) -> None:
    plain = run(*arguments)
    assert plain.code == 2
    assert plain.err.startswith("error: ")
    as_json = run(*arguments, "--json")
    assert as_json.code == 2
    assert set(as_json.error) == {"error", "message", "hint"}
    assert as_json.out == ""


def test_a_missing_file(run: Run, tmp_path: Path) -> None:
    done = run("put", str(tmp_path / "absent.csv"))
    assert done.code == 3
    assert "absent.csv: No such file or directory" in done.err
    assert run("put", str(tmp_path), "--raw").code == 1, "a directory is no file"


def test_adopting_a_file(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    value = pa.table({"n": range(10_000)})
    with pa.ipc.new_file(path, value.schema) as writer:
        writer.write_table(value)
    shown = run("adopt", str(path)).out
    assert "table" in shown
    assert "10,000" in shown
    described = run("adopt", str(path), "--name", "other", "--json").json
    assert (described["name"], described["rows"], described["file"]) == ("other", 10_000, str(path))
    obj = store.get("table")
    assert obj.borrowed
    assert obj.to_arrow().equals(value)  # type: ignore[attr-defined]
    obj.release()
    path.write_bytes(b"other bytes")
    done = run("get", "table", "-o", str(tmp_path / "out.parquet"))
    assert done.code != 0
    assert "table.arrow" in done.err
    assert run("adopt", str(path)).code != 0
