"""The tests that every spill storage must pass: derive from `StorageSuite` and say which URL is meant.

    class TestMyStorage(StorageSuite):
        @pytest.fixture
        def url(self, tmp_path):
            return f"mine://{tmp_path}"

The storage is taken from `storage_for(url)`, so its scheme must be known by then (register it in the fixture,
or announce it as an entry point, which other processes need). May call children and events. Needs pytest.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, overload

from flightstore.abc.storage import SpillStorage, check_spill_name
from flightstore.errors import InvalidArgument, MissingExtra, SpillDamaged
from flightstore.lifecycle.storages import location_of, split_location, storage_for
from flightstore.testing.children import ChildDied, child

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the suite of spill storages needs pytest", hint="pip install pytest") from error

__all__ = ["StorageSuite"]

LARGE_BYTES = 20 << 20
"""More than what storages read or write by one call, and by one thread."""
NAMES = ["a", "A0_-.", "0", "x" * 200, "a.b", "a-"]
NO_NAMES = ["", ".", "..", "a/b", "/a", "-a", ".a", "a b", "ä", "a\n", "a#b", "x" * 201, "a.part", "a\0"]


class StorageSuite:
    """One spill storage, tested."""

    shared: ClassVar[bool] = True
    """Whether other processes find the same files; True for whatever is to be used in earnest."""
    secret: ClassVar[str] = ""
    """Text in the URL that no message may show."""
    large_bytes: ClassVar[int] = LARGE_BYTES
    """Size of the largest file that is tried."""

    @pytest.fixture
    def url(self) -> str:
        """The URL of a place with nothing in it."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, url: str) -> SpillStorage:
        """The storage."""
        return storage_for(url)

    @pytest.mark.parametrize("nbytes", [0, 1, 4096, 1_000_003])
    def test_what_is_written_is_read(self, storage: SpillStorage, nbytes: int) -> None:
        """One piece."""
        data = os.urandom(nbytes)
        storage.write("file", [memoryview(data)])
        assert read(storage, "file", nbytes) == data

    def test_a_large_file(self, storage: SpillStorage) -> None:
        """More than one call, or one thread, would read or write."""
        data = os.urandom(self.large_bytes)
        storage.write("file", [memoryview(data)])
        assert read(storage, "file", len(data)) == data

    @pytest.mark.parametrize("count", [0, 1, 3, 5000])
    def test_pieces_are_joined(self, storage: SpillStorage, count: int) -> None:
        """Any number of pieces, empty ones among them, of any format."""
        pieces = [memoryview(bytes([i % 251]) * (i % 7)) for i in range(count)]
        storage.write("file", pieces)
        expected = b"".join(pieces)
        assert read(storage, "file", len(expected)) == expected
        doubles: Any = memoryview(bytes(range(64))).cast("d", (2, 4))
        storage.write("doubles", [doubles, memoryview(bytearray(b"x"))[1:], doubles])
        assert read(storage, "doubles", 128) == bytes(range(64)) * 2

    def test_reading_writes_the_target_and_nothing_else(self, storage: SpillStorage) -> None:
        """The target may be a part of something larger."""
        storage.write("file", [memoryview(b"x" * 1000)])
        memory = bytearray(b"." * 3000)
        storage.read_into("file", memoryview(memory)[1000:2000])
        assert memory == b"." * 1000 + b"x" * 1000 + b"." * 1000

    def test_writing_again_replaces(self, storage: SpillStorage) -> None:
        """Shorter and longer."""
        for data in (b"first", b"2nd", b"the third"):
            storage.write("file", [memoryview(data)])
            assert read(storage, "file", len(data)) == data

    @pytest.mark.parametrize("name", NAMES)
    def test_names(self, storage: SpillStorage, name: str) -> None:
        """What may be a name is one."""
        assert check_spill_name(name) == name
        storage.write(name, [memoryview(name.encode())])
        assert storage.names() == storage.names(name[:3]) == [name]
        assert read(storage, name, len(name)) == name.encode()
        assert split_location(location_of(storage, name)) == (storage, name)
        storage.remove(name)
        assert storage.names() == []

    @pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
    def test_what_cannot_be_a_name_is_refused(self, storage: SpillStorage, name: str) -> None:
        """Above all what would lead out of the storage."""
        with pytest.raises(InvalidArgument):
            storage.write(name, [memoryview(b"")])
        calls: list[Callable[[str], object]] = [storage.remove, storage.remove_unfinished]
        if storage.local_path("plain") is not None:
            calls.append(storage.local_path)
        for call in calls:
            with pytest.raises(InvalidArgument):
                call(name)
        with pytest.raises(InvalidArgument):
            storage.read_into(name, memoryview(bytearray()))

    def test_listing(self, storage: SpillStorage) -> None:
        """By prefix, in order; an unused storage is empty."""
        assert storage.names() == storage.names("x") == []
        for name in ("b-2", "a-1", "a-10", "a"):
            storage.write(name, [memoryview(b"x")])
        assert storage.names() == ["a", "a-1", "a-10", "b-2"]
        assert storage.names("a-") == ["a-1", "a-10"]
        assert storage.names("c") == []

    def test_removing(self, storage: SpillStorage) -> None:
        """Once, twice, and what never was."""
        storage.remove("never")
        storage.remove_unfinished("never")
        storage.write("file", [memoryview(b"x")])
        storage.write("file2", [memoryview(b"y")])
        storage.remove_unfinished("file")
        assert read(storage, "file", 1) == b"x"
        for _ in range(2):
            storage.remove("file")
            assert storage.names() == ["file2"]
        with pytest.raises(FileNotFoundError):
            read(storage, "file", 1)

    def test_a_missing_file(self, storage: SpillStorage) -> None:
        """Is FileNotFoundError, before the storage was ever used and after; the message names it."""
        for size in (0, 1, self.large_bytes):
            with pytest.raises(FileNotFoundError, match="nothing"):
                read(storage, "nothing", size)
        storage.write("file", [memoryview(b"x")])
        with pytest.raises(FileNotFoundError):
            read(storage, "fil", 1)

    @pytest.mark.parametrize("size", [0, 999, 1001, 10_000_000])
    def test_another_length_is_damage(self, storage: SpillStorage, size: int) -> None:
        """Whatever is asked for is all of the file, or an error that names it."""
        storage.write("file", [memoryview(b"x" * 1000)])
        with pytest.raises(SpillDamaged, match="file") as failure:
            read(storage, "file", size)
        assert failure.value.name == "file"
        self._check_secret(str(failure.value) + failure.value.url)

    def test_a_write_that_fails_leaves_what_was_there(self, storage: SpillStorage) -> None:
        """Whole or not at all."""
        storage.write("old", [memoryview(b"old")])
        for name in ("old", "new"):
            with pytest.raises(ZeroDivisionError):
                storage.write(name, Breaking(self.large_bytes))
        assert storage.names() == ["old"]
        assert read(storage, "old", 3) == b"old"

    def test_a_writer_that_is_killed_leaves_nothing_finished(self, storage: SpillStorage, url: str) -> None:
        """And what it leaves can be removed."""
        if not self.shared:
            return
        storage.write("old", [memoryview(b"old")])
        for name in ("old", "new"):
            with pytest.raises(ChildDied):
                child(write_and_die, url, name, self.large_bytes)
        assert read(storage, "old", 3) == b"old"
        with pytest.raises(FileNotFoundError):
            read(storage, "new", self.large_bytes)
        for name in storage.names():
            storage.remove_unfinished(name)
        assert storage.names() == ["old"]
        storage.write("new", [memoryview(b"new")])
        assert read(storage, "new", 3) == b"new"
        with pytest.raises(ChildDied):
            child(write_and_die, url, "new", self.large_bytes)
        storage.remove("new")
        assert storage.names() == ["old"]

    def test_other_processes_find_the_same_files(self, storage: SpillStorage, url: str) -> None:
        """Forked while the storage was in use, they make their own from its URL."""
        if not self.shared:
            return
        storage.write("mine", [memoryview(b"mine")])

        def meet(where: str) -> bytes:
            theirs = storage_for(where)
            theirs.write("theirs", [memoryview(b"theirs")])
            return read(theirs, "mine", 4)

        for where in (url, storage.url):
            assert child(meet, where) == b"mine"
            assert read(storage, "theirs", 6) == b"theirs"
            storage.remove("theirs")

    def test_several_threads_at_once(self, storage: SpillStorage) -> None:
        """Each with a file of its own."""
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for size in range(number, 40, 4):
                    data = bytes([number]) * (size * 1000)
                    storage.write(f"t{number}", [memoryview(data)])
                    assert read(storage, f"t{number}", len(data)) == data
                    storage.remove(f"t{number}")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert storage.names() == []

    def test_what_it_says_of_itself(self, storage: SpillStorage, url: str) -> None:
        """Room, path, URL."""
        free = storage.free_bytes()
        assert free is None or free >= 0
        storage.write("file", [memoryview(b"content")])
        path = storage.local_path("file")
        if path is not None:
            with open(path, "rb") as file:
                assert file.read() == b"content"
        assert storage_for(url) is storage_for(storage.url) is storage
        assert storage.same_file_system("/proc") is False
        self._check_secret(repr(storage))

    def _check_secret(self, message: str) -> None:
        if self.secret:
            assert self.secret not in message


class Breaking(Sequence[memoryview]):
    """Pieces of which the second cannot be had."""

    def __init__(self, nbytes: int) -> None:
        self._first = memoryview(bytes(nbytes))

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | Sequence[memoryview]:
        if index == 0:
            return self._first
        return self.fail()

    def __iter__(self) -> Iterator[memoryview]:
        yield self._first
        yield self.fail()

    def fail(self) -> memoryview:
        raise ZeroDivisionError


class Killing(Breaking):
    """Pieces of which the second kills the process."""

    def fail(self) -> memoryview:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def write_and_die(url: str, name: str, nbytes: int) -> None:
    """Be killed when part of a file is written."""
    storage_for(url).write(name, Killing(nbytes))


def read(storage: SpillStorage, name: str, nbytes: int) -> bytes:
    """A whole file of that many bytes."""
    target = bytearray(b"?" * nbytes)
    storage.read_into(name, memoryview(target))
    return bytes(target)
