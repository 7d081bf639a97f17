"""The storage that fails on purpose does what its URL says, and else what storages do."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.lifecycle.storages import storage_for
from flightstore.testing.children import child
from flightstore.testing.faultystorage import FaultyStorage, cut, faulty_url, flip, lose
from flightstore.testing.storages import StorageSuite, read


class TestFaultless(StorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return faulty_url(tmp_path, slow_s=0.0001, full_bytes=1 << 30)


class TestAroundOthers(StorageSuite):
    shared = False

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"faulty+memory://{tmp_path}?fail=0&token=abc"


def outcomes(url: str, count: int = 40) -> list[bool]:
    """Which of some writes succeed."""
    storage = storage_for(url)
    found = []
    for number in range(count):
        with contextlib.suppress(OSError):
            storage.write(f"{number}", [memoryview(b"x")])
        found.append(f"{number}" in storage.names())
    return found


@pytest.mark.req("FAIL-5")
def test_some_writes_fail_the_same_ones_in_every_process(tmp_path: Path) -> None:
    url = faulty_url(tmp_path, fail=0.5, seed=3)
    found = child(outcomes, url)
    assert set(found) == {True, False}
    assert len(storage_for(url).names()) == sum(found)
    assert child(outcomes, faulty_url(tmp_path / "b", fail=0.5, seed=3)) == found
    assert child(outcomes, faulty_url(tmp_path / "c", fail=0.5, seed=4)) != found


def test_reads_and_removals_fail(tmp_path: Path) -> None:
    storage = storage_for(faulty_url(tmp_path, fail_reads=1, fail_removes=1))
    storage.write("a", [memoryview(b"x")])
    with pytest.raises(OSError, match="Input/output"):
        read(storage, "a", 1)
    for remove in (storage.remove, storage.remove_unfinished):
        with pytest.raises(OSError, match="Input/output"):
            remove("a")
    assert isinstance(storage, FaultyStorage)
    assert read(storage.inner, "a", 1) == b"x"


@pytest.mark.req("FAIL-5")
def test_it_is_full_at_a_size(tmp_path: Path) -> None:
    storage = storage_for(faulty_url(tmp_path, full_bytes=1000))
    storage.write("a", [memoryview(bytes(600))])
    assert storage.free_bytes() == 400
    with pytest.raises(OSError, match="No space") as failure:
        storage.write("b", [memoryview(bytes(400)), memoryview(b"x")])
    assert failure.value.errno == errno.ENOSPC
    assert child(lambda: storage_for(storage.url).free_bytes()) == 400
    storage.write("b", [memoryview(bytes(400))])
    storage.remove("a")
    assert storage.free_bytes() == 600


def test_damage(tmp_path: Path) -> None:
    storage = storage_for(tmp_path)
    for name in "abc":
        storage.write(name, [memoryview(b"0123456789")])
    flip(storage, "a", 3)
    flip(storage, "a", -1)
    assert read(storage, "a", 10) == b"012\xcc45678\xc6"
    cut(storage, "b", 9)
    with pytest.raises(fs.SpillDamaged):
        read(storage, "b", 10)
    cut(storage, "b", 11)
    with pytest.raises(fs.SpillDamaged):
        read(storage, "b", 10)
    lose(storage, "c")
    with pytest.raises(FileNotFoundError):
        lose(storage, "c")


def test_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(fs.InvalidArgument, match="number"):
        storage_for(f"faulty+file://{tmp_path}?fail=often")
    with pytest.raises(fs.InvalidArgument, match="local"):
        storage_for("faulty+memory://x?full_bytes=1")
    with pytest.raises(fs.InvalidArgument, match="not on this machine"):
        flip(storage_for("memory://x"), "a")
    with pytest.raises(fs.InvalidArgument):
        storage_for(f"faulty+file://{tmp_path}?unknown=1")
