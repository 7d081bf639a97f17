"""Spilling to what other libraries reach: the suite of storages through fsspec and through Arrow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.registry import known_implementations

import flightstore as fs
from flightstore.adapters.spill import ArrowStorage, FsspecStorage
from flightstore.adapters.spill.common import PART_BYTES, WrongLength, fill, os_errors
from flightstore.lifecycle.storages import storage_for
from flightstore.testing.storages import StorageSuite, read

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("PLG-6")


class TestFileOfFsspec(StorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"fsspec+file://{tmp_path}/not/there"


class TestFileOfArrow(StorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"arrow+file://{tmp_path}/not/there/"


class TestFolderOfFsspec(StorageSuite):
    """A chain."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"dir::file://{tmp_path}"


class TestMemoryOfFsspec(StorageSuite):
    shared = False
    secret = "pass/word"

    @pytest.fixture
    def url(self, request: pytest.FixtureRequest) -> str:
        name = f"{request.node.name}-{id(request)}"
        return "memory:///" + "".join(c if c.isalnum() else "_" for c in name) + "?token=pass%2Fword"


def test_whose_storage_it_is() -> None:
    assert type(storage_for("memory://x")) is FsspecStorage
    assert type(storage_for("fsspec+file:///x")) is FsspecStorage
    assert type(storage_for("arrow+file:///x")) is ArrowStorage
    assert storage_for("memory://x/") is storage_for("memory://x")


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(fs.InvalidArgument, match=r"nonesuch://x.*register_spill_storage"):
        storage_for("nonesuch://x")


def test_a_scheme_for_which_a_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"class": "no_such_module.FileSystem", "err": "Install absent-fs"}
    monkeypatch.setitem(known_implementations, "absent", missing)
    with pytest.raises(fs.MissingExtra, match=r"Install absent-fs") as failure:
        storage_for("absent://user:password@host/x")
    assert "password" not in str(failure.value)


def without_fsspec(code: str) -> None:
    """Run code where fsspec is not installed."""
    start = "import sys; sys.modules['fsspec'] = None\nimport flightstore as fs\n"
    start += "from flightstore.lifecycle.storages import storage_for\n"
    subprocess.run([sys.executable, "-c", start + code], check=True, cwd=ROOT)


def test_without_fsspec_arrow_does_what_it_can() -> None:
    without_fsspec(
        "storage = storage_for('s3://key:secret@bucket/x?endpoint_override=127.0.0.1:9&scheme=http')\n"
        "assert type(storage).__name__ == 'ArrowStorage', storage\n"
        "assert 'secret' not in repr(storage)\n"
    )


def test_without_fsspec_the_remedy_is_named() -> None:
    without_fsspec(
        "try: storage_for('sftp://user:password@host/x')\n"
        "except fs.MissingExtra as error: assert 'flightstore[fsspec]' in error.hint\n"
        "else: raise SystemExit('it was taken')\n"
    )


SECRETS = ["user:pass/word@host", "pass/word", "user", "s3cr3t"]


@pytest.mark.parametrize("raised", [ValueError, PermissionError, FileNotFoundError, TimeoutError, OSError])
def test_messages_of_libraries_lose_what_is_secret(raised: type[Exception]) -> None:
    url = "sftp://user:pass/word@host/x?token=s3cr3t&anon=true"
    with pytest.raises(OSError, match=r"writing 7 in sftp://\*\*\*@host/x") as failure:
        with os_errors(url, "writing 7"):
            raise raised(f"cannot open {url}: true")
    assert not [secret for secret in SECRETS if secret in str(failure.value)]
    assert "true" in str(failure.value)
    assert failure.value.__cause__ is None
    assert type(failure.value) is (raised if issubclass(raised, OSError) else OSError)


def test_errors_that_are_ours_and_codes_are_kept() -> None:
    with pytest.raises(fs.SpillDamaged), os_errors("memory://x", "reading"):
        raise fs.SpillDamaged("it was cut")
    with pytest.raises(OSError, match="reading") as failure, os_errors("memory://x", "reading"):
        raise OSError(28, "full")
    assert failure.value.errno == 28
    assert isinstance(failure.value.__cause__, OSError)


def test_a_large_file_is_fetched_in_parts() -> None:
    asked: list[tuple[int, int]] = []
    source = bytes(range(256)) * (PART_BYTES // 64)

    def fetch(start: int, end: int) -> bytes:
        asked.append((start, end))
        return source[start:end]

    target = bytearray(len(source))
    fill(memoryview(target), fetch, 3)
    assert target == source
    assert sorted(asked) == [(start, start + PART_BYTES) for start in range(0, len(source), PART_BYTES)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("fetch", "raised"),
    [
        (lambda start, end: b"short", WrongLength),
        (lambda start, end: bytes(end - start + 1), WrongLength),
        (lambda start, end: 1 // 0, ZeroDivisionError),
    ],
)
def test_a_part_that_cannot_be_had(
    fetch: Callable[[int, int], bytes], raised: type[Exception], threads: int
) -> None:
    with pytest.raises(raised):
        fill(memoryview(bytearray(4 * PART_BYTES)), fetch, threads)


def test_names_that_look_compressed_are_not(tmp_path: Path) -> None:
    """Arrow would compress what is written to such a name."""
    storage = storage_for(f"arrow+file://{tmp_path}")
    storage.write("x.gz", [memoryview(b"plain")])
    assert (tmp_path / "x.gz").read_bytes() == b"plain"
    assert read(storage, "x.gz", 5) == b"plain"
