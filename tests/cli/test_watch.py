"""`flightstore watch`: lines as things happen, and every way in which it ends."""

from __future__ import annotations

import json
import select
import signal
import subprocess
from collections.abc import Callable

import pytest

import flightstore

from .conftest import Run

Start = Callable[..., "subprocess.Popen[bytes]"]

pytestmark = pytest.mark.req("INV-11")


def begun(process: subprocess.Popen[bytes], store: flightstore.Store) -> bytes:
    """Put something until the command says the first line: only then it is known to listen.

    Each put is two events. So rarely, the command may stand still for a minute and has missed none.
    """
    assert process.stdout is not None
    while not select.select([process.stdout], [], [], 0.2)[0]:
        store.put(b"", "begin")
        assert process.poll() is None
    return process.stdout.readline()


def test_what_is_kept(store: flightstore.Store, run: Run) -> None:
    object_id = store.put(b"12345", "a\x1b")
    store.delete("a\x1b")
    unnamed = store.put(b"1")
    ran = run("watch", "--since", "0", "--timeout", "0")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert [(line[0], line[4], line[5], line[7:]) for line in lines] == [
        ("1", "added", "5", ["a\\x1b"]),
        ("2", "deleted", "5", ["a\\x1b"]),
        ("3", "added", "1", [str(unnamed)]),
    ]
    ran = run("watch", "--since", "0", "--json", "--count", "1")
    document = json.loads(ran.out)
    assert document.pop("time_ns") > 0
    assert document == {"number": 1, "kind": "added", "id": str(object_id), "name": "a\x1b", "bytes": 5}
    assert run("watch", "--since", "2", "--timeout", "0").out.startswith("       3 ")


def test_patterns_and_kinds(store: flightstore.Store, run: Run) -> None:
    chosen = store.put(b"1", "a")
    store.put_many({"b": b"", "ab": b""})
    store.delete(["a", "b"])

    def numbers(*arguments: str) -> list[int]:
        ran = run("watch", *arguments, "--since", "0", "--timeout", "0", "--json")
        assert ran.code == 0
        return [json.loads(line)["number"] for line in ran.out.splitlines()]

    assert numbers("a*") == [1, 3, 4]
    assert numbers("--kind", "deleted") == [4, 5]
    assert numbers("b", "--kind", "deleted", "--kind", "full") == [5]
    assert numbers(str(chosen)) == [1, 4]


def test_wrong_usage(store: flightstore.Store, run: Run) -> None:
    assert run("watch", "--kind", "gone").code == 2
    ran = run("watch", "--since", "99", "--json")
    assert (ran.code, ran.error["error"]) == (2, "InvalidArgument")


def test_missed_events_are_told_on_stderr(store: flightstore.Store, run: Run) -> None:
    for _ in range(3):
        store.put_many([b""] * (store._conn.events_kept // 2 + 1))
    ran = run("watch", "--since", "1", "--timeout", "0")
    assert ran.code == 0
    assert "you missed" in ran.err
    kept = store._conn.events_kept
    assert kept <= len(ran.out.splitlines()) <= kept + 64


def test_it_streams_until_ctrl_c(store: flightstore.Store, start: Start) -> None:
    process = start("watch", "--json", "--kind", "added")
    first = json.loads(begun(process, store))
    assert first["name"] == "begin"
    store.put(b"", "awaited")
    assert process.stdout is not None
    name = ""
    while name != "awaited":
        name = json.loads(process.stdout.readline())["name"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, b"", b"interrupted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits(store: flightstore.Store, start: Start, number: int) -> None:
    process = start("watch", "begin")
    begun(process, store)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in err


def test_a_reader_who_goes_away(store: flightstore.Store, start: Start) -> None:
    process = start("watch")
    begun(process, store)
    assert process.stdout is not None
    process.stdout.close()
    store.put(b"", "nobody reads this")  # not on and on: the command would say how many it missed
    assert process.wait(timeout=60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
