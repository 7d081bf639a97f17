"""The LMDB environment of one store in this process: opened when first used, closed around forks.

Rules, each found by breaking it:
- The map size is the one fixed when the store was made: opening with a smaller one truncates the file under
  everyone.
- File space is reserved (`create_catalog`), so that a full file system is never a SIGBUS.
- Nothing in this process opens ``lock.mdb`` but LMDB: closing any other descriptor of it would drop LMDB's
  locks.
- One environment per store and process (lifecycle.registry sees to it).
- An environment inherited over fork is neither used nor closed in the child.
- Read transactions hold no user code and no waiting: a stopped reader keeps pages from being reused.

`gate` is held around every transaction, so that the fork hook can wait for all of them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import lmdb

from flightstore.catalog import keys
from flightstore.errors import StoreAccessDenied, StoreDamaged, StoreVersionMismatch

__all__ = ["Catalog", "create_catalog"]

CATALOG_VERSION = 1
MAX_READERS = 4096
LOCK_FILE_BYTES = 64 * (MAX_READERS + 64)  # a cache line per reader, and the header
_PAGES_PER_LAG = 16
_PAGES_PER_OBJECT = 8
FULL_SHARE = 0.9
"""Creates are refused beyond this share of the catalog, so that deletes always fit."""


def create_catalog(path: str, map_bytes: int, mode: int, first_records: dict[bytes, bytes]) -> None:
    """Make the catalog's directory and files, their space reserved, with `first_records` in it.

    Raises:
        OSError: the file system has no room for it.
    """
    os.mkdir(path)
    descriptor = os.open(os.path.join(path, "lock.mdb"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask may have taken from it
        os.posix_fallocate(descriptor, 0, LOCK_FILE_BYTES)
    finally:
        os.close(descriptor)  # before LMDB opens it: afterwards, closing would drop LMDB's locks
    try:
        env = _open(path, map_bytes, mode)
    except lmdb.DiskError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
    try:
        descriptor = os.open(os.path.join(path, "data.mdb"), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, mode)
            os.posix_fallocate(descriptor, 0, map_bytes)  # not earlier: LMDB refuses a file of zeros
        finally:
            os.close(descriptor)
        with env.begin(write=True) as txn:
            txn.put(keys.FORMAT, CATALOG_VERSION.to_bytes(4, "big"))
            for key, value in first_records.items():
                txn.put(key, value)
    finally:
        env.close()


def _open(path: str, map_bytes: int, mode: int) -> lmdb.Environment:
    return lmdb.open(
        path,
        map_size=map_bytes,
        mode=mode,
        writemap=True,
        sync=False,
        metasync=False,
        readahead=False,
        max_readers=MAX_READERS,
        max_dbs=0,
        max_spare_txns=2,
    )


class Catalog:
    """The catalog of one store, for all threads of this process."""

    def __init__(self, path: str, map_bytes: int, mode: int, guard: Callable[[], None]) -> None:
        self.path = path
        self._guard = guard  # refuses when what lies at the path is not the store that we know
        self.map_bytes = map_bytes
        self._mode = mode
        self._env: lmdb.Environment | None = None
        self.gate = threading.RLock()
        self._leaked: list[object] = []
        self._end: BaseException | None = None
        self._end_spares = 0  # a thread

    def environment(self) -> lmdb.Environment:
        """The open environment. Requires the gate."""
        return self._env if self._env is not None else self._reopen()

    def _reopen(self) -> lmdb.Environment:
        if self._end is not None and self._end_spares != threading.get_ident():
            raise type(self._end)(*self._end.args)
        opened: list[lmdb.Environment] = []
        try:
            return self._opened(opened)
        except BaseException:  # interrupted, say: it must not live on in a traceback, where the next would be
            for env in opened:  # the second one on these files in this process
                if env is not self._env:
                    env.close()
            raise

    def _opened(self, opened: list[lmdb.Environment]) -> lmdb.Environment:
        """Open the environment and look whether it is of our version; `opened` gets it at once."""
        try:
            opened.append(self._open_ours())
            env = opened[0]
            with env.begin() as txn:
                raw = txn.get(keys.FORMAT)
        except lmdb.ReadonlyError as error:  # LMDB's word for a file that may not be opened for writing
            raise StoreAccessDenied(
                f"no permission to use the catalog: {error}",
                hint="direct clients need read and write permission on the store's directory and files",
            ) from error
        except lmdb.Error as error:
            self._guard()
            raise StoreDamaged(
                f"the catalog {self.path} cannot be opened: {error}", hint="run 'flightstore doctor'"
            ) from error
        version = int.from_bytes(raw or b"", "big")
        if version != CATALOG_VERSION:
            self._guard()  # a store that is being removed: LMDB made what it did not find
            raise StoreVersionMismatch(
                f"the catalog {self.path} has version {version}, "
                f"this flightstore reads version {CATALOG_VERSION}",
                hint="use the flightstore that made it",
            )
        self._env = env
        return env

    def _open_ours(self) -> lmdb.Environment:
        """Open the environment of the store that we know, not of one that was made at its path since.

        LMDB opens by path, and makes what is missing. So the directory is opened first, then the guard looks
        whether the store is still ours, and LMDB opens the files of that very directory, removed or not.
        """
        try:
            directory = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._guard()
            raise
        try:
            self._guard()
            return _open(f"/proc/self/fd/{directory}", self.map_bytes, self._mode)
        finally:
            os.close(directory)

    def begin(self, *, write: bool = False) -> Any:  # Any: lmdb's types say memoryview where it gives bytes
        """An lmdb.Transaction. Requires the gate until it has ended."""
        env = self._env
        return (env if env is not None else self._reopen()).begin(write=write)

    def get(self, key: bytes) -> bytes | None:
        """One record, in a transaction of its own."""
        with self.gate:
            txn = self.begin()
            try:
                return cast("bytes | None", txn.get(key))
            finally:
                txn.abort()

    def resolve(self, name_key: bytes, object_prefix: bytes) -> tuple[bytes, bytes | None] | None:
        """The id behind a name and that object's record, as of one moment; None for an unknown name."""
        with self.gate:
            txn = self.begin()
            try:
                object_id = txn.get(name_key)
                return None if object_id is None else (object_id, txn.get(object_prefix + object_id))
            finally:
                txn.abort()

    def items(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """All records whose key begins with `prefix`, as of one moment."""
        with self.gate:
            txn = self.begin()
            try:
                return list(scan(txn, prefix))
            finally:
                txn.abort()

    # --- fullness, readers ---

    def used_bytes(self) -> int:
        """Bytes of the pages that hold records."""
        with self.gate:
            env = self.environment()
            return live_bytes(env)

    def is_nearly_full(self) -> bool:
        """Whether creates must be refused. Costs a microsecond. Requires the gate."""
        env = self.environment()
        limit = self.map_bytes * FULL_SHARE
        if (env.info()["last_pgno"] + 1) * 4096 <= limit:
            return False
        if live_bytes(env) > limit:
            return True
        if not self.lagging_readers():
            return False
        env.reader_check()  # the dead hold nobody up
        return self.lagging_readers() != []

    def batch(self, most: int) -> int:
        """How many objects one transaction may delete or free, at most `most`.

        LMDB copies every page that a transaction changes, and can use the old ones only afterwards: one
        object changes some four pages, and all of them must find room in what the records leave free.
        """
        with self.gate:
            free_pages = (self.map_bytes - live_bytes(self.environment())) // 4096
        return max(min(free_pages // _PAGES_PER_OBJECT, most), 8)

    def lagging_readers(self, least: int | None = None) -> list[tuple[int, int]]:
        """(process id, transactions behind) of readers that keep pages from being reused, the worst first.

        Args:
            least: How many transactions behind count; None for what this catalog does not tolerate.

        How far behind is too far depends on the catalog: each transaction leaves some ten old pages, which
        cannot be used again while a reader may look at them.
        """
        with self.gate:
            env = self.environment()
            free_pages = (self.map_bytes - live_bytes(env)) // 4096
            tolerated = least or min(max(free_pages // _PAGES_PER_LAG, 32), 1000)
            last = env.info()["last_txnid"]
            found = []
            for line in env.readers().splitlines()[1:]:
                fields = line.split()
                if len(fields) == 3 and fields[2].isdigit() and last - int(fields[2]) >= tolerated:
                    found.append((int(fields[0]), last - int(fields[2])))
            return sorted(found, key=lambda one: -one[1])

    def clear_stale_readers(self) -> int:
        """Free the reader slots of dead processes; returns how many."""
        with self.gate:
            return self.environment().reader_check()

    # --- fork, end ---

    def close(self) -> None:
        """Close the environment; the next use opens it again. Waits for this process's transactions."""
        with self.gate:
            if self._env is not None:
                self._env.close()
                self._env = None

    def end(self, error: BaseException, but_for: int = 0) -> None:
        """From now on raise `error` instead of opening the environment, in all threads but one."""
        self._end, self._end_spares = error, but_for

    def abandon_after_fork(self) -> None:
        """In a forked child: never touch what was inherited, neither the environment nor the gate's owner."""
        if self._env is not None:
            self._leaked.append(self._env)
            self._env = None
        self.gate = threading.RLock()


def live_bytes(env: lmdb.Environment) -> int:
    """Bytes of the pages that hold records."""
    stat = env.stat()
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] + 2
    return pages * stat["psize"]


def scan(txn: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records whose key begins with `prefix`, ascending, within `txn`."""
    cursor = txn.cursor()
    if cursor.set_range(prefix):
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            yield key, value
