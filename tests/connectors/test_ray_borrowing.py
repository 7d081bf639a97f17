"""from_ray on a real Ray cluster: borrowed where it lies, and never wrong, whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.testing.children import child

from .ray_values import same, until
from .raycluster import Driver, RayCluster

pytestmark = [pytest.mark.needs("root", "network", "mount"), pytest.mark.slow]
MIB = 1 << 20
GIB = 1 << 30
SIZE = 8 * MIB
MEMORY = 96 * MIB
"""Of Ray, on each node."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster(memory_bytes=MEMORY, other_bytes=MEMORY) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def driver(cluster: RayCluster) -> Iterator[Driver]:
    with cluster.driver() as driver:
        yield driver


@pytest.fixture(scope="module")
def one_store() -> Iterator[fs.Store]:
    """One for all, since each needs keepers of its own, and these are processes."""
    folder = tempfile.mkdtemp(prefix="flightstore-test-", dir="/dev/shm")
    with fs.connect(f"{folder}/store", capacity="64MiB") as store:
        yield store
        store.destroy()
    shutil.rmtree(folder)


@pytest.fixture
def store(one_store: fs.Store) -> Iterator[fs.Store]:
    """Consistent and empty after each test."""
    yield one_store
    one_store.recover()
    assert one_store.fsck() == []
    one_store.delete([info.id for info in one_store.list()])
    one_store.recover()
    assert one_store.loans() == []


def read_elsewhere(path: str, kind: str, nbytes: int, name: str) -> bool:
    """Whether a process that knows nothing of Ray reads the value."""
    with fs.connect(path, create=False) as store:
        return same(kind, nbytes, store.get(name).value())


@pytest.mark.req("O-5", "O-3")
@pytest.mark.parametrize("kind", ["table", "array", "pandas", "series", "pandas with text"])
def test_what_lies_in_rays_memory_is_borrowed(driver: Driver, store: fs.Store, kind: str) -> None:
    came = driver.run("ray_borrowing.take", store.path, kind, SIZE, "lent")
    assert came["borrowed"], came
    assert came["metadata"] == {"ray": {"borrowed": True}}
    copied = 5 * MIB if kind.endswith("text") else 0  # which pandas unpickles into memory of its own
    assert came["grown"] < copied + (1 << 16)
    (path, length, number) = came["loans"][0]
    assert path.startswith("/proc/")
    assert length >= SIZE // 2
    assert number == 2
    assert same(kind, SIZE, store.get("lent").value())
    assert child(read_elsewhere, store.path, kind, SIZE, "lent")
    assert store.get("lent").borrowed


