"""FAIL-5: a memory file system that others have filled. Errors with numbers, nothing lost, never SIGBUS.

All work is done in child processes: one that dies of a signal fails its test as ChildDied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.errors import StoreFull
from flightstore.testing.faults import Gate, child, fill_file_system, small_tmpfs, start
from flightstore.types import ObjectID

pytestmark = [pytest.mark.req("FAIL-5"), pytest.mark.needs("mount")]

MIB = 1 << 20
PAGE = 4096
CAPACITY = 16 * MIB
CATALOG_BYTES = 8 * MIB


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A memory file system with room for the store and a little more."""
    with small_tmpfs(40 * MIB) as path:
        yield path


def value(seed: int, nbytes: int) -> bytes:
    return bytes([seed]) * nbytes


def check(path: str, expected: dict[str, bytes]) -> None:
    """Everything is there, and the store is sound."""
    with flightstore.connect(path, create=False) as store:
        assert {info.name for info in store.list()} == expected.keys()
        for name, content in expected.items():
            assert bytes(store.get(name)) == content
        store.recover()  # a child that ended with views in use leaves its client file
        assert store.fsck() == []


def test_put_into_a_full_file_system(tmpfs: Path) -> None:
    path = str(tmpfs / "store")

    def work() -> None:
        with flightstore.connect(path, capacity=CAPACITY) as store:
            store.put_many({f"old{n}": value(n, MIB) for n in range(4)})
            held = store.get("old0").value()
            with fill_file_system(tmpfs):
                with pytest.raises(StoreFull) as caught:
                    store.put(value(9, 4 * MIB), "new")
                error = caught.value
                assert error.asked_bytes == 4 * MIB
                assert error.capacity_bytes == CAPACITY
                assert error.free_bytes == CAPACITY - 4 * MIB
                assert error.largest_hole_bytes < error.asked_bytes, "what the file system would give counts"
                assert "the memory file system has 0 bytes free" in str(error)
                assert "free memory there" in error.hint
                assert bytes(store.get("old1")) == value(1, MIB)
                assert store.fsck() == []
                assert store.delete("old2") == 1
                store.put(value(7, MIB), "in the hole")  # its memory is still backed
                with pytest.raises(StoreFull):
                    store.create_now(2 * MIB)
            store.put(value(9, 4 * MIB), "new")
            assert bytes(held) == value(0, MIB)

    child(work)
    left = {f"old{n}": value(n, MIB) for n in (0, 1, 3)}
    child(check, path, left | {"in the hole": value(7, MIB), "new": value(9, 4 * MIB)})


def test_a_small_object_needs_no_whole_growth_step(tmpfs: Path) -> None:
    """Growing by a step is refused for lack of memory; growing by what is needed is not."""
    path = str(tmpfs / "store")

    def work() -> int:
        with flightstore.connect(path, capacity=CAPACITY) as store:
            with fill_file_system(tmpfs, leave_bytes=20 * PAGE):
                count = 0
                with pytest.raises(StoreFull):  # noqa: PT012
                    while True:
                        store.put(value(count, PAGE))
                        count += 1
                assert store.fsck() == []
                return count

    assert child(work) == 20


