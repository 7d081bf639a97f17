"""Spilled payload in a directory of this machine. May call the contract and memory.together.

The directory holds one file for each name, and nothing else of ours; it is made with the first write, open to
its owner alone. Files have the directory's permissions without execution, so that who shares a store shares
what it spilled. A file is written as ``<name>.part`` and then renamed. Nothing is synced to the disk: spilled
payload belongs to a store in memory and is worthless after the machine is gone; the kernel writes it back as
it needs the memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from io import FileIO
from urllib.parse import quote, unquote, urlsplit

from flightstore.abc.storage import UNFINISHED, SpillStorage, check_spill_name, is_spill_name, masked_url
from flightstore.errors import InvalidArgument, SpillDamaged
from flightstore.memory.together import Job, run_together

__all__ = ["LocalStorage"]

_PIECES_PER_CALL = 1024
"""What one writev takes (IOV_MAX)."""
_STEP_BYTES = 16 << 20
"""Read or written by one call, so that Ctrl-C is noticed and threads stop soon."""
_THREADED_BYTES = 8 << 20
"""Files from this size on are read by two threads."""


class LocalStorage(SpillStorage):
    """A directory, from a ``file://`` URL."""

    def __init__(self, url: str) -> None:
        self._directory = _directory_of(url)
        self.url = "file://" + quote(self._directory)

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        path = self.local_path(name)
        unfinished = path + UNFINISHED
        with self._made_file(unfinished) as fd:
            for some in _batches(pieces):
                _write_all(fd, some)
            os.replace(unfinished, path)

    @contextlib.contextmanager
    def _made_file(self, path: str) -> Iterator[int]:
        """A new file, open for writing; gone again if the block fails."""
        try:
            with self._create(path) as file:
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(self._directory).st_mode) & 0o666)
                yield file.fileno()
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    def _create(self, path: str) -> FileIO:
        # A file object, not a number: an interrupt that comes while the kernel makes the file closes it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # a killed writer's
        try:
            return FileIO(path, "x")
        except FileNotFoundError:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            return FileIO(path, "x")

    def read_into(self, name: str, target: memoryview) -> None:
        target = target.cast("B") if target.nbytes else memoryview(bytearray())
        with FileIO(self.local_path(name)) as file:
            fd = file.fileno()
            found = os.fstat(fd).st_size
            if found != len(target):
                raise self._damaged(name, f"has {found:,} bytes instead of {len(target):,}")
            middle = len(target) // 2 if len(target) >= _THREADED_BYTES else len(target)
            shares = [(0, middle), (middle, len(target))] if middle < len(target) else [(0, middle)]
            run_together([partial(self._read_share, fd, name, target, *share) for share in shares])

    def _read_share(self, fd: int, name: str, target: memoryview, start: int, end: int, job: Job) -> None:
        while start < end and not job.stop:
            nbytes = os.preadv(fd, [target[start : min(end, start + _STEP_BYTES)]], start)
            if not nbytes:
                raise self._damaged(name, f"ends at {start:,}, {len(target):,} bytes were expected")
            start += nbytes

    def _damaged(self, name: str, what: str) -> SpillDamaged:
        error = SpillDamaged(f"the spilled file {self.local_path(name)} {what}", hint="somebody changed it")
        error.url, error.name = masked_url(self.url), name
        return error

    def remove(self, name: str) -> None:
        self.remove_unfinished(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.local_path(name))

    def remove_unfinished(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.local_path(name) + UNFINISHED)

    def names(self, prefix: str = "") -> list[str]:
        try:
            found = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        ours = {name.removesuffix(UNFINISHED) for name in found if name.startswith(prefix)}
        return sorted(filter(is_spill_name, ours))

    def local_path(self, name: str) -> str:
        return f"{self._directory}/{check_spill_name(name)}"

    def free_bytes(self) -> int | None:
        numbers = os.statvfs(_existing(self._directory))
        return numbers.f_bavail * numbers.f_frsize

    def same_file_system(self, path: str) -> bool:
        return os.stat(_existing(self._directory)).st_dev == os.stat(path).st_dev


def _directory_of(url: str) -> str:
    """The directory that a URL means, absolute.

    Raises:
        InvalidArgument: the URL has a host, or options, which a directory has not.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or not parts.path:
        raise InvalidArgument(
            f"{parts.scheme}:// stands before an absolute path of this machine, without host or options",
            hint="such as file:///var/spill; %3F for a question mark in the path",
        )
    return os.path.abspath(unquote(parts.path))


def _existing(path: str) -> str:
    """The path, or the nearest of the directories above it that is there."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _batches(pieces: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """The bytes of all pieces in order, as lists of what one call takes."""
    batch: list[memoryview] = []
    size = 0
    for piece in pieces:
        if not memoryview(piece).nbytes:
            continue
        view = memoryview(piece).cast("B")
        for start in range(0, view.nbytes, _STEP_BYTES):
            part = view[start : start + _STEP_BYTES]
            batch.append(part)
            size += part.nbytes
            if size >= _STEP_BYTES or len(batch) == _PIECES_PER_CALL:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _write_all(fd: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(fd, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]
