"""Directories that are no store, are damaged, or belong to others: a clear error each, never a crash.

Everything is tried in child processes: one that dies of a signal fails its test as ChildDied.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.catalog import keys
from flightstore.catalog.environment import Catalog
from flightstore.errors import (
    FlightStoreError,
    NotAStore,
    StoreAccessDenied,
    StoreClosed,
    StoreDamaged,
    StoreVersionMismatch,
    WrongPidNamespace,
)
from flightstore.memory.control import _CHECKSUM_AT
from flightstore.testing.faults import Gate, child, other_pid_namespace, start

pytestmark = pytest.mark.req("FAIL-5")

CAPACITY = 1 << 20
NOBODY = 65534


@pytest.fixture
def path(store_dir: str) -> str:
    """A store with one object, that this process has never opened."""

    def make() -> None:
        with flightstore.connect(store_dir, capacity=CAPACITY) as store:
            store.put(b"content" * 100, "kept")

    child(make)
    return store_dir


def connect_error(path: str, create: bool = True) -> type[FlightStoreError] | None:
    """What connecting and reading in another process comes to."""

    def attempt() -> type[FlightStoreError] | None:
        try:
            with flightstore.connect(path, create=create) as store:
                assert bytes(store.get("kept")) == b"content" * 100
                assert store.fsck() == []
        except FlightStoreError as error:
            assert path in str(error)  # noqa: PT017 - not raised each time
            return type(error)
        return None

    return child(attempt)


def patch(file: str, at: int, new: bytes) -> bytes:
    """Overwrite bytes of a file; returns what was there."""
    with open(file, "r+b") as opened:
        opened.seek(at)
        old = opened.read(len(new))
        opened.seek(at)
        opened.write(new)
    return old


def test_every_byte_of_the_identity_is_guarded(path: str) -> None:
    control = os.path.join(path, "control")

    def flip_each() -> dict[str, int]:
        seen: dict[str, int] = {}
        for at in range(_CHECKSUM_AT + 4):
            for mask in (0x01, 0x80, 0xFF):
                old = patch(control, at, b"\0")
                patch(control, at, bytes([old[0] ^ mask]))
                with pytest.raises((NotAStore, StoreVersionMismatch, StoreDamaged)) as caught:
                    flightstore.connect(path)
                kind = type(caught.value).__name__
                expected = "NotAStore" if at < 8 else "StoreVersionMismatch" if at < 12 else "StoreDamaged"
                assert kind == expected, at
                seen[kind] = seen.get(kind, 0) + 1
                patch(control, at, old)
        return seen

    assert set(child(flip_each)) == {"NotAStore", "StoreVersionMismatch", "StoreDamaged"}
    assert connect_error(path) is None


def test_another_version_of_the_control_file_is_named(path: str) -> None:
    patch(os.path.join(path, "control"), 8, (7).to_bytes(4, "little"))

    def attempt() -> None:
        flightstore.connect(path)

    with pytest.raises(StoreVersionMismatch, match="has format version 7, this flightstore reads version 2"):
        child(attempt)


def test_another_version_of_the_catalog_is_named(path: str) -> None:
    catalog = os.path.join(path, "catalog")

    def change() -> None:
        size = os.stat(os.path.join(catalog, "data.mdb")).st_size
        with lmdb.open(catalog, map_size=size) as env, env.begin(write=True) as txn:
            txn.put(keys.FORMAT, (9).to_bytes(4, "big"))

    child(change)
    assert connect_error(path) is StoreVersionMismatch


DAMAGES: dict[str, tuple[Callable[[Path], object], type[FlightStoreError]]] = {
    "control empty": (lambda store: os.truncate(store / "control", 0), NotAStore),
    "control short": (lambda store: os.truncate(store / "control", 4096), NotAStore),
    "control missing": (lambda store: (store / "control").unlink(), NotAStore),
    "arena missing": (lambda store: (store / "arena").unlink(), StoreDamaged),
    "arena short": (lambda store: os.truncate(store / "arena", CAPACITY), StoreDamaged),
    "arena empty": (lambda store: os.truncate(store / "arena", 0), StoreDamaged),
    "catalog missing": (lambda store: shutil.rmtree(store / "catalog"), StoreDamaged),
    "data missing": (lambda store: (store / "catalog/data.mdb").unlink(), StoreDamaged),
    "data short": (lambda store: os.truncate(store / "catalog/data.mdb", 8192), StoreDamaged),
    "data empty": (lambda store: os.truncate(store / "catalog/data.mdb", 0), StoreDamaged),
    "data overwritten": (
        lambda store: patch(str(store / "catalog/data.mdb"), 0, b"\xff" * 8192),
        StoreDamaged,
    ),
    "lock missing": (lambda store: (store / "catalog/lock.mdb").unlink(), StoreDamaged),
    "lock short": (lambda store: os.truncate(store / "catalog/lock.mdb", 4096), StoreDamaged),
    "clients missing": (lambda store: shutil.rmtree(store / "clients"), StoreDamaged),
    "new missing": (lambda store: shutil.rmtree(store / "new"), StoreDamaged),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files(path: str, name: str) -> None:
    damage, expected = DAMAGES[name]
    damage(Path(path))
    before = sorted(entry.relative_to(path) for entry in Path(path).rglob("*"))
    assert connect_error(path) is expected
    after = sorted(entry.relative_to(path) for entry in Path(path).rglob("*"))
    assert after == before  # nothing was "repaired" on the way


def test_places_that_are_no_store(tmp_path: Path) -> None:
    absent, empty, file, full = (tmp_path / name for name in ("absent", "empty", "file", "full"))
    empty.mkdir()
    full.mkdir()
    file.write_text("a file")
    (full / "catalog").mkdir()  # named like ours, and not ours
    (full / "catalog" / "precious").write_text("theirs")
    for create, place in ((False, absent), (False, empty), (False, full), (True, full), (True, file)):
        assert connect_error(str(place), create) is NotAStore
    assert connect_error(str(file / "below")) is NotAStore
    assert (full / "catalog" / "precious").read_text() == "theirs"
    assert file.read_text() == "a file"
    assert not absent.exists()

    def make() -> None:
        with flightstore.connect(empty, capacity=CAPACITY) as store:
            store.put(b"x")
            store.destroy()

    child(make)


def as_nobody(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        work()

    return run


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_without_permission(path: str, mode: int) -> None:
    os.chmod(os.path.dirname(path), 0o755)
    os.chmod(path, mode)

    def attempt() -> None:
        for create in (True, False):
            with pytest.raises(StoreAccessDenied, match="permission"):
                flightstore.connect(path, create=create)
        with pytest.raises(StoreAccessDenied, match="no permission to make a store"):
            flightstore.connect(os.path.dirname(path) + "/another", capacity=CAPACITY)

    child(as_nobody(attempt))
    assert connect_error(path) is None


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    "name", ["arena", "catalog", "catalog/data.mdb", "catalog/lock.mdb", "clients", "new"]
)
def test_without_permission_on_one_part(path: str, name: str) -> None:
    os.chmod(os.path.dirname(path), 0o755)
    for directory, directories, files in os.walk(path):
        os.chmod(directory, 0o777)
        for entry in directories + files:
            os.chmod(os.path.join(directory, entry), 0o777)

    def attempt() -> None:
        flightstore.connect(path).close()

    child(as_nobody(attempt))
    os.chmod(os.path.join(path, name), 0o700)
    with pytest.raises(StoreAccessDenied, match="permission"):
        child(as_nobody(attempt))


@pytest.mark.needs("mount", "unshare")
def test_a_read_only_mount(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    read_only, remount, bind, private, recursive = 1, 32, 4096, 1 << 18, 1 << 14

    def attempt() -> None:
        os_unshare_mounts = libc.unshare(0x20000)
        assert os_unshare_mounts == 0
        assert libc.mount(b"none", b"/", None, private | recursive, None) == 0
        target = os.fsencode(os.path.dirname(path))
        assert libc.mount(target, target, None, bind, None) == 0
        assert libc.mount(None, target, None, remount | bind | read_only, None) == 0
        with pytest.raises(StoreAccessDenied, match="Read-only file system"):
            flightstore.connect(path)
        with pytest.raises(StoreAccessDenied, match="Read-only file system"):
            flightstore.connect(os.path.dirname(path) + "/another", capacity=CAPACITY)

    child(attempt)
    assert connect_error(path) is None


@pytest.mark.needs("unshare")
def test_another_pid_namespace(path: str) -> None:
    program = f"""
