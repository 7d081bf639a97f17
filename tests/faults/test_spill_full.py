"""FAIL-5: the spill disk, the memory file system or the catalog is full while objects are spilled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.catalog.environment import FULL_SHARE
from flightstore.errors import CatalogFull, SpillFailed, StoreFull
from flightstore.testing.faults import child, fill_file_system, small_tmpfs

from .spilltools import MIB, check_all, delete_all, files, refused, set_of, value

pytestmark = pytest.mark.req("FAIL-5")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small file system to spill to."""
    with small_tmpfs(4 * MIB) as path:
        yield path


@pytest.mark.needs("mount")
@pytest.mark.parametrize("timeout", [0, 0.2])
def test_a_full_spill_disk(store: fs.Store, disk: Path, timeout: float) -> None:
    store.set_spill(str(disk / "spilled"))
    contents = set_of(store, 19, timeout=0)  # three objects are on the disk, and not all of a fourth fits
    spilled = files(disk / "spilled")
    error = refused(store, 2 * MIB, timeout)
    assert isinstance(error, SpillFailed)
    assert (error.asked_bytes, error.capacity_bytes) == (2 * MIB, 16 * MIB)
    assert error.free_bytes < MIB
    assert f"{error.free_bytes:,} bytes are free there" in str(error)
    assert error.url == f"file://{disk / 'spilled'}"
    with pytest.raises(SpillFailed):
        store.spill()
    store.recover()
    assert set(files(disk / "spilled")) >= set(spilled)
    assert not any(name.endswith(".part") for name in files(disk / "spilled"))
    check_all(store, contents)
    store.delete(["n000", "n001"])  # those are there: their files go
    store.put(value(98), "new")
    check_all(store, {name: contents[name] for name in contents if name not in ("n000", "n001")})
    delete_all(store)
    assert files(disk / "spilled") == []


@pytest.mark.needs("mount")
def test_what_is_smaller_fits_on_an_almost_full_disk(store: fs.Store, disk: Path) -> None:
    """The object whose turn it is does not fit, others do."""
    store.set_spill(str(disk / "spilled"))
    store.put(value(1, 8 * MIB), "large")
    contents = {f"s{number}": value(number, MIB // 2) for number in range(16)}
    for name, content in contents.items():
        store.put(content, name)
    store.put(value(99, MIB), "new")
    assert len(files(disk / "spilled")) == 2
    assert store.stat("large").state == "sealed"
    check_all(store, contents | {"large": value(1, 8 * MIB), "new": value(99, MIB)})


@pytest.mark.needs("mount")
def test_what_has_its_file_is_spilled_again_on_a_full_disk(store: fs.Store, disk: Path) -> None:
    store.set_spill(str(disk / "spilled"))
    contents = set_of(store, 16)
    assert store.spill("n015") == MIB
    store.get("n015").release()  # back in memory; its file stays
    with fill_file_system(disk):
        store.put(value(99), "new")
        assert store.stat("n015").state == "spilled"
        assert isinstance(refused(store, MIB), SpillFailed)
        check_all(store, contents)


@pytest.mark.needs("mount")
def test_a_full_memory_file_system(tmp_path: Path) -> None:
    """Restoring needs memory; without any, the files are mapped. Spilling gives some, whoever fills it."""
    with small_tmpfs(40 * MIB) as memory:
        path = str(memory / "store")

        def work() -> None:
            with fs.connect(path, capacity=16 * MIB) as store:
                store.set_spill(str(tmp_path / "spilled"))
                contents = set_of(store, 8)
                with fill_file_system(memory):
                    assert store.spill(["n000", "n001"]) == 2 * MIB
                    store.put(value(50), "b0")  # into the memory that these gave
                    contents["b0"] = value(50)
                    for number in range(51, 60):
                        store.put(value(number), f"b{number}")
                        contents[f"b{number}"] = value(number)
                    check_all(store, contents)
                    error = refused(store, 12 * MIB)
                    assert error.asked_bytes == 12 * MIB
                check_all(store, contents)
                store.put(value(98, 12 * MIB), "large")
                check_all(store, contents | {"large": value(98, 12 * MIB)})
                delete_all(store)

        child(work)
        assert files(tmp_path / "spilled") == []


@pytest.mark.slow
def test_a_full_catalog(store: fs.Store, tmp_path: Path) -> None:
    """Spilling adds records: it is refused like a create, so that deletes fit; reading goes on."""
    store.set_spill(str(tmp_path / "spilled"))
    contents = set_of(store, 12)
    assert store.spill("n000") == MIB
    tiny: list[fs.ObjectID] = []
    for step in (200, 1):
        with pytest.raises(CatalogFull):  # noqa: PT012
            while True:
                tiny += store.put_many([b""] * step)
    while store.stats().catalog_used_bytes <= FULL_SHARE * store.stats().catalog_bytes:
        with contextlib.suppress(CatalogFull):  # telling of a refusal ends older events: their room is free
            tiny += store.put_many([b""])
    with pytest.raises(CatalogFull) as caught:
        store.spill()
    assert caught.value.catalog_bytes == 8 * MIB > caught.value.catalog_used_bytes > 7 * MIB
    with pytest.raises((CatalogFull, StoreFull)):
        store.put(value(99, 8 * MIB), timeout=0.2)
    check_all(store, contents)  # what was spilled too
    assert store.delete(tiny[: len(tiny) // 2]) == len(tiny) // 2
    assert store.spill() == 12 * MIB
    check_all(store, contents)
    assert store.delete(tiny[len(tiny) // 2 :]) == len(tiny) - len(tiny) // 2
    delete_all(store)
    assert files(tmp_path / "spilled") == []
