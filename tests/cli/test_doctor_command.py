"""doctor on real stores with something wrong: it names the process, and the fix it names works."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import flightstore
from flightstore.lifecycle import doctor_store
from flightstore.lifecycle.doctor_store import ForgottenStore
from flightstore.memory.clients import ClientInfo

from .conftest import Run

HOLD_AN_OBJECT = """
import sys, flightstore
held = flightstore.connect(sys.argv[1]).get("held")
print("ready", flush=True)
sys.stdin.read()
"""

HOLD_THE_LOCK = """
import sys
from flightstore.lifecycle.registry import connection_for

def work():
    print("ready", flush=True)
    sys.stdin.read()

connection_for(sys.argv[1], 10).exclusive(work)
"""


@contextmanager
def program(text: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that has said it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def findings(run: Run) -> dict[str, Any]:
    return {finding["check"]: finding for finding in run("doctor", "--json").json["findings"]}


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, and wait until it is stopped."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_a_healthy_store(run: Run, store: flightstore.Store) -> None:
    done = run("doctor")
    assert done.code == 0
    assert "clients: 1 alive" in done.out
    assert findings(run)["catalog"]["severity"] == "ok"


def test_no_store_is_no_problem(run: Run, store_path: str) -> None:
    done = run("doctor", "--json")
    assert done.code == 0
    assert done.json["findings"][0]["severity"] == "note"
    assert done.json["store"] == store_path
    assert not Path(store_path).exists()


@pytest.mark.req("FAIL-2")
def test_a_dead_client_is_named_and_recover_removes_it(
    run: Run, store: flightstore.Store, store_path: str
) -> None:
    store.put(b"x" * 1000, "held")
    with program(HOLD_AN_OBJECT, store_path) as process:
        assert findings(run)["clients"]["severity"] == "ok"
        process.kill()
        process.wait()
        found = findings(run)["clients"]
        assert found["severity"] == "warning"
        assert f"process {process.pid}" in found["message"]
        assert found["fix"].startswith("flightstore recover")
    assert run("recover", "--json").json["dead_clients"] == 1
    assert findings(run)["clients"]["severity"] == "ok"


def test_a_stopped_client_is_named(run: Run, store: flightstore.Store, store_path: str) -> None:
    store.put(b"x" * 1000, "held")
    with program(HOLD_AN_OBJECT, store_path) as process:
        stop(process)
        found = findings(run)["stopped clients"]
        assert (found["severity"], f"kill -CONT {process.pid}" in found["fix"]) == ("note", True)


@pytest.mark.req("FAIL-2")
def test_a_stopped_writer_is_named_and_killing_it_helps(
    run: Run, store: flightstore.Store, store_path: str
) -> None:
    with program(HOLD_THE_LOCK, store_path) as process:
        stop(process)
        done = run("doctor", "--json")
        assert (done.code, done.json["severity"]) == (6, "problem")
        found = findings(run)["writers' lock"]
        assert f"process {process.pid} was stopped" in found["message"]
        assert f"kill -KILL {process.pid}" in found["fix"]
        process.kill()
        process.wait()
    assert findings(run)["writers' lock"]["severity"] == "ok"
    store.put(b"x", "after")
    assert store.contains("after")


def test_a_control_file_that_is_not_ours(
    run: Run, store: flightstore.Store, store_path: str, tmp_path: Path
) -> None:
    original = Path(store_path, "control").read_bytes()
    cases = {
        "store": original[:40] + b"\xff" + original[41:],
        "format version": original[:8] + struct.pack("<I", 999) + original[12:],
    }
    for check, content in cases.items():
        copy = tmp_path / check
        copy.mkdir()
        (copy / "control").write_bytes(content)
        done = run("doctor", "--json", "--store", str(copy))
        assert done.code == 6
        (found,) = [f for f in done.json["findings"] if f["severity"] == "problem"]
        assert (found["check"], bool(found["fix"])) == (check, True)
        assert (copy / "control").read_bytes() == content


def test_forgotten_stores(tmp_path: Path, store_path: str) -> None:
    parent = Path(store_path).parent
    used = flightstore.connect(parent / "used", capacity="1MiB")
    flightstore.connect(parent / "forgotten", capacity="1MiB").close()
    (parent / "something else").mkdir()
    (parent / "a file").write_text("x")
    found = doctor_store.forgotten_stores(str(parent))
    assert [store.path for store in found] == [str(parent / "forgotten")]
    assert found[0].bytes > 1 << 20, "at least its catalog"
    used.close()
    shutil.rmtree(parent / "forgotten")
    assert [store.path for store in doctor_store.forgotten_stores(str(parent))] == [str(parent / "used")]
    assert doctor_store.forgotten_stores(str(parent / "not there")) == []


def test_judging_what_was_seen() -> None:
    lagging = doctor_store.check_readers([(17, 5000)])
    assert (lagging.severity, "process 17 (5,000" in lagging.message, "17" in lagging.fix) == (
        "warning",
        True,
        True,
    )
    assert doctor_store.check_readers([]).severity == "ok"
    shares = {10: "ok", 80: "warning", 95: "problem"}
    assert {share: doctor_store.check_catalog(share, 100).severity for share in shares} == shares
    assert doctor_store.check_lock_holder(0, "").severity == "ok"
    assert doctor_store.check_lock_holder(9, "gone").severity == "ok"
    assert doctor_store.check_lock_holder(9, "R").severity == "ok"
    assert doctor_store.check_lock_holder(9, "T").severity == "problem"
    clients = [ClientInfo("a", 1, 11, 2, True), ClientInfo("b", 2, 12, 3, False)]
    assert "process 12" in doctor_store.check_clients(clients).message
    assert doctor_store.check_stopped(clients, lambda _pid: "T").message.startswith("process 11 ")
    forgotten = doctor_store.check_forgotten(
        [ForgottenStore("/dev/shm/x", 1 << 20, 0)], now_ns=86_400 * 10**9
    )
    assert "/dev/shm/x (1.0 MiB, 1.0 days old)" in forgotten.message
    assert "destroy --yes --store /dev/shm/x" in forgotten.fix
