"""FAIL-5, PLG-6: storages that go away and come back, that one process does not know, that several stores
share, and that are changed or destroyed while others spill.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.catalog import keys
from flightstore.errors import ObjectLost, SpillFailed, StoreClosed
from flightstore.lifecycle.storage_local import LocalStorage
from flightstore.testing.children import start
from flightstore.testing.events import Barrier, Gate, wait_until
from flightstore.testing.faultystorage import faulty_url

from .spilltools import MIB, check_all, delete_all, files, get_patiently, not_got, refused, set_of, value

pytestmark = pytest.mark.req("FAIL-5", "PLG-6")


def fill_up(store: fs.Store) -> None:
    """So that nothing is restored: files are read where they are."""
    free = store.stats().free_bytes
    if free:
        store.put(bytes(free), "filler")


@pytest.mark.parametrize("full", [False, True], ids=["restored", "mapped"])
def test_a_directory_that_goes_away_and_comes_back(store: fs.Store, tmp_path: Path, full: bool) -> None:
    place, away = tmp_path / "spilled", tmp_path / "away"
    store.set_spill(str(place))
    contents = set_of(store, 4)
    store.spill()
    if full:
        fill_up(store)
    place.rename(away)
    error = not_got(store, "n000")
    assert isinstance(error, SpillFailed)
    assert str(place) in str(error)
    assert store.delete("n003") == 1
    for _ in range(2):
        store.recover()
    assert store.fsck() == []
    assert len(files(away)) == 4
    away.rename(place)
    del contents["n003"]
    check_all(store, contents)
    assert len(files(place)) == 3
    delete_all(store)
    assert files(place) == []


def test_a_directory_that_is_something_else(store: fs.Store, tmp_path: Path) -> None:
    """Neither reading, nor writing, nor removing works; and then everything does again."""
    place, away = tmp_path / "spilled", tmp_path / "away"
    store.set_spill(str(place))
    contents = set_of(store, 18)
    place.rename(away)
    place.write_text("a file")
    assert isinstance(not_got(store, "n000"), SpillFailed)
    assert isinstance(refused(store, MIB, timeout=0.2), SpillFailed)
    with pytest.raises(SpillFailed):
        store.spill()
    store.delete("n001")
    store.recover()
    assert store.fsck() == []
    place.unlink()
    away.rename(place)
    store.put(value(50), "new")
    del contents["n001"]
    check_all(store, contents | {"new": value(50)})
    delete_all(store)
    assert files(place) == []


def test_a_file_that_is_missing_in_its_directory_is_lost(store: fs.Store, tmp_path: Path) -> None:
    store.set_spill(str(tmp_path / "spilled"))
    set_of(store, 1)
    store.spill()
    (found,) = (tmp_path / "spilled").iterdir()
    found.unlink()
    assert isinstance(not_got(store, "n000"), ObjectLost)
    delete_all(store)
    assert store.stats().spilled_bytes == 0


class Named(LocalStorage):
    """A storage of a scheme of its own, with a directory behind it."""

    def __init__(self, url: str) -> None:
        super().__init__(url.replace("only-here://", "file://", 1))
        self.url = url


def test_a_scheme_that_one_process_does_not_know(store: fs.Store, tmp_path: Path) -> None:
    """Registered in the child alone: it spills; we can neither read nor spill, and lose nothing."""
    contents = set_of(store, 16)
    with Gate("spilled") as spilled, Gate("go on") as go_on:

        def knowing(path: str) -> bool:
            fs.register_spill_storage("only-here", Named)
            with fs.connect(path) as mine:
                mine.set_spill(f"only-here://{tmp_path}/spilled")
                assert mine.spill(["n000", "n001"]) == 2 * MIB
                spilled.open()
                go_on.wait()
                right = all(bytes(mine.get(name).value()) == contents[name] for name in ("n000", "n001"))
                mine.recover()
            return right

        with start(knowing, store.path) as process:
            spilled.wait()
            error = not_got(store, "n000")
            assert isinstance(error, SpillFailed)
            assert "only-here://" in str(error)
            assert bytes(store.get("n005").value()) == contents["n005"]
            store.put(value(60, 2 * MIB), "fits")
            error = refused(store, MIB)
            assert isinstance(error, SpillFailed)
            assert "only-here://" in str(error)
            with pytest.raises(SpillFailed, match="only-here"):
                store.spill()
            store.recover()
            assert store.fsck() == []
            assert len(files(tmp_path / "spilled")) == 2
            store.delete("n001")
            store.recover()
            store.put(contents["n001"], "n001") if store.stats().free_bytes else None
            store.delete("fits")
            store.put(contents["n001"], "n001")
            go_on.open()
            assert process.result()
    assert len(files(tmp_path / "spilled")) == 1, "the child removed what we could not"


def test_doomed_files_of_a_storage_that_removes_nothing(store: fs.Store, tmp_path: Path) -> None:
    """recover() neither fails nor forgets them."""
    place = tmp_path / "spilled"
    store.set_spill(faulty_url(place, fail_removes=1))
    contents = set_of(store, 10)
    store.spill()
    store.delete(["n000", "n001"])
    for _ in range(2):
        store.recover()
    assert (len(files(place)), len(store._conn.catalog.items(keys.DOOMED))) == (10, 2)
    assert store.fsck() == []
    del contents["n000"], contents["n001"]
    check_all(store, contents)
    store.destroy()
    assert len(files(place)) == 10, "as far as the storage answers"


def spill_for_ever(path: str, names: list[str], ready: Barrier) -> None:
    with fs.connect(path, busy_timeout=60) as store:
        ready.wait()
        with contextlib.suppress(StoreClosed):
            while True:
                store.spill()
                for name in names:
                    store.get(name).release()


def test_the_setting_is_changed_while_others_spill(store: fs.Store, tmp_path: Path) -> None:
    places = [tmp_path / name for name in "abc"]
    store.set_spill(str(places[0]))
    contents = set_of(store, 8)
    with contextlib.ExitStack() as stack:
        ready = stack.enter_context(Barrier(3))
        for _ in range(2):
            stack.enter_context(start(spill_for_ever, store.path, list(contents), ready))
        ready.wait()
        for number in range(60):
            place = places[number % 4] if number % 4 < 3 else None
            store.set_spill(str(place) if place else None)
            name = f"n{number % 8:03}"
            assert bytes(get_patiently(store, name)) == contents[name]
            store.put(contents[name], name, timeout=60)  # a new object: it goes where the setting says
        store.set_spill(str(places[0]))
    check_all(store, contents)
    delete_all(store)
    assert [files(place) for place in places] == [[], [], []]


def test_two_stores_share_a_directory(store: fs.Store, store_dir: str, tmp_path: Path) -> None:
    place = tmp_path / "spilled"
    other = fs.connect(f"{store_dir}-2", capacity=16 * MIB)
    for one in (store, other):
        one.set_spill(str(place))
    contents = set_of(store, 6)
    others = {name: content[::-1] for name, content in contents.items()}
    for name, content in others.items():
        other.put(content, name)
    assert store.spill() == other.spill() == 6 * MIB
    assert len(files(place)) == 12
    store.recover()
    assert {name: bytes(other.get(name).value()) for name in others} == others
    other.spill()
    other.destroy()
    assert len(files(place)) == 6
    check_all(store, contents)
    delete_all(store)
    assert files(place) == []


def test_a_store_that_is_destroyed_while_others_spill(store_dir: str, tmp_path: Path) -> None:
    """Whoever is writing a file then removes it himself."""
    place = tmp_path / "spilled"
    store = fs.connect(store_dir, capacity=16 * MIB, spill=faulty_url(place, slow_s=0.02))
    contents = set_of(store, 8)
    with Barrier(2) as ready, start(spill_for_ever, store.path, list(contents), ready) as process:
        ready.wait()
        wait_until(lambda: bool(files(place)), what="a file")
        store.destroy()
        process.result()
    assert files(place) == []


def _interrupt(pid: int, rounds: memoryview, ended: Gate) -> None:
    """Send interrupts until one ends the loop of a process: Python drops one that comes inside a finalizer.

    That it was dropped is known once a whole round came after it. A process that has left its loop gets none.
    """

    def is_heard_or_dropped(seen: int) -> bool:
        return ended.is_open or rounds[0] > seen + 1

    while not ended.is_open:
        os.kill(pid, signal.SIGINT)
        wait_until(partial(is_heard_or_dropped, rounds[0]), what="the loop ends, or goes on", timeout_s=60)


@pytest.mark.req("FAIL-2", "FAIL-3")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_two_restore_the_same_object_and_one_is_stopped(
    store: fs.Store, tmp_path: Path, how: signal.Signals
) -> None:
    store.set_spill(faulty_url(tmp_path / "spilled", slow_s=0.005))
    contents = set_of(store, 3, 4 * MIB)

    def read(path: str, ready: Barrier, done: Gate, rounds: memoryview) -> str:
        with fs.connect(path, busy_timeout=60) as mine:
            with contextlib.suppress(KeyboardInterrupt):
                signal.signal(signal.SIGINT, signal.default_int_handler)
                ready.wait()
                while True:
                    assert bytes(mine.get("n000").value()) == contents["n000"]
                    mine.spill("n000")
                    rounds[0] += 1
            done.open()
        return "interrupted"

    for seed in range(6):
        with contextlib.ExitStack() as stack:
            ready = stack.enter_context(Barrier(3))
            gates = [stack.enter_context(Gate()) for _ in range(2)]
            rounds = [memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q") for _ in gates]
            readers = [
                stack.enter_context(start(read, store.path, ready, gate, count))
                for gate, count in zip(gates, rounds, strict=True)
            ]
            ready.wait()
            until = time.monotonic() + random.Random(seed).random() / 8
            while time.monotonic() < until:
                assert bytes(store.get("n000").value()) == contents["n000"]
            for reader, gate, count in zip(readers, gates, rounds, strict=True):
                if how == signal.SIGINT:
                    _interrupt(reader.pid, count, gate)
                else:
                    os.kill(reader.pid, how)
            assert how == signal.SIGKILL or [reader.result() for reader in readers] == ["interrupted"] * 2
        store.recover()
        stats = store.stats()
        assert (stats.pending, stats.dying, store.fsck()) == (0, 0, [])
    check_all(store, contents)
    delete_all(store)
    assert files(tmp_path / "spilled") == []
