"""A spill storage that fails on purpose, and tools that spoil what was spilled.

    storage_for("faulty+file:///tmp/spill?slow_s=0.01&fail=0.1&seed=7")

wraps any other storage. What goes wrong is in the URL, so it goes wrong in every process that uses it:

- ``slow_s``: seconds that each call takes longer
- ``fail``, ``fail_reads``, ``fail_removes``: the share of writes, reads and removals that end in an OSError
  (EIO), before anything has happened; 1 for all
- ``full_bytes``: a write that would bring all files beyond this is an OSError (ENOSPC); for local storages
- ``seed``: of the chances; each process draws the same ones, for each storage that it makes

Other fields of the query belong to the storage that is wrapped. May call the registry of storages.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlencode

from flightstore.abc.storage import SpillStorage
from flightstore.errors import InvalidArgument
from flightstore.lifecycle.storages import storage_for

__all__ = ["FaultyStorage", "cut", "faulty_url", "flip", "lose"]

_FAULTS = ("slow_s", "fail", "fail_reads", "fail_removes", "full_bytes", "seed")


def faulty_url(url: str | os.PathLike[str], **faults: float) -> str:
    """The URL of a storage that wraps another one; `faults` as above."""
    inner = storage_for(url).url
    return f"faulty+{inner}{'&' if '?' in inner else '?'}{urlencode(faults)}"


class FaultyStorage(SpillStorage):
    """A storage that wraps another one, and fails as its URL says."""

    def __init__(self, url: str) -> None:
        place, _, query = url.partition("?")
        fields = [field.partition("=") for field in query.split("&") if field]
        own = {key: value for key, _, value in fields if key in _FAULTS}
        rest = "&".join("".join(field) for field in fields if field[0] not in _FAULTS)
        try:
            self._faults = {key: float(value) for key, value in own.items()}
        except ValueError as error:
            raise InvalidArgument(f"a fault is a number: {query}") from error
        self.inner = storage_for(place.removeprefix("faulty+") + ("?" + rest if rest else ""))
        """The storage that is wrapped."""
        self.url = faulty_url(self.inner.url, **self._faults)
        if "full_bytes" in self._faults and self.inner.local_path("x") is None:
            raise InvalidArgument("only local storages know how full they are", hint="leave out full_bytes")
        self._chances = random.Random(int(self._faults.get("seed", 0)))
        self._writing = threading.Lock()

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        self._maybe_fail("fail", name)
        if "full_bytes" not in self._faults:
            self.inner.write(name, pieces)
            return
        with self._writing:
            free = self.free_bytes()
            assert free is not None
            if sum(memoryview(piece).nbytes for piece in pieces) > free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            self.inner.write(name, pieces)

    def read_into(self, name: str, target: memoryview) -> None:
        self._maybe_fail("fail_reads", name)
        self.inner.read_into(name, target)

    def remove(self, name: str) -> None:
        self._maybe_fail("fail_removes", name)
        self.inner.remove(name)

    def remove_unfinished(self, name: str) -> None:
        self._maybe_fail("fail_removes", name)
        self.inner.remove_unfinished(name)

    def names(self, prefix: str = "") -> list[str]:
        self._maybe_fail("", prefix)
        return self.inner.names(prefix)

    def local_path(self, name: str) -> str | None:
        return self.inner.local_path(name)

    def free_bytes(self) -> int | None:
        free = self.inner.free_bytes()
        if "full_bytes" not in self._faults or free is None:
            return free
        used = 0
        for name in self.inner.names():
            try:
                used += os.stat(self.inner.local_path(name) or "").st_size
            except FileNotFoundError:
                continue  # unfinished, or removed just now
        return max(0, min(free, int(self._faults["full_bytes"]) - used))

    def same_file_system(self, path: str) -> bool:
        return self.inner.same_file_system(path)

    def _maybe_fail(self, fault: str, name: str) -> None:
        time.sleep(self._faults.get("slow_s", 0))
        if self._chances.random() < self._faults.get(fault, 0):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)


def flip(storage: SpillStorage, name: str, at: int = 0) -> None:
    """Change one byte of a spilled file; `at` counts from the end if negative."""
    with open(_path_of(storage, name), "r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))


def cut(storage: SpillStorage, name: str, nbytes: int) -> None:
    """Leave only the first bytes of a spilled file, or lengthen it with zeros."""
    os.truncate(_path_of(storage, name), nbytes)


def lose(storage: SpillStorage, name: str) -> None:
    """Remove a spilled file behind everybody's back; FileNotFoundError if it is not there."""
    os.unlink(_path_of(storage, name))


def _path_of(storage: SpillStorage, name: str) -> str:
    path = storage.local_path(name)
    if path is None:
        raise InvalidArgument(f"{storage!r} is not on this machine", hint="damage files of local storages")
    return path