def test_holes_are_given_back_for_a_growth_elsewhere(tmpfs: Path) -> None:
    """The file system is full, and the store has free memory in pieces that do not fit."""
    path = str(tmpfs / "store")

    def work() -> None:
        with flightstore.connect(path, capacity=CAPACITY) as store:
            store.put_many({f"n{n}": value(n, MIB // 4) for n in range(48)})
            with fill_file_system(tmpfs):
                assert store.delete([f"n{n}" for n in range(0, 48, 2)]) == 24
                store.put(value(99, 2 * MIB), "large")
                assert bytes(store.get("large")) == value(99, 2 * MIB)
                for n in range(1, 48, 2):
                    assert bytes(store.get(f"n{n}")) == value(n, MIB // 4)
                assert store.fsck() == []

    child(work)


def test_a_new_process_can_connect_read_and_delete(tmpfs: Path) -> None:
    path = str(tmpfs / "store")

    def fill() -> None:
        with flightstore.connect(path, capacity=CAPACITY) as store:
            store.put_many({f"old{n}": value(n, MIB) for n in range(4)})

    def newcomer() -> None:
        with flightstore.connect(path, create=False) as store:
            assert bytes(store.get("old3")) == value(3, MIB)
            with pytest.raises(StoreFull):
                store.put(value(9, 2 * MIB))
            assert store.delete("old1") == 1
            store.put(value(8, MIB), "new")

    def after() -> None:
        with flightstore.connect(path) as store:
            store.recover()
            assert (Path(path) / "reserve").stat().st_blocks > 0  # made again, for the next time

    child(fill)
    with fill_file_system(tmpfs) as filler:
        filler.fill()
        child(newcomer)
        assert not (Path(path) / "reserve").exists()
    child(after)
    child(
        check,
        path,
        {"old0": value(0, MIB), "old2": value(2, MIB), "old3": value(3, MIB), "new": value(8, MIB)},
    )


def test_without_even_the_reserve_connecting_is_a_clear_error(tmpfs: Path) -> None:
    path = str(tmpfs / "store")

    def connect() -> None:
        flightstore.connect(path, capacity=CAPACITY).close()

    def refused() -> str:
        with pytest.raises(
            StoreFull, match=r"has no room for a client file; 0 bytes and .* are free"
        ) as caught:
            flightstore.connect(path)
        return str(caught.value)

    child(connect)
    (Path(path) / "reserve").unlink()
    with fill_file_system(tmpfs):
        assert path in child(refused)
    child(connect)
    child(check, path, {})


def test_more_references_than_there_is_room_for(tmpfs: Path) -> None:
    """The table of leases grows by memory of the same file system."""
    path = str(tmpfs / "store")

    def work() -> int:
        with flightstore.connect(path, capacity=CAPACITY) as store:
            ids = store.put_many([value(n % 251, 100) for n in range(2000)])
            held = []
            with fill_file_system(tmpfs, leave_bytes=PAGE):
                with pytest.raises(StoreFull, match="no room for more references"):
                    held.extend(store.get(one) for one in ids)
                taken = len(held)
                assert store.stats().leases == taken
                for n, one in enumerate(held):
                    assert bytes(one) == value(n % 251, 100)
                del held[100:], one
                held.append(store.get(ids[-1]))  # entries that were given back serve again
                assert store.fsck() == []
            held.extend(store.get(one) for one in ids)
            return taken

    assert child(work) >= 512


def test_the_file_system_is_full_at_any_point_of_making_a_store(tmpfs: Path) -> None:
    """It works, or says that there is no room; and what is left is no obstacle to the next try."""
    path = str(tmpfs / "store")

    def attempt() -> str:
        try:
            with flightstore.connect(path, capacity=CAPACITY) as store:
                try:
                    store.put(b"x" * 100, "tiny")
                except StoreFull:
                    return "made, too full to put"
                assert bytes(store.get("tiny")) == b"x" * 100
                return "made"
        except StoreFull as error:
            assert "has no room for a" in str(error)  # noqa: PT017 - not raised each time
            return "no room"

    def again() -> None:
        with flightstore.connect(path, capacity=CAPACITY) as store:
            store.put(b"y", "again")
            assert store.fsck() == []
            store.destroy()

    def pages() -> Iterator[int]:
        yield from range(6)
        yield from range(62, 68)  # around the end of the reserve
        yield from range(127, 135)  # lock file, beginning of the catalog
        yield from range(200, 2048, 600)
        yield from range(2174, 2180)  # its end
        yield from range(2238, 2254)  # control file, client file

    outcomes = []
    for count in pages():
        with fill_file_system(tmpfs, leave_bytes=count * PAGE):
            outcomes.append(child(attempt))
        child(again)
        assert list(tmpfs.iterdir()) == []
    assert outcomes[0] == "no room"
    assert outcomes[-1] == "made"
    assert "made, too full to put" in outcomes


def test_out_of_inodes() -> None:
    def attempt(path: str) -> str:
        try:
            with flightstore.connect(path, capacity=CAPACITY) as store:
                store.put(b"x", "tiny")
            return "made"
        except StoreFull as error:
            assert re.search(r"has no room for .* \d+ inodes are free", str(error))  # noqa: PT017 - not raised each time
            return "no room"

    with small_tmpfs(40 * MIB, inodes=40) as tmpfs:
        outcomes = []
        for spare in (0, 1, 4, 7, 8, 9, 10, 12):
            fillers = [tmpfs / f"filler{n}" for n in range(39 - spare)]
            for filler in fillers:
                filler.touch()
            path = str(tmpfs / "store")
            outcomes.append(child(attempt, path))
            for filler in fillers:
                filler.unlink()
            assert child(attempt, path) == "made"
            child(lambda path: flightstore.connect(path).destroy(), path)
        assert outcomes == sorted(outcomes, reverse=True)
        assert set(outcomes) == {"made", "no room"}


def test_a_put_that_waits_succeeds_when_the_file_system_has_room_again(tmpfs: Path) -> None:
    path = str(tmpfs / "store")

    with Gate("the first put") as waiting:

        def put() -> ObjectID:
            with flightstore.connect(path, capacity=CAPACITY) as store:
                waiting.open()
                return store.put(value(5, MIB), "late", timeout=50)

        def impatient() -> None:
            with flightstore.connect(path) as store:
                store.put(value(6, MIB), timeout=0.3)

        child(lambda: flightstore.connect(path, capacity=CAPACITY).close())
        with fill_file_system(tmpfs, leave_bytes=MIB // 2) as filler, start(put) as process:
            waiting.wait()
            with pytest.raises(StoreFull):
                child(impatient)
            filler.release(2 * MIB)
            process.result()
    child(check, path, {"late": value(5, MIB)})
