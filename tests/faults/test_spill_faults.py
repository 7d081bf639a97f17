"""INV-5, FAIL-2, FAIL-5: ten times the capacity, by several processes, on good and on bad spill storages."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.catalog import keys
from flightstore.errors import SpillFailed
from flightstore.testing.children import start
from flightstore.testing.events import Barrier
from flightstore.testing.faultystorage import faulty_url

from .spilltools import MIB, check_all, delete_all, files, get_patiently, not_got, refused, set_of, value

OBJECTS, NBYTES = 320, MIB // 2  # ten times a store of 16 MiB

STORAGES = {
    "fast": {},
    "slow": {"slow_s": 0.002},
    "unreliable": {"fail": 0.1, "fail_reads": 0.1, "seed": 7},
}


def url_of(directory: Path, faults: dict[str, float]) -> str:
    return faulty_url(directory, **faults) if faults else str(directory)


def work(path: str, names: list[str], seed: int, gets: int, ready: Barrier) -> int:
    """Get at random, and put in between; returns how many values were compared."""
    chance, held = random.Random(seed), []
    with fs.connect(path, busy_timeout=60) as store:
        ready.wait()
        for number in range(gets):
            name = chance.choice(names)
            view = get_patiently(store, name)
            assert bytes(view) == value(int(name[1:]), NBYTES), name
            held = [*held[-2:], view]
            if number % 8 == 0:
                store.put(value(10_000 * seed + number, NBYTES), f"own-{seed}", timeout=60)
            if number % 64 == 0:
                with contextlib.suppress(SpillFailed):
                    store.spill([chance.choice(names) for _ in range(4)])
        own = bytes(get_patiently(store, f"own-{seed}"))
        assert own == value(10_000 * seed + 8 * ((gets - 1) // 8), NBYTES)
    return gets


@pytest.mark.slow
@pytest.mark.req("INV-5", "INV-6", "INV-7", "FAIL-5", "PLG-6")
@pytest.mark.parametrize("faults", STORAGES.values(), ids=STORAGES)
def test_processes_with_ten_times_the_capacity(
    store: fs.Store, tmp_path: Path, faults: dict[str, float]
) -> None:
    store.set_spill(url_of(tmp_path / "spilled", faults))
    contents = set_of(store, OBJECTS, NBYTES)
    with contextlib.ExitStack() as stack:
        ready = stack.enter_context(Barrier(3))
        workers = [
            stack.enter_context(start(work, store.path, list(contents), seed, 100, ready))
            for seed in range(1, 4)
        ]
        assert [worker.result(deadline_s=180) for worker in workers] == [100] * 3
    check_all(store, contents)
    delete_all(store)
    assert files(tmp_path / "spilled") == []
    assert store.stats().used_bytes == store.stats().spilled_bytes == 0


@pytest.mark.slow
@pytest.mark.req("FAIL-2", "FAIL-3", "INV-5")
@pytest.mark.parametrize("faults", STORAGES.values(), ids=STORAGES)
def test_processes_that_are_killed_while_they_spill_and_restore(
    store: fs.Store, tmp_path: Path, faults: dict[str, float]
) -> None:
    store.set_spill(url_of(tmp_path / "spilled", faults))
    contents = set_of(store, 60, NBYTES)
    for seed in range(1, 6):
        with contextlib.ExitStack() as stack:
            ready = stack.enter_context(Barrier(3))
            workers = [
                stack.enter_context(start(work, store.path, list(contents), 10 * seed + one, 100_000, ready))
                for one in range(2)
            ]
            ready.wait()
            until = time.monotonic() + random.Random(seed).random() / 2
            while time.monotonic() < until:
                assert bytes(get_patiently(store, "n007")) == contents["n007"]
            for worker in workers:
                worker.kill()
        store.recover()
        assert store.fsck() == []
        known = len(store._conn.catalog.items(keys.SPILL)) + len(store._conn.catalog.items(keys.DOOMED))
        assert len(files(tmp_path / "spilled")) <= known
    check_all(store, contents)
    delete_all(store)
    assert files(tmp_path / "spilled") == []


@pytest.mark.req("FAIL-5")
def test_a_write_that_fails_now_and_then_fails_no_put(store: fs.Store, tmp_path: Path) -> None:
    """Nobody waits, and each put can spill one object only."""
    store.set_spill(faulty_url(tmp_path / "spilled", fail=0.2, seed=3))
    contents = set_of(store, 80, timeout=0)
    check_all(store, contents)


@pytest.mark.req("FAIL-5")
def test_a_read_that_fails_is_repeated_and_then_told(store: fs.Store, tmp_path: Path) -> None:
    store.set_spill(faulty_url(tmp_path / "spilled", fail_reads=1))
    contents = set_of(store, 3)
    store.spill()
    for _ in range(2):
        error = not_got(store, "n000")
        assert isinstance(error, SpillFailed)
        assert (error.asked_bytes, "faulty" in error.url, "not lost" in error.hint) == (MIB, True, True)
        assert str(store.stat("n000").id) in str(error)
    store.recover()
    stats = store.stats()
    assert (stats.used_bytes, stats.pending, stats.objects) == (0, 0, 3)
    store.put(bytes(16 * MIB), "filler")  # so that the files are mapped, which nothing fails
    assert {name: bytes(store.get(name).value()) for name in contents} == contents


@pytest.mark.req("FAIL-5")
def test_a_put_goes_on_until_its_time_is_over(store: fs.Store, tmp_path: Path) -> None:
    """A storage that is put right while somebody waits."""
    store.set_spill(faulty_url(tmp_path / "spilled", fail=1))
    contents = set_of(store, 16)

    def wait_for_room(path: str) -> bool:
        with fs.connect(path) as mine:
            mine.put(value(99), "new", timeout=60)
        return True

    events = store.subscribe(kinds=["spilled"])
    with start(wait_for_room, store.path) as waiter:
        assert events.poll(timeout=60) is not None, "it tries"
        assert store.stats().spilled_bytes == 0
        store.set_spill(str(tmp_path / "better"))
        assert waiter.result()
    events.close()
    check_all(store, contents | {"new": value(99)})


@pytest.mark.req("FAIL-5", "ISO-3")
def test_a_session_goes_on_until_its_time_is_over(store: fs.Store, tmp_path: Path) -> None:
    store.set_spill(faulty_url(tmp_path / "spilled", fail=1))
    with store.session("small", quota=2 * MIB) as session:
        contents = {name: value(number) for number, name in enumerate("ab")}
        for name, content in contents.items():
            session.put(content, name)
        with pytest.raises(SpillFailed):
            session.put(value(99), "new")

        def wait_for_room(path: str) -> bool:
            with fs.connect(path) as mine, mine.session("small", attach=True) as attached:
                attached.put(value(99), "new", timeout=60)
            return True

        events = session.subscribe(kinds=["spilled"])
        with start(wait_for_room, store.path) as waiter:
            assert events.poll(timeout=60) is not None
            store.set_spill(str(tmp_path / "better"))
            assert waiter.result()
        events.close()
        contents["new"] = value(99)
        assert {name: bytes(session.get(name).value()) for name in contents} == contents


@pytest.mark.req("FAIL-5")
def test_a_storage_that_does_nothing_does_not_fill_the_catalog(store: fs.Store, tmp_path: Path) -> None:
    store.set_spill(faulty_url(tmp_path / "spilled", fail=1, fail_removes=1))
    contents = set_of(store, 16)
    for _ in range(600):
        with pytest.raises(SpillFailed):
            store.spill()
    assert 0 < len(store._conn.catalog.items(keys.DOOMED)) <= 520
    assert "faulty" in str(refused(store, MIB))
    store.set_spill(str(tmp_path / "better"))
    store.put(value(99), "new")
    check_all(store, contents)
