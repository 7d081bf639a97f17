"""A store's directory: making one, finding one, removing one.

    control    identity, writers' lock, usage, bells        clients/   one file per client
    arena      the payload                                  new/       client files being made
    catalog/   the LMDB environment                         reserve    spare bytes, for a full file system

A store is made under a lock on its directory, and its control file comes last, by rename: a directory without
one is not a store yet. What is made first, and removed last, is ``control.new``: it says that whatever else
is there is ours and unfinished, and the next to connect starts over. Without it nothing is ever removed.
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
from flightstore.catalog.environment import LOCK_FILE_BYTES, create_catalog
from flightstore.catalog.records import encode_record
from flightstore.catalog.transaction import Counters
from flightstore.errors import InvalidArgument, NotAStore, StoreAccessDenied, StoreDamaged, StoreFull
from flightstore.memory import cgroup, kernel
from flightstore.memory.allocator import size_class
from flightstore.memory.arena import create_arena
from flightstore.memory.control import (
    Control,
    Identity,
    is_marked_destroyed,
    write_control,
)

__all__ = ["RESERVE_FILE", "ensure_store", "file_mode", "remove_store", "rounded_capacity"]

RESERVE_FILE = "reserve"
RESERVE_BYTES = 256 << 10
UNFINISHED = "control.new"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
"""What the system says when it has no memory for a file."""
_OUR_FILES = frozenset({"control", UNFINISHED, "arena", "catalog", "clients", "new", RESERVE_FILE})


def ensure_store(path: str, capacity_bytes: int | None, *, create: bool) -> bool:
    """Make the store unless it exists; whether this call found none. Safe for any number of processes at
    once, and for their deaths.

    Raises:
        NotAStore: it does not exist and `create` is False, or the directory holds something else.
        StoreFull: the memory file system has no room for its catalog.
        StoreAccessDenied: no permission.
    """
    if _is_made(path):
        return False
    if not create:
        raise NotAStore(f"there is no store at {path}", hint="connect without create=False to make one")
    try:
        while not _made(path, capacity_bytes):
            pass
        return True
    except FileExistsError as error:
        raise NotAStore(f"{path} is a file, not a directory", hint="name a directory") from error
    except NotADirectoryError as error:
        raise NotAStore(f"{path} lies below a file", hint="name a directory") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            needed = config.catalog_bytes_for(capacity_bytes or 0)
            raise no_room_for(path, f"a new store: its catalog alone takes {needed:,} bytes") from error
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise StoreAccessDenied(
            f"no permission to make a store at {path}: {error.strerror}",
            hint="name a directory that you may write to",
        ) from error


def _has_control(path: str) -> bool:
    """Whether there is a control file.

    Raises:
        StoreAccessDenied: the directory may not be searched.
    """
    try:
        os.stat(os.path.join(path, "control"))
    except PermissionError as error:
        raise StoreAccessDenied(
            f"no permission to use the store {path}", hint="direct clients need its directory's permissions"
        ) from error
    except OSError:
        return False
    return True


def _made(path: str, capacity_bytes: int | None) -> bool:
    """Make the store unless somebody was faster; False when its directory was removed meanwhile: again."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    try:
        with _locked(path) as descriptor:
            # The lock may be that of a directory which its destroyer has removed since it was opened.
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return False
            if not _is_made(path):
                _make(path, capacity_bytes)
            return True
    except NotAStore:  # a FileNotFoundError too, but no reason to try again
        raise
    except FileNotFoundError as error:
        # The directory itself went, and may be back by now: again. Anything below it is no such race.
        if error.filename != path:
            raise
        return False


def _is_made(path: str) -> bool:
    """Whether there is a store. One that is marked as destroyed is none: whoever marked it may have died
    before it removed the files, and nobody could write to it ever again.
    """
    return _has_control(path) and not is_marked_destroyed(path)


def no_room_for(path: str, what: str) -> StoreFull:
    """The error for a file system that has no room for one of our files."""
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    figures = os.statvfs(existing)
    free = figures.f_bavail * figures.f_frsize
    inodes = f" and {figures.f_favail:,} inodes" if figures.f_files else ""
    error = StoreFull(
        f"the file system of {path} has no room for {what}; {free:,} bytes{inodes} are free",
        hint="free memory there ('flightstore doctor' lists forgotten stores), or name another directory",
    )
    error.free_bytes = free
    return error


def check_files(path: str, identity: Identity) -> None:
    """Compare the files' sizes with the identity: a file cut short would be a SIGBUS later.

    Raises:
        StoreDamaged: one is missing or too short.
    """
    expected = {
        "arena": identity.arena_bytes,
        "catalog/data.mdb": identity.catalog_bytes,
        "catalog/lock.mdb": LOCK_FILE_BYTES,
        "clients": 0,
        "new": 0,
    }
    for name, nbytes in expected.items():
        try:
            found = os.stat(os.path.join(path, name)).st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _damaged(path, f"{name} is missing") from error
        if found < nbytes:
            raise _damaged(path, f"{name} has {found:,} bytes instead of {nbytes:,}")


