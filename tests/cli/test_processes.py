"""The command as a process: interrupts, closed pipes, terminals, kills."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore
from flightstore.cli import formats

from .conftest import Run, Terminal

Start = Callable[..., "subprocess.Popen[bytes]"]
TRIES = 20


@pytest.fixture
def big_table(tmp_path: Path) -> Path:
    """Some 100 MB in the Arrow format."""
    path = tmp_path / "table.arrow"
    table = pa.table({"x": np.arange(6_000_000), "y": np.zeros(6_000_000)})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=500_000)
    return path


@pytest.fixture
def big_bytes(tmp_path: Path) -> Path:
    """180 MiB of zeros, which take no room on the disk."""
    path = tmp_path / "bytes.bin"
    with path.open("wb") as file:
        file.truncate(180 << 20)
    return path


def end_in_mid_put(store: flightstore.Store, start: Start, arguments: tuple[str, ...], number: int) -> int:
    """Send a signal to a put while its object is half-stored; the exit code.

    The put can be faster than we are, whatever it then makes of the signal: it is started again.
    """
    for _ in range(TRIES):
        process = start("put", *arguments)
        while process.poll() is None and store.stats().pending == 0:
            pass
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        if not store.contains("table") and not store.contains("bytes"):
            assert process.returncode != 0
            assert b"Traceback" not in err, err.decode()
            assert out == b""
            return process.returncode
        assert store.delete(["table", "bytes"]) == 1
        store.recover()
    raise AssertionError("the put was always done before the signal came")


@pytest.mark.req("FAIL-2", "FAIL-3")
@pytest.mark.parametrize("kind", ["table", "bytes"])
def test_ctrl_c_in_a_long_put_leaves_nothing(
    store: flightstore.Store, start: Start, big_table: Path, big_bytes: Path, kind: str
) -> None:
    arguments = (str(big_table),) if kind == "table" else (str(big_bytes), "--raw")
    assert end_in_mid_put(store, start, arguments, signal.SIGINT) == 130
    stats = store.stats()
    assert (stats.pending, stats.objects) == (0, 0)
    assert store.fsck() == []
    store.recover()
    assert store.stats().used_bytes == 0


@pytest.mark.req("FAIL-2", "FAIL-3")
def test_a_killed_put_is_put_right_by_recover(
    store: flightstore.Store, start: Start, run: Run, big_bytes: Path
) -> None:
    store.put(b"kept", "kept")
    code = end_in_mid_put(store, start, (str(big_bytes), "--raw"), signal.SIGKILL)
    assert code == -signal.SIGKILL
    findings = run("fsck", "--json")
    assert findings.code == 6
    assert all(finding["recoverable"] for finding in findings.json["findings"])
    assert run("recover", "--json").json["aborted_objects"] == 1
    assert run("fsck").code == 0
    assert [info.name for info in store.list()] == ["kept"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_get_leaves_no_file(
    store: flightstore.Store, start: Start, tmp_path: Path, number: int, code: int
) -> None:
    store.put(pa.table({"x": np.arange(3_000_000), "y": np.arange(3_000_000) / 3}), "table")
    target = tmp_path / "out" / "table.csv"
    target.parent.mkdir()
    for _ in range(TRIES):
        process = start("get", "table", "-o", str(target))
        while process.poll() is None and not any(target.parent.iterdir()):
            pass
        process.send_signal(number)
        _out, err = process.communicate(timeout=60)
        if not target.exists():
            break
        # It was faster than we are: then the file is whole. Once more.
        assert target.read_bytes().count(b"\n") == 3_000_001
        target.unlink()
    assert (process.returncode, b"Traceback" in err) == (code, False), err.decode()
    assert list(target.parent.iterdir()) == []


@pytest.mark.slow
def test_a_reader_who_goes_away_is_no_error(store: flightstore.Store, start: Start) -> None:
    # Noise, so that packing leaves more than a pipe takes.
    store.put(pa.table({"x": np.random.default_rng(1).integers(0, 1 << 60, 300_000)}), "table")
    streaming = [name for name, one in formats.FORMATS.items() if one.streams and one.holds == "table"]
    packed = [f"csv.{packing}" for packing in formats.PACKINGS]
    for arguments in (
        ("get", "table"),
        *(("get", "table", "--format", one) for one in [*streaming, *packed]),
    ):
        process = start(*arguments)
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_table_for_people_whose_reader_goes_away(
    store: flightstore.Store, start: Start, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    store.put_many({f"object number {i:05} with a long name": b"x" for i in range(3000)})
    process = start("ls")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_a_progress_bar_on_a_terminal_only(start: Start, store_path: str, big_table: Path) -> None:
    terminal = Terminal()
    process = start("put", str(big_table), stderr=terminal.theirs)
    out, _ = process.communicate(timeout=60)
    shown = terminal.text()
    assert (process.returncode, b"table" in out) == (0, True)
    assert "table.arrow" in shown
    assert re.search(rf"/{big_table.stat().st_size / (1 << 20):.1f} MiB", shown), shown
    assert "/s" in shown
    assert "\x1b[2K" in shown, "the bar removes itself"
    quiet = start("put", str(big_table))
    _, err = quiet.communicate(timeout=60)
    assert (quiet.returncode, err) == (0, b"")


def test_the_bar_moves(start: Start, store_path: str) -> None:
    terminal = Terminal()
    process = start("put", "-", "--name", "piped", stdin=subprocess.PIPE, stderr=terminal.theirs)
    assert process.stdin is not None
    for sent in (8, 16, 24):
        process.stdin.write(bytes(8 << 20))
        process.stdin.flush()
        # The command reads 4 MiB at a time and shows what it has read while it waits for more.
        terminal.wait_for(rf"{sent}\.0/\? MiB")
    process.communicate(timeout=60)
    terminal.text()
    assert process.returncode == 0


def test_no_progress_bar_for_a_small_file(start: Start, store_path: str, tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_text("x\n1\n")
    terminal = Terminal()
    process = start("put", str(path), stderr=terminal.theirs)
    process.communicate(timeout=60)
    assert (process.returncode, terminal.text()) == (0, "")


def test_get_on_a_terminal_is_a_preview(store: flightstore.Store, start: Start) -> None:
    store.put(pa.table({"x": np.arange(50), "text": ["\x1b[31m"] * 50}), "table")
    store.put(b"\x00\x01bytes" * 50, "blob")
    store.put({"any": "thing"}, "thing")
    for name, expected in (
        ("table", "first 10 of 50 rows"),
        ("blob", "00 01 62 79 74 65 73"),
        ("thing", "not unpickled"),
    ):
        terminal = Terminal()
        process = start("get", name, stdout=terminal.theirs)
        process.wait(timeout=60)
        shown = terminal.text()
        assert (process.returncode, expected in shown) == (0, True), shown
        assert "\x1b[31m" not in shown, "no value sends escape sequences"


def test_destroy_on_a_terminal_asks(store: flightstore.Store, start: Start, store_path: str) -> None:
    for answer, code, left in ((b"n\n", 1, True), (b"y\n", 0, False)):
        ours, theirs = pty.openpty()
        process = start("destroy", stdin=theirs)
        os.write(ours, answer)
        out, err = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == code, err.decode()
        assert b"Remove" in err
        assert Path(store_path, "control").exists() == left
        assert (b"removed" in out) != left