import flightstore
try:
    flightstore.connect({path!r})
except flightstore.errors.WrongPidNamespace as error:
    print("refused:", error)
"""
    root = str(Path(flightstore.__file__).parents[1])
    done = other_pid_namespace([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": root})
    assert done.stdout.startswith("refused: "), done.stderr
    assert "another pid namespace" in done.stdout
    assert issubclass(WrongPidNamespace, PermissionError)
    assert connect_error(path) is None


def test_a_store_destroyed_by_another_process(path: str) -> None:
    with Gate("connected") as connected, Gate("destroyed") as destroyed:

        def use() -> None:
            with flightstore.connect(path) as store:
                held = store.get("kept")
                connected.open()
                destroyed.wait()
                for work in (lambda: store.put(b"x"), lambda: store.get("kept"), store.stats, store.recover):
                    with pytest.raises(StoreClosed, match="was destroyed"):
                        work()
                assert bytes(held) == b"content" * 100

        with start(use) as process:
            connected.wait()
            child(lambda: flightstore.connect(path).destroy())
            destroyed.open()
            process.result()
    assert not os.path.exists(path)


@pytest.mark.parametrize("how", ["destroyed", "removed by hand"])
def test_another_store_in_the_place_of_ours(path: str, how: str) -> None:
    """Neither its catalog is touched (opened with our map size it would be cut), nor is it destroyed."""
    with Gate("connected") as connected, Gate("replaced") as replaced:

        def use() -> None:
            store = flightstore.connect(path)
            held = store.get("kept")
            connected.open()
            replaced.wait()
            store._connection.catalog.close()  # as a fork does: it is opened again when next used
            for work in (lambda: store.put(b"x"), lambda: store.get("kept"), store.fsck):
                with pytest.raises(StoreClosed, match=r"was (destroyed|removed)"):
                    work()
            with contextlib.suppress(StoreClosed):
                store.destroy()
            assert bytes(held) == b"content" * 100
            with flightstore.connect(path) as new:
                assert bytes(new.get("new")) == b"other"

        def replace() -> None:
            if how == "destroyed":
                flightstore.connect(path).destroy()
            else:
                shutil.rmtree(path)
            with flightstore.connect(path, capacity=512 << 20) as new:
                new.put(b"other", "new")

        with start(use) as process:
            connected.wait()
            child(replace)
            size = os.stat(os.path.join(path, "catalog/data.mdb")).st_size
            replaced.open()
            process.result()
    assert os.stat(os.path.join(path, "catalog/data.mdb")).st_size == size

    def check() -> None:
        with flightstore.connect(path) as new:
            assert bytes(new.get("new")) == b"other"
            new.recover()
            assert new.fsck() == []

    child(check)


@pytest.mark.req("API-14")
def test_a_store_removed_while_its_catalog_is_opened_is_closed_not_of_another_version(path: str) -> None:
    """LMDB makes the files that it does not find, so between two looks at the store its catalog may go."""
    looks = []

    def guard() -> None:
        looks.append(None)
        if len(looks) > 1:
            raise StoreClosed("destroyed")
        for name in ("data.mdb", "lock.mdb"):
            os.unlink(os.path.join(path, "catalog", name))

    catalog = Catalog(os.path.join(path, "catalog"), 1 << 20, 0o600, guard)
    with pytest.raises(StoreClosed, match="destroyed"), catalog.gate:
        catalog.begin()
    shutil.rmtree(path)
