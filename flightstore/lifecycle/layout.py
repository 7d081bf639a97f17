"""A store's directory: making one, finding one, removing one.

    control    identity, writers' lock, usage, bells        clients/   one file per client
    arena      the payload                                  new/       client files being made
    catalog/   the LMDB environment                         reserve    spare bytes for the day the file system
    is full

A store is made under a lock on its directory, and its control file comes last, by rename: a directory without
one is not a store yet, whatever else is in it, and the next to connect starts over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator

from flightstore import config
from flightstore.catalog import keys
from flightstore.catalog.environment import create_catalog
from flightstore.catalog.transaction import Counters
from flightstore.errors import InvalidArgument, NotAStore, StoreAccessDenied, StoreFull
from flightstore.memory import cgroup, kernel
from flightstore.memory.allocator import size_class
from flightstore.memory.arena import create_arena
from flightstore.memory.control import CONTROL_BYTES, Identity, is_marked_destroyed, write_control

__all__ = ["RESERVE_FILE", "ensure_store", "file_mode", "remove_store", "rounded_capacity"]

RESERVE_FILE = "reserve"
RESERVE_BYTES = 256 << 10
_OUR_FILES = frozenset({"control", "control.new", "arena", "catalog", "clients", "new", RESERVE_FILE})


def ensure_store(path: str, capacity_bytes: int | None, *, create: bool) -> None:
    """Make the store unless it exists. Safe for any number of processes at once, and for their deaths.

    Raises:
        NotAStore: it does not exist and `create` is False, or the directory holds something else.
        StoreFull: the memory file system has no room for its catalog.
        StoreAccessDenied: no permission.
    """
    if _is_made(path):
        return
    if not create:
        raise NotAStore(f"there is no store at {path}", hint="connect without create=False to make one")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        with _locked(path):
            if not _is_made(path):
                _make(path, capacity_bytes)
    except FileExistsError as error:
        raise NotAStore(f"{path} is a file, not a directory", hint="name a directory") from error
    except PermissionError as error:
        raise StoreAccessDenied(
            f"no permission to make a store at {path}", hint="name a directory that you may write to"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(path, capacity_bytes) from error


def _is_made(path: str) -> bool:
    """Whether there is a store. One that is marked as destroyed is none: whoever marked it may have died
    before it removed the files, and nobody could write to it ever again.
    """
    return os.path.exists(os.path.join(path, "control")) and not is_marked_destroyed(path)


def _no_room(path: str, capacity_bytes: int | None) -> StoreFull:
    figures = os.statvfs(path)
    free = figures.f_bavail * figures.f_frsize
    needed = config.catalog_bytes_for(capacity_bytes or 0)
    error = StoreFull(
        f"the file system of {path} has no room for a new store: "
        f"its catalog alone takes {needed:,} bytes, {free:,} are free",
        hint="free memory there ('flightstore doctor' lists forgotten stores), or name another directory",
    )
    error.asked_bytes, error.free_bytes = needed, free
    return error


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(path: str, capacity_bytes: int | None) -> None:
    """Make all files, the control file last. Requires the lock on the directory."""
    foreign = set(os.listdir(path)) - _OUR_FILES
    if foreign:
        raise NotAStore(
            f"{path} is not a store and not empty: it holds {min(foreign)!r}",
            hint="name a directory that does not exist yet, or an empty one",
        )
    _clear(path)
    capacity = _checked_capacity(path, capacity_bytes)
    arena_bytes = config.ADDRESSES_PER_BYTE * capacity
    catalog_bytes = config.catalog_bytes_for(capacity)
    mode = file_mode(path)
    try:
        _make_files(path, arena_bytes, catalog_bytes, mode)
        identity = Identity(
            capacity, arena_bytes, catalog_bytes, kernel.pid_namespace(), time.time_ns(), 0, os.urandom(16)
        )
        write_control(os.path.join(path, "control.new"), identity, mode)
        os.rename(os.path.join(path, "control.new"), os.path.join(path, "control"))
    except BaseException:
        _clear(path)
        raise


def _make_files(path: str, arena_bytes: int, catalog_bytes: int, mode: int) -> None:
    for directory in ("clients", "new"):
        os.mkdir(os.path.join(path, directory))
        os.chmod(os.path.join(path, directory), os.stat(path).st_mode & 0o3777)
    reserve_file(path, mode)
    create_arena(os.path.join(path, "arena"), arena_bytes, mode)
    klass, end = size_class(arena_bytes), arena_bytes.to_bytes(8, "big")
    first = {
        keys.COUNTERS: Counters.initial(),
        keys.COLD + end: bytes(8),
        keys.COLD.lower() + klass.to_bytes(2, "big") + end: b"",
    }
    create_catalog(os.path.join(path, "catalog"), catalog_bytes, mode, first)
    os.chmod(os.path.join(path, "catalog"), os.stat(path).st_mode & 0o3777)


def reserve_file(path: str, mode: int) -> None:
    """Make the reserve: bytes that are given up when the file system is full and somebody has to connect to
    delete.
    """
    descriptor = os.open(os.path.join(path, RESERVE_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    finally:
        os.close(descriptor)


def _checked_capacity(path: str, capacity_bytes: int | None) -> int:
    capacity = capacity_bytes if capacity_bytes is not None else _default_capacity(path)
    if capacity < config.MIN_CAPACITY_BYTES:
        raise InvalidArgument(
            f"a capacity of {capacity:,} bytes is too small: at least {config.MIN_CAPACITY_BYTES:,}"
        )
    if capacity > 1 << 44:
        raise InvalidArgument(f"a capacity of {capacity:,} bytes is more than any machine can address here")
    return rounded_capacity(capacity)


def rounded_capacity(capacity_bytes: int) -> int:
    """The capacity a store gets when this one is asked for: whole pages."""
    return kernel.round_up(capacity_bytes, 4096)


def _default_capacity(path: str) -> int:
    figures = os.statvfs(path)
    share = int(figures.f_blocks * figures.f_frsize * config.DEFAULT_SHARE)
    headroom = cgroup.headroom_bytes()
    return max(share if headroom is None else min(share, headroom), config.MIN_CAPACITY_BYTES)


def _clear(path: str) -> None:
    for name in _OUR_FILES:
        target = os.path.join(path, name)
        if os.path.isdir(target):
            shutil.rmtree(target)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)


def file_mode(path: str) -> int:
    """Permissions of the files of a store: those of its directory, without execution."""
    return os.stat(path).st_mode & 0o666


def remove_store(path: str) -> None:
    """Remove the files of a store that is marked as destroyed, the control file first, and its directory
    unless it is a mount point or holds more.

    Does nothing to a store that is not marked: somebody else removed the marked one, and made it anew.
    """
    if not os.path.isdir(path):
        return
    with _locked(path):
        if _is_made(path):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(path, "control"))
        _clear(path)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def looks_like_store(path: str) -> bool:
    """Whether a directory holds a control file of the right size."""
    try:
        return os.stat(os.path.join(path, "control")).st_size == CONTROL_BYTES
    except OSError:
        return False
