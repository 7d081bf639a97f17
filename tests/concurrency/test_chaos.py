"""The chaos test in the form that fits a test run, and its own parts: they must notice what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore
from flightstore.testing.chaos import chaos
from flightstore.testing.chaosboard import Board, Ledger, read_ledgers
from flightstore.testing.chaoschecks import Checker
from flightstore.testing.chaosmoves import KEEP_SESSION, MOVES, Wrong, check_object
from flightstore.testing.events import wait_until
from flightstore.testing.stresspattern import block, block_length, blocks_problem


@pytest.mark.slow
@pytest.mark.req("FAIL-2", "FAIL-3", "FAIL-4", "INV-4", "BAT-6", "BAT-7", "ISO-2", "INV-11")
def test_the_whole_life_cycle_under_kills_stops_and_forks() -> None:
    result = chaos(seconds=15, processes=4, seed=1, round_s=5, capacity="16MiB", least_checked=500)
    assert result.failures == ()
    assert result.counts["checked"] >= 500, "hardly anything was done"
    assert min(result.counts[f"move {name}"] for name in MOVES) > 0
    assert min(result.kills, result.counts["forks"], result.rounds) > 1


def test_ctrl_c_ends_the_command_and_leaves_nothing() -> None:
    command = [sys.executable, "-m", "flightstore.testing.chaos", "--processes", "2", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def places() -> list[Path]:
        return [
            *Path("/dev/shm").glob(f"flightstore-chaos-{running.pid}-*"),
            *Path("/var/tmp").glob(f"flightstore-chaos-{running.pid}-*"),
        ]

    wait_until(
        lambda: any(list(place.glob("store/clients/*"))[2:] for place in places()),
        what="they work",
        timeout_s=120,
    )
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate(timeout=120)
    assert running.returncode == 130
    assert json.loads(printed)["interrupted"]
    assert places() == []


@pytest.mark.parametrize("column", [0, 3])
def test_every_kind_of_damage_to_blocks_is_found(column: int) -> None:
    words = np.concatenate([block(head, column) for head in (5, 9)])
    assert blocks_problem(words, column) is None
    assert len(words) == block_length(5) + block_length(9)
    for at in (1, block_length(5) - 1, block_length(5), len(words) - 1):
        broken = words.copy()
        broken[at] ^= np.uint64(1)
        assert blocks_problem(broken, column) is not None, f"word {at}"
    assert blocks_problem(words[:-1], column) is not None
    assert blocks_problem(words, column + 1) is not None
    assert blocks_problem(words[:0], column) is not None


def test_an_object_that_is_another_is_found(store: flightstore.Store) -> None:
    store.put(pa.table({"c0": block(5), "c2": block(5, 2)}), "right", metadata=5)
    store.put(block(5).tobytes(), "wrong record", metadata=7)
    assert check_object(store.get("right"), {5}) == 5
    with pytest.raises(Wrong, match="instead of"):
        check_object(store.get("right"), {7})
    with pytest.raises(Wrong, match="its metadata says"):
        check_object(store.get("wrong record"))


def test_the_ledger_says_what_must_be_there(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    for sign, name, head in (
        ("+", "begun", 1),
        ("+", "made", 2),
        ("=", "made", 2),
        ("+", "put over", 3),
        ("=", "put over", 3),
        ("+", "put over", 4),
        ("+", "deleted", 5),
        ("=", "deleted", 5),
        ("-", "deleted", 5),
        ("x", "deleted", 5),
    ):
        ledger.write(sign, name.replace(" ", "-"), head)
    ledger.close()
    found = {name: (one.heads, one.must, one.gone) for name, one in read_ledgers(str(tmp_path)).items()}
    assert found == {
        "begun": ({1}, False, False),
        "made": ({2}, True, False),
        "put-over": ({3, 4}, True, False),
        "deleted": ({5}, False, True),
    }


def test_the_board_keeps_the_latest_notes(tmp_path: Path) -> None:
    board = Board(2, ("other", "gets"), str(tmp_path / "log"))
    for number in range(100):
        board.begin(1, f"move {number}")
    board.add(1, " failed")
    board.count(1, "gets")
    assert board.last(1)[-2:] == ["move 98", "move 99 failed"]
    assert board.last(0) == []
    assert board.total("gets") == 1
    assert board.busy_s(1) > 0
    board.conclude(1)
    assert board.busy_s(1) == 0
    board.report(1, "wrong")
    assert "move 99 failed" in Path(board.log).read_text()


def test_the_checks_notice_loss_and_left_overs(store: flightstore.Store, tmp_path: Path) -> None:
    path, ledgers, spilled = store.stats().path, tmp_path / "ledgers", tmp_path / "spilled"
    ledgers.mkdir()
    spilled.mkdir()
    store.session(KEEP_SESSION).close()
    checker = Checker(path, str(ledgers), str(spilled), patience_s=2)
    ledger = Ledger(str(ledgers))
    ledger.write("+", "p/1", 5)
    store.put(block(5).tobytes(), "p/1", metadata=5)
    ledger.write("=", "p/1", 5)
    assert checker.look(0) == []
    (spilled / "stray").touch()
    store.put(block(7).tobytes(), "p/1", metadata=7)
    held = store.get("p/1")
    found = "\n".join(checker.look(0))
    assert "stray" in found
    assert "instead of ['0x5']" in found
    assert "'leases': 1" in found
    os.unlink(spilled / "stray")
    held.release()
    store.delete("p/1")
    (lost,) = checker.look(0)
    assert lost.startswith("the protected object p/1 is lost: ['+ 0x5 -', '= 0x5 -']; events [")
    ledger.close()