def _damaged(path: str, what: str) -> StoreDamaged:
    return StoreDamaged(
        f"the store {path} is damaged: {what}",
        hint=f"nothing was changed; if nobody uses it any more, remove it with rm -r {path}",
    )


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make(path: str, capacity_bytes: int | None) -> None:
    """Make all files, the control file last. Requires the lock on the directory, and no store there: a
    control file, if there is one, bears the mark of destruction.
    """
    there = set(os.listdir(path))
    foreign = there - _OUR_FILES if there & {UNFINISHED, "control"} else there
    if foreign:
        raise NotAStore(
            f"{path} is not a store and not empty: it holds {min(foreign)!r}",
            hint="name a directory that does not exist yet, or an empty one",
        )
    mode = file_mode(path)
    descriptor = os.open(os.path.join(path, UNFINISHED), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    _set_mode(descriptor, mode)
    os.close(descriptor)
    _clear(path)
    capacity = _checked_capacity(path, capacity_bytes)
    arena_bytes = config.ADDRESSES_PER_BYTE * capacity
    catalog_bytes = config.catalog_bytes_for(capacity)
    try:
        _make_files(path, arena_bytes, catalog_bytes, mode)
        identity = Identity(
            capacity, arena_bytes, catalog_bytes, kernel.pid_namespace(), time.time_ns(), 0, os.urandom(16)
        )
        write_control(os.path.join(path, UNFINISHED), identity)
        os.rename(os.path.join(path, UNFINISHED), os.path.join(path, "control"))
    except BaseException:
        _clear(path)
        os.unlink(os.path.join(path, UNFINISHED))
        raise


def _make_files(path: str, arena_bytes: int, catalog_bytes: int, mode: int) -> None:
    for directory in ("clients", "new"):
        os.mkdir(os.path.join(path, directory))
        os.chmod(os.path.join(path, directory), os.stat(path).st_mode & 0o3777)
    reserve_file(path, mode)
    create_arena(os.path.join(path, "arena"), arena_bytes, mode)
    klass, end = size_class(arena_bytes), arena_bytes.to_bytes(8, "big")
    first = {
        keys.COUNTERS: encode_record(Counters()),
        keys.COLD + end: bytes(8),
        keys.COLD.lower() + klass.to_bytes(2, "big") + end: b"",
    }
    create_catalog(os.path.join(path, "catalog"), catalog_bytes, mode, first)
    os.chmod(os.path.join(path, "catalog"), os.stat(path).st_mode & 0o3777)


def _set_mode(descriptor: int, mode: int) -> None:
    """Give a file its permissions, whatever the umask; what another user left there keeps its own."""
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, mode)


def reserve_file(path: str, mode: int) -> None:
    """Make the reserve: bytes that are given up when the file system is full and somebody has to connect to
    delete.
    """
    descriptor = os.open(os.path.join(path, RESERVE_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        _set_mode(descriptor, mode)
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    finally:
        os.close(descriptor)


def restore_reserve(path: str, mode: int) -> None:
    """Make the reserve again where it was given up, once the file system has room for it."""
    file = os.path.join(path, RESERVE_FILE)
    try:
        if os.path.exists(file) and os.stat(file).st_size >= RESERVE_BYTES:
            return
        reserve_file(path, mode)
    except OSError:
        give_up_reserve(path)  # an empty file would look like a reserve


def give_up_reserve(path: str) -> None:
    """Remove the reserve, so that its bytes can be used."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, RESERVE_FILE))


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


def _clear(path: str, sign: str = UNFINISHED) -> None:
    """Remove all our files but the one that says they are ours."""
    for name in _OUR_FILES - {sign}:
        target = os.path.join(path, name)
        if os.path.isdir(target):
            _remove_directory(target)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)


def _remove_directory(path: str) -> None:
    """Remove a directory into which others may still be putting files: those who connect at this moment, and
    see only afterwards that the store is marked. Each of them does so once.
    """
    for _ in range(1000):
        try:
            shutil.rmtree(path)
            return
        except FileNotFoundError:
            if not os.path.isdir(path):
                return  # else a file in it was moved away: a client file, on its way from one to the other
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def file_mode(path: str) -> int:
    """Permissions of the files of a store: those of its directory, without execution."""
    return os.stat(path).st_mode & 0o666


def remove_store(path: str, nonce: bytes) -> None:
    """Remove the files of a store marked as destroyed, and its directory unless it is a mount point or
    holds more.

    The control file goes last: marked, it is no store to anybody, and says that the rest is ours, should this
    process die on the way. It must not become part of another store: its pages are mapped by our clients.

    Does nothing when the store is gone already, or another one was made in its place.
    """
    with contextlib.suppress(FileNotFoundError, NotAStore), _locked(path):
        if Control(path).identity.nonce != nonce:
            return
        _clear(path, sign="control")
        os.unlink(os.path.join(path, "control"))
        with contextlib.suppress(OSError):
            os.rmdir(path)