@pytest.mark.alone
@pytest.mark.req("O-5", "O-3")
def test_a_gibibyte_takes_no_memory(store_dir: str) -> None:
    with (
        fs.connect(store_dir, capacity="64MiB") as store,
        RayCluster(memory_bytes=5 * GIB // 2, other_bytes=None) as cluster,
        cluster.driver() as driver,
    ):
        for kind in ("table", "array"):
            came = driver.run("ray_borrowing.take_a_gibibyte", store.path, kind, GIB)
            assert came["borrowed"]
            assert came["nbytes"] >= GIB
            assert came["grown"] < MIB
            assert child(read_elsewhere, store.path, kind, GIB, kind)
            store.delete(kind)
            driver.run("ray_borrowing.places_held", store.path, 1)  # the small one is left
        store.destroy()


@pytest.mark.req("O-5")
@pytest.mark.parametrize(
    ("kind", "nbytes", "reason"),
    [
        ("polars", SIZE, "private memory"),
        ("object", SIZE, "private memory"),
        ("bytes", SIZE, "private memory"),
        ("table", 1000, "it is small"),
        ("table", 2 * MEMORY, "a file on disk"),
    ],
)
def test_what_does_not_is_copied_with_the_reason(
    driver: Driver, store_dir: str, kind: str, nbytes: int, reason: str
) -> None:
    with fs.connect(store_dir, capacity="256MiB") as store:
        came = driver.run("ray_borrowing.take", store.path, kind, nbytes, "copied")
        assert not came["borrowed"]
        assert not came["metadata"]["ray"]["borrowed"]
        assert reason in came["metadata"]["ray"]["reason"]
        assert came["loans"] == []
        assert same(kind, nbytes, store.get("copied").value())
        never = driver.run("ray_borrowing.take_never", store.path, kind, nbytes)
        assert (never == "borrowed") if nbytes == 1000 else (reason in never)
        driver.run("ray_borrowing.forget", "copied")
        store.destroy()


@pytest.mark.req("O-5")
def test_a_copy_is_made_where_one_is_asked_for(driver: Driver, store: fs.Store) -> None:
    came = driver.run("ray_borrowing.take", store.path, "table", SIZE, "copied", True)
    assert not came["borrowed"]
    assert came["metadata"] == {"ray": {"borrowed": False, "reason": "a copy was asked for"}}
    assert came["grown"] >= SIZE


@pytest.mark.req("O-5")
def test_the_values_stay_while_ray_spills(driver: Driver, store: fs.Store) -> None:
    driver.run("ray_borrowing.take", store.path, "array", SIZE, "lent")
    driver.run("ray_borrowing.forget", "lent")  # the keepers alone hold it now
    held = store.get("lent")
    assert driver.run("ray_borrowing.press", 30, SIZE) == sum(range(30))  # 240 MiB, in a memory of 96
    assert same("array", SIZE, held.value())
    assert same("array", SIZE, store.get("lent").value())
    driver.run("ray_borrowing.relieve")


@pytest.mark.req("O-5", "INV-9")
def test_ray_gets_its_memory_back_once_the_last_reader_is_gone(driver: Driver, store: fs.Store) -> None:
    large = MEMORY * 6 // 10
    driver.run("ray_borrowing.take", store.path, "table", large, "lent")
    driver.run("ray_borrowing.forget", "lent")
    assert not driver.run("ray_borrowing.fits", large)
    held = store.get("lent").value()
    store.delete("lent")
    assert not driver.run("ray_borrowing.fits", large)
    assert same("table", large, held)
    del held
    driver.run("ray_borrowing.places_held", store.path, 0)
    assert driver.run("ray_borrowing.fits_at_last", large)
    assert store.loans() == []


@pytest.mark.req("O-5", "FAIL-2")
def test_the_death_of_one_keeper_changes_nothing_that_of_both_is_told(
    driver: Driver, store: fs.Store
) -> None:
    driver.run("ray_borrowing.take", store.path, "table", SIZE, "lent")
    driver.run("ray_borrowing.places_held", store.path, 1)
    assert driver.run("ray_borrowing.kill_keeper", store.path) == 1
    assert same("table", SIZE, store.get("lent").value())
    store.recover()
    assert same("table", SIZE, store.get("lent").value())
    assert driver.run("ray_borrowing.kill_keeper", store.path) == 1
    with pytest.raises(fs.ObjectLost):
        store.get("lent")
    store.recover()
    with pytest.raises(fs.ObjectLost):
        store.get("lent")
    # and new ones come when they are needed
    assert driver.run("ray_borrowing.take", store.path, "table", SIZE, "again")["borrowed"]
    assert same("table", SIZE, store.get("again").value())


@pytest.mark.req("O-5", "FAIL-2")
def test_what_is_read_between_two_gets_is_right(driver: Driver, store: fs.Store, tmp_path: Path) -> None:
    """While keepers die, and Ray uses the memory anew at once: a get that works vouches for all before it."""
    read, lost = tmp_path / "read", tmp_path / "lost"
    order = ("ray_borrowing.lend_and_die", store.path, SIZE, 6, str(read), str(lost))
    lending = threading.Thread(target=driver.run, args=order)
    lending.start()
    while lending.is_alive():
        try:
            obj = store.get("lent", timeout=0.05)
            array = obj.value()
            right = array[0] < 1000 and (array == array[0]).all()
            store.get(obj.id)
        except fs.ObjectLost:
            lost.touch()
        except fs.FlightStoreError:
            continue  # put anew just now
        else:
            assert right
            read.touch()
    lending.join()
    assert read.exists()
    assert lost.exists()


@pytest.mark.req("O-5", "FAIL-2")
def test_the_driver_may_die(cluster: RayCluster, store: fs.Store) -> None:
    with cluster.driver() as driver:
        assert driver.run("ray_borrowing.take", store.path, "array", SIZE, "lent")["borrowed"]
        driver.kill()
    store.recover()
    assert same("array", SIZE, store.get("lent").value())


@pytest.mark.req("O-5")
def test_what_is_kept_is_the_stores_own(driver: Driver, store: fs.Store) -> None:
    driver.run("ray_borrowing.take", store.path, "table", SIZE, "lent")
    driver.run("ray_borrowing.forget", "lent")
    obj = store.get("lent")
    obj.persist()
    del obj
    driver.run("ray_borrowing.places_held", store.path, 0)
    assert not store.get("lent").borrowed
    assert same("table", SIZE, store.get("lent").value())


@pytest.mark.req("O-5")
def test_values_of_tasks_and_of_other_nodes(driver: Driver, store: fs.Store) -> None:
    assert driver.run("ray_borrowing.from_a_task", store.path, SIZE) == {"borrowed": True, "same": True}
    there = driver.run("ray_borrowing.on_another_node", store.path, SIZE)
    assert there["borrowed"]
    assert there["same"]
    assert there["used"] < MIB
    fetched = driver.run("ray_borrowing.from_another_node", store.path, SIZE)
    assert fetched["borrowed"]
    assert fetched["same"]
    assert fetched["rows"] == 1000
    assert "through a gateway" in fetched["reason"]


@pytest.mark.req("O-5", "BAT-1", "ISO-1")
def test_what_is_borrowed_goes_with_its_batch_and_its_session(driver: Driver, store: fs.Store) -> None:
    came = driver.run("ray_borrowing.in_scopes", store.path, SIZE)
    assert came["seen"] == [True, True, True, True, False]
    assert came["held"] in (1, 2)
    assert not came["left"]
    assert came["loans"] == []


@pytest.mark.req("O-5", "O-2")
def test_the_blocks_of_a_dataset_are_borrowed(driver: Driver, store: fs.Store) -> None:
    rows = 3 * MIB
    came = driver.run("ray_borrowing.from_dataset", store.path, rows, 3)
    assert came["borrowed"]
    assert came["metadata"] == {"ray": {"borrowed": True, "blocks": 3}}
    assert came["chunks"] == 3
    assert came["rows"] == rows
    assert came["sum"] == rows * (rows - 1) // 2
    store.recover()
    assert [info.name for info in store.list()] == ["dataset"]


@pytest.mark.req("O-5", "FAIL-2")
def test_keepers_let_go_of_what_nobody_needs(driver: Driver, store: fs.Store) -> None:
    assert "creation task" not in driver.run("ray_borrowing.idle_keeper", store.path)
    assert set(driver.run("ray_borrowing.asker_died", store.path, SIZE)["held"]) == {0}


@pytest.mark.req("O-5", "FAIL-1")
def test_a_store_that_is_destroyed_borrows_no_more(driver: Driver, store_dir: str) -> None:
    came = driver.run("ray_borrowing.destroyed", store_dir, SIZE)
    assert came == {"held": [1, 1], "borrowed": True, "same": True}


@pytest.mark.req("O-5", "FAIL-2")
def test_the_raylet_may_die(store: fs.Store) -> None:
    with RayCluster(memory_bytes=MEMORY, other_bytes=None) as cluster, cluster.driver() as driver:
        driver.run("ray_borrowing.take", store.path, "array", SIZE, "lent")
        driver.run("ray_borrowing.take", store.path, "array", SIZE, "kept")
        store.get("kept").persist()
        view = store.get("lent").value()
        keepers = [one["pid"] for one in driver.run("ray_borrowing.places_held", store.path, 1)]
        for pid in driver.run("ray_borrowing.raylets"):
            os.kill(pid, signal.SIGKILL)
        for _ in range(2):
            try:
                assert same("array", SIZE, store.get("lent").value())  # right while a keeper lives
            except fs.ObjectLost:
                break
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in keepers))
        with pytest.raises(fs.ObjectLost):
            store.get("lent")
        assert same("array", SIZE, view)  # nobody is left who could write there
        assert same("array", SIZE, store.get("kept").value())
        del view
    store.delete("lent")
