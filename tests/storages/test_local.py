"""Spilling to a directory: the suite of storages, and what is special about directories."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.abc.storage import SpillStorage
from flightstore.lifecycle import storage_local
from flightstore.lifecycle.storages import storage_for
from flightstore.testing.faults import small_tmpfs
from flightstore.testing.storages import StorageSuite, read

pytestmark = pytest.mark.req("PLG-6")


class TestPath(StorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "not there" / "yet")


class TestUrl(StorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"file://localhost{tmp_path}/with%20blank%23and%3Fmore/"


@pytest.fixture
def storage(tmp_path: Path) -> SpillStorage:
    return storage_for(tmp_path / "spill")


def test_paths_and_urls_mean_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = storage_for(f"{tmp_path}/a b")
    assert storage.url == f"file://{tmp_path}/a%20b"
    assert storage is storage_for(storage.url) is storage_for(tmp_path / "x" / ".." / "a b")
    monkeypatch.chdir(tmp_path)
    assert storage_for("a b") is storage
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert storage_for("a b").url == f"file://{tmp_path}/below/a%20b"


@pytest.mark.parametrize("url", ["file://host/x", "file:///x?a=b", "file://", ""])
def test_urls_that_mean_no_directory(url: str) -> None:
    with pytest.raises(fs.InvalidArgument, match=r"file://|not the URL"):
        storage_for(url)


def test_permissions(storage: SpillStorage, tmp_path: Path) -> None:
    assert not (tmp_path / "spill").exists(), "made with the first write"
    assert storage.names() == []
    storage.write("private", [memoryview(b"x")])
    assert stat.S_IMODE((tmp_path / "spill").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "spill" / "private").stat().st_mode) == 0o600
    (tmp_path / "spill").chmod(0o770)
    storage.write("shared", [memoryview(b"x")])
    assert stat.S_IMODE((tmp_path / "spill" / "shared").stat().st_mode) == 0o660


def test_other_peoples_files_are_left_alone(storage: SpillStorage, tmp_path: Path) -> None:
    storage.write("ours", [memoryview(b"x")])
    for name in (".hidden", "with blank", "ümlaut", "x.part.part"):
        (tmp_path / "spill" / name).write_text("")
    assert storage.names() == ["ours"]
    target = tmp_path / "elsewhere"
    target.write_text("untouched")
    (tmp_path / "spill" / "new.part").symlink_to(target)
    storage.write("new", [memoryview(b"new")])
    assert target.read_text() == "untouched"


@pytest.mark.req("FAIL-5")
@pytest.mark.needs("mount", "root")
def test_a_full_file_system(tmp_path: Path) -> None:
    with small_tmpfs(2 << 20) as place:
        storage = storage_for(place / "spill")
        storage.write("kept", [memoryview(b"k" * (1 << 20))])
        free = storage.free_bytes()
        assert free is not None
        assert 0 < free <= 1 << 20
        with pytest.raises(OSError, match="No space left"):
            storage.write("large", [memoryview(bytes(free // 2)), memoryview(bytes(free))])
        assert storage.names() == ["kept"]
        assert storage.free_bytes() == free
        assert read(storage, "kept", 1 << 20) == b"k" * (1 << 20)
        storage.write("small", [memoryview(bytes(free // 2))])
        assert storage.same_file_system(str(place))
        assert not storage.same_file_system(str(tmp_path))


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = storage_for(tmp_path / "file" / "spill")
    with pytest.raises(NotADirectoryError):
        storage.write("x", [memoryview(b"x")])


@pytest.mark.req("FAIL-2")
def test_ctrl_c_leaves_nobody_reading(storage: SpillStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an interrupted read comes back, no thread writes to the target any more."""
    size = 64 << 20
    storage.write("file", [memoryview(b"x" * size)])
    target = bytearray(size)
    steps = 0
    preadv = os.preadv

    def interrupted(*args: object) -> int:
        nonlocal steps
        steps += 1
        if steps == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
        return preadv(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(storage_local, "_STEP_BYTES", 1 << 20)
    monkeypatch.setattr(os, "preadv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.read_into("file", memoryview(target))
    target[:] = bytes(size)
    for thread in threading.enumerate():
        if thread.name == "flightstore-copy":
            thread.join()
    assert not any(target)
