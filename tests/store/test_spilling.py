"""Spilling and restoring, through the public interface and several processes."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.catalog import keys
from flightstore.errors import (
    InvalidArgument,
    ObjectLost,
    ObjectNotFound,
    SpillFailed,
    StoreFull,
)
from flightstore.testing.children import child, start
from flightstore.testing.events import Barrier

MIB = 1 << 20


@pytest.fixture
def spilled(tmp_path: Path, store: fs.Store) -> Iterator[Path]:
    """The directory that the store spills to; empty once everything is deleted."""
    directory = tmp_path / "spilled"
    store.set_spill(str(directory))
    yield directory
    with contextlib.suppress(fs.StoreClosed):
        store.delete([info.id for info in store.list()])
        store.recover()
        assert not directory.exists() or os.listdir(directory) == []


def value(number: int, nbytes: int = MIB) -> bytes:
    """Bytes that tell which object they belong to."""
    return random.Random(number).randbytes(nbytes)


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.exists() else []


def set_of(store: fs.Store, count: int) -> dict[str, bytes]:
    """So many objects of one MiB."""
    found = {f"n{number:03}": value(number) for number in range(count)}
    for name, content in found.items():
        store.put(content, name)
    return found


@pytest.mark.req("INV-5", "INV-6", "INV-7", "PLG-6")
def test_a_working_set_of_ten_times_the_capacity(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 160)
    stats = store.stats()
    assert (stats.objects, stats.used_bytes) == (160, 16 * MIB)
    assert stats.spilled_bytes == 144 * MIB
    assert (stats.spills, stats.evictions) == (144, 0)
    assert len(files(spilled)) == 144
    chance = random.Random(1)
    for _ in range(400):
        name = chance.choice(list(contents))
        assert bytes(store.get(name).value()) == contents[name]
    assert store.fsck() == []
    assert store.delete(list(contents)) == 160
    store.recover()
    assert store.stats().spilled_bytes == store.stats().used_bytes == 0


@pytest.mark.req("INV-6")
def test_spilling_comes_after_evicting(store: fs.Store, spilled: Path) -> None:
    for number in range(16):
        store.put(value(number), f"n{number:02}", evictable=number < 4)
    for number in range(100, 104):
        store.put(value(number), f"n{number}")
    assert not files(spilled)
    store.put(value(104), "n104")
    assert len(files(spilled)) == 1
    assert not any(store.contains(f"n{number:02}") for number in range(4))


@pytest.mark.req("INV-5", "API-2")
def test_only_creates_spill_and_create_now_does_not(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 16)
    with pytest.raises(StoreFull):
        store.create_now(MIB)
    for name in contents:
        store.get(name).release()
    store.list(), store.stats(), store.fsck(), store.recover(), store.evict()
    store.wait(list(contents), timeout=0)
    assert not files(spilled)
    with store.create(MIB, "built") as blob:
        blob.buffer[:] = value(7)
    assert len(files(spilled)) == 1


@pytest.mark.req("INV-4", "INV-8")
def test_the_held_and_the_pinned_stay_in_memory(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 16)
    held = store.get("n000")
    address = memoryview(held.value())
    store.pin("n001")
    assert store.spill(["n000", "n001", "n002"]) == MIB
    assert store.stat("n001").pinned
    with pytest.raises(StoreFull) as caught:
        store.put(bytes(15 * MIB + 1))
    assert caught.value.spillable_bytes == 13 * MIB
    assert store.spill() == 13 * MIB
    assert bytes(address) == contents["n000"]
    held.release()
    assert store.spill() == 0, "a view keeps it"
    del address
    assert store.spill() == MIB
    assert {name: bytes(store.get(name).value()) for name in contents} == contents


@pytest.mark.req("INV-5")
def test_without_a_storage_nothing_is_spilled(store: fs.Store) -> None:
    set_of(store, 16)
    with pytest.raises(StoreFull):
        store.put(value(99))
    with pytest.raises(InvalidArgument, match="no spill storage is configured"):
        store.spill()
    with pytest.raises(InvalidArgument, match="memory file system"):
        store.set_spill(os.path.dirname(store.path) + "/elsewhere")


@pytest.mark.req("INV-5")
def test_what_was_spilled_comes_back_into_memory_when_it_fits(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 8)
    assert store.spill() == 8 * MIB
    obj = store.get("n000")
    view = memoryview(obj.value())
    assert in_arena(store, view)
    assert bytes(view) == contents["n000"]
    assert store.stats().used_bytes == MIB
    assert len(files(spilled)) == 8, "the file stays: to spill it again costs nothing"
    stamps = [path.stat().st_mtime_ns for path in files(spilled)]
    obj.release()
    del view, obj
    assert store.spill() == MIB
    assert [path.stat().st_mtime_ns for path in files(spilled)] == stamps
    store.put(bytes(16 * MIB), "filler")
    mapped = store.get("n000")
    assert not in_arena(store, memoryview(mapped.value()))
    assert bytes(mapped.value()) == contents["n000"]
    assert store.contains("filler"), "a get makes no room"


def in_arena(store: fs.Store, view: memoryview) -> bool:
    arena = store._conn.arena
    return arena.address <= np.frombuffer(view, np.uint8).ctypes.data < arena.address + arena.arena_bytes


@pytest.mark.req("INV-5", "TYP-1")
def test_tables_are_mapped_from_their_files(store: fs.Store, spilled: Path) -> None:
    table = pa.table({"n": np.arange(300_000), "s": [f"row {i}" for i in range(300_000)]})
    store.put(table, "t", metadata={"long": "m" * 2_000})
    store.spill()
    store.put(bytes(16 * MIB), "filler")
    obj = store.get("t")
    assert obj.to_arrow().equals(table, check_metadata=True)
    assert obj.metadata == store.stat("t").metadata == {"long": "m" * 2_000}
    frame = obj.to_pandas()
    store.delete("t")
    store.recover()
    assert frame["n"].sum() == sum(range(300_000)), "a mapping outlives its file"
    with pytest.raises(ObjectNotFound):
        store.get("t")


@pytest.mark.req("O-2", "BAT-7")
def test_bytes_with_several_users_move_once(store: fs.Store, spilled: Path) -> None:
    base = pa.table({"n": np.arange(200_000), "m": np.arange(200_000) * 2})
    store.put(base, "base")
    store.with_columns("base", {"v": np.arange(200_000.0)}, "made").release()
    store.select("made", ["v", "n"], "chosen").release()
    used = store.stats().used_bytes
    assert store.spill("chosen") == used
    assert len(files(spilled)) == 3 - 1  # base's bytes and the new column's; `chosen` has none of its own
    store.delete("base")
    assert store.get("made").to_arrow()["n"].equals(base["n"])
    again = store.concat(["chosen", "chosen"], "twice")
    assert again.num_rows == 400_000
    again.release()
    store.recover()
    assert store.fsck() == []
    assert store.spill() > 0
    assert store.get("twice").to_arrow()["v"].to_numpy()[-1] == 199_999.0
    store.delete(["made", "chosen"])
    assert store.get("twice").num_rows == 400_000


@pytest.mark.req("INV-5", "FAIL-2")
def test_composing_of_a_table_that_is_being_spilled(store: fs.Store, spilled: Path) -> None:
    """The new table lists what became of the extent, whenever its maker looked."""
    store.put(pa.table({"n": np.arange(100_000)}), "base")
    base = store.get("base")  # its record says: in the arena
    assert store.spill() == 0
    made = store.with_columns(base, {"v": np.arange(100_000)}, "made")
    assert made.to_arrow()["n"].to_numpy()[-1] == 99_999
    base.release()
    made.release()
    assert store.fsck() == []
    assert store.spill() == store.stats().spilled_bytes > 1_600_000
    assert store.get("made").to_arrow()["v"].to_numpy()[-1] == 99_999


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.req("PLG-6", "FAIL-5")
@pytest.mark.parametrize("full", [True, False], ids=["mapped", "restored"])
@pytest.mark.parametrize(
    "harm",
    [damage, os.unlink, lambda path: os.truncate(path, 5), lambda path: path.write_bytes(bytes(2 * MIB))],
    ids=["damaged", "missing", "short", "long"],
)
def test_a_harmed_file_is_an_object_lost(store: fs.Store, spilled: Path, harm: object, full: bool) -> None:
    contents = set_of(store, 2)
    store.spill("n000")
    store.spill("n001")
    first = store.stat("n000").id
    if full:
        store.put(bytes(16 * MIB), "filler")
    harm(files(spilled)[0])  # type: ignore[operator]
    for _ in range(2):
        with pytest.raises(ObjectLost, match=str(first)):
            store.get("n000")
    assert bytes(store.get("n001").value()) == contents["n001"]
    assert store.stats().pending == 0
    store.put(contents["n000"], "n000")
    assert bytes(store.get("n000").value()) == contents["n000"]


@pytest.mark.req("FAIL-5")
def test_a_storage_that_does_not_take_anything(store: fs.Store, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    contents = set_of(store, 16)
    store._conn.write(lambda tx: tx.txn.put(keys.setting_key("spill"), f"file://{blocked}/below".encode()))
    with pytest.raises(SpillFailed, match="could not be spilled") as caught:
        store.put(value(99), "new")
    assert (caught.value.asked_bytes, caught.value.capacity_bytes) == (MIB, 16 * MIB)
    with pytest.raises(SpillFailed):
        store.spill()
    assert {name: bytes(store.get(name).value()) for name in contents} == contents
    assert store.fsck() == []
    store.set_spill(str(tmp_path / "spilled"))
    store.put(value(99), "new")
    assert store.stats().objects == 17


@pytest.mark.req("INV-5")
def test_the_setting_is_the_stores(store: fs.Store, tmp_path: Path) -> None:
    assert store.spill_url is None
    with fs.connect(store.path, spill=tmp_path / "a") as other:
        assert other.spill_url == store.spill_url == f"file://{tmp_path / 'a'}"
    set_of(store, 2)
    store.spill()
    store.set_spill(str(tmp_path / "b"))
    assert bytes(store.get("n000").value()) == value(0), "found where it was spilled to"
    store.set_spill(None)
    with pytest.raises(InvalidArgument):
        store.spill()
    store.delete(["n000", "n001"])
    store.recover()
    assert files(tmp_path / "a") == []


def test_a_new_store_takes_the_setting_of_the_environment(
    store_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIGHTSTORE_SPILL", str(tmp_path / "spilled"))
    with fs.connect(store_dir, capacity="16MiB") as store:
        assert store.spill_url == f"file://{tmp_path / 'spilled'}"
        store.set_spill(None)
        with fs.connect(store_dir) as again:
            assert again.spill_url is None
        store.set_spill(str(tmp_path / "spilled"))
        set_of(store, 20)
        assert len(files(tmp_path / "spilled")) == 4
        store.destroy()
    assert files(tmp_path / "spilled") == []


@pytest.mark.req("INV-4", "INV-5", "FAIL-2")
def test_processes_spill_and_restore_at_once(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 40)

    def work(path: str, seed: int, ready: Barrier) -> int:
        chance, held = random.Random(seed), []
        with fs.connect(path) as mine:
            ready.wait()
            for number in range(200):
                name = f"n{chance.randrange(40):03}"
                view = memoryview(mine.get(name).value())
                assert bytes(view) == value(int(name[1:])), name
                held.append(view)
                if len(held) > 3:
                    held.pop(chance.randrange(4))
                if number % 10 == 0:
                    mine.put(value(1000 + number), f"mine-{seed}", timeout=30)
                if number % 50 == 0:
                    mine.spill()
        return number

    with contextlib.ExitStack() as stack:
        ready = stack.enter_context(Barrier(3))
        processes = [stack.enter_context(start(work, store.path, seed, ready)) for seed in range(3)]
        assert [process.result(deadline_s=120) for process in processes] == [199] * 3
    store.recover()
    assert store.fsck() == []
    assert {name: bytes(store.get(name).value()) for name in contents} == contents


@pytest.mark.req("FAIL-2", "FAIL-3")
def test_a_spiller_that_is_killed_at_random(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 12)

    def work(path: str) -> None:
        with fs.connect(path) as mine:
            while True:
                mine.spill()
                for name in contents:
                    mine.get(name).release()

    for seed in range(8):
        with start(work, store.path) as process:
            until = time.monotonic() + 0.05 * random.Random(seed).random()
            while time.monotonic() < until or not files(spilled):
                assert bytes(store.get("n003").value()) == contents["n003"]
            process.kill()
        store.recover()
        assert store.fsck() == []
        known = store._conn.catalog.items(keys.SPILL)
        assert len(files(spilled)) <= len(known)
    assert {name: bytes(store.get(name).value()) for name in contents} == contents


@pytest.mark.req("FAIL-4")
def test_a_forked_child_keeps_what_it_mapped(store: fs.Store, spilled: Path) -> None:
    contents = set_of(store, 2)
    store.spill()
    store.put(bytes(16 * MIB), "filler")
    mapped = memoryview(store.get("n000").value())
    store.delete("filler")
    store.recover()
    restored = memoryview(store.get("n001").value())

    def look() -> bool:
        return bytes(mapped) == contents["n000"] and bytes(restored) == contents["n001"]

    assert child(look)
    assert child(lambda: bytes(store.get("n000").value()) == contents["n000"])


@pytest.mark.req("ISO-3", "INV-5", "INV-6")
def test_a_session_at_its_quota_moves_its_own_objects_only(store: fs.Store, spilled: Path) -> None:
    outside = set_of(store, 4)
    with store.session("small", quota=4 * MIB) as session:
        contents = {f"s{number}": value(100 + number) for number in range(10)}
        for name, content in contents.items():
            session.put(content, name)
        assert len(files(spilled)) == 6
        assert {store.stat(name).state for name in outside} == {"sealed"}
        assert {name: bytes(session.get(name).value()) for name in contents} == contents
        session.free(["s9"])
        session.get("s0").release()
        session.put(value(200), "more")
        assert not session.contains("s9")
        assert store.fsck() == []
        session.end()
    store.recover()
    assert len(files(spilled)) == 0
    assert {name: bytes(store.get(name).value()) for name in outside} == outside
