"""Store: the one facade. Orchestrates the rooms and holds no mechanism of its own."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from flightstore import config
from flightstore.abc import AbstractStore
from flightstore.catalog.keys import check_name
from flightstore.catalog.records import decode_record
from flightstore.errors import InvalidArgument, StoreClosed
from flightstore.lifecycle import (
    building,
    freeing,
    fsck,
    layout,
    reading,
    recovery,
    reports,
    sealing,
)
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.registry import connection_for, release_connection
from flightstore.lifecycle.sealing import NewObject, new_object
from flightstore.objects.base import Object
from flightstore.objects.registry import encode, open_object
from flightstore.types import Holder, ObjectID, ObjectInfo, RecoverReport, Ref, StoreStats

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.lifecycle.tablebuilding import TableBuilder

__all__ = ["Store", "connect"]

T = TypeVar("T")


def connect(
    target: str | os.PathLike[str] | None = None,
    *,
    capacity: int | str | None = None,
    create: bool = True,
    busy_timeout: float | None = None,
) -> Store:
    """Connect to a store, making it first if it does not exist.

    Any number of processes, and of handles in one process, may be connected at once.

    Args:
        target: Directory of the store, on a memory file system; None for the user's default store
            (FLIGHTSTORE_DIR, or ``/dev/shm/flightstore-<uid>``).
        capacity: Upper bound of the memory for payload: bytes, or text such as ``"8GiB"``. For a new store;
            connecting to one of another capacity is an error. Default: FLIGHTSTORE_CAPACITY, or 30 % of the
            file system.
        create: False raises NotAStore instead of making a store.
        busy_timeout: Seconds to wait for another process that is writing before StoreBusy is raised; 10 at
            first. The last value given holds for all handles of this process on this store.

    Raises:
        NotAStore, StoreAccessDenied, StoreDamaged, StoreVersionMismatch, WrongPidNamespace, StoreFull,
        InvalidArgument: what they say.
    """
    asked = config.parse_bytes(capacity) if capacity is not None else None
    path = os.path.realpath(os.fspath(target) if target is not None else config.default_directory())
    for_new = asked if asked is not None else config.configured_capacity()
    layout.ensure_store(path, for_new, create=create)
    conn = connection_for(path, busy_timeout)
    if asked is not None and layout.rounded_capacity(asked) != conn.capacity_bytes:
        actual = conn.capacity_bytes
        release_connection(conn)
        raise InvalidArgument(
            f"the store {path} has a capacity of {actual:,} bytes, not {asked:,}",
            hint="connect without capacity=, or destroy the store and make it anew",
        )
    return Store(conn)


class Store(AbstractStore):
    """A store in shared memory on this machine. Made by :func:`connect`; thread-safe, and usable
    on both sides of a fork.

    ``str`` arguments are names, :class:`ObjectID` ones are ids. Handles are cheap; closing
    one leaves objects and views got through it valid.
    """

    def __init__(self, conn: Connection) -> None:
        self._connection: Connection | None = conn
        self._session = 0
        self._closing = threading.Lock()

    @property
    def _conn(self) -> Connection:
        conn = self._attached
        conn.refuse_destroyed()
        return conn

    @property
    def _attached(self) -> Connection:
        conn = self._connection
        if conn is None:
            raise StoreClosed("this store handle was closed", hint="connect again")
        return conn

    @property
    def path(self) -> str:
        """Directory of the store."""
        return self._attached.path

    @property
    def capacity_bytes(self) -> int:
        """Upper bound of the memory for payload."""
        return self._attached.capacity_bytes

    # --- putting ---

    def put(
        self,
        value: Any,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        pickle: bool = True,
        timeout: float | None = 0,
    ) -> ObjectID:
        conn = self._conn
        new = self._new(value, name, object_id, metadata, pickle)
        sealing.put(conn, (new,), _deadline(timeout))
        return new.id

    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[Any],
        *,
        pickle: bool = True,
        timeout: float | None = 0,
    ) -> list[ObjectID]:
        conn = self._conn
        pairs: Iterable[tuple[str | None, Any]]
        pairs = values.items() if isinstance(values, Mapping) else ((None, value) for value in values)
        objects = [self._new(value, name, None, None, pickle) for name, value in pairs]
        if objects:
            sealing.put(conn, objects, _deadline(timeout))
        return [new.id for new in objects]

    def _new(
        self, value: Any, name: str | None, object_id: ObjectID | None, metadata: Any, pickle: bool
    ) -> NewObject:
        _check_new(name, object_id)
        return new_object(self._session, encode(value, pickle=pickle), name, object_id, metadata)

    # --- composing ---

    def with_columns(
        self,
        ref: Ref | Object,
        columns: Any,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        table = self._held(ref)
        return self._compose(composing().with_columns(table, columns), name, object_id, metadata, timeout)

    def select(
        self,
        ref: Ref | Object,
        columns: Iterable[str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        table = self._held(ref)
        return self._compose(composing().select(table, columns), name, object_id, metadata, timeout)

    def drop(
        self,
        ref: Ref | Object,
        columns: Iterable[str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        table = self._held(ref)
        return self._compose(composing().drop(table, columns), name, object_id, metadata, timeout)

    def rename(
        self,
        ref: Ref | Object,
        names: Mapping[str, str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        table = self._held(ref)
        return self._compose(composing().rename(table, names), name, object_id, metadata, timeout)

    def concat(
        self,
        refs: Iterable[Ref | Object],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        tables = [self._held(ref) for ref in refs]
        return self._compose(composing().concat(tables), name, object_id, metadata, timeout, tables)

    def _held(self, ref: Ref | Object) -> Object:
        """A reference on an object of this store, which keeps its memory while something is made of it."""
        if not isinstance(ref, Object):
            return self.get(ref)
        view = ref._live.store
        if not isinstance(view, _View) or view._conn is not self._conn:
            raise InvalidArgument(
                f"the object {ref.id} is in another store, and its memory cannot be shared with {self.path}",
                hint="put it here first: store.put(obj)",
            )
        return ref

    def _compose(
        self,
        composition: Any,
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
        timeout: float | None,
        keepalive: Any = None,
    ) -> Object:
        """Store what was composed; `keepalive` holds what it shares until it is sealed."""
        conn = self._conn
        _check_new(name, object_id)
        new = new_object(self._session, composition.payload, name, object_id, metadata)
        new.nbytes, new.shared, new.members = composition.nbytes, composition.shared, composition.members
        new.hold = True
        sealing.put(conn, (new,), _deadline(timeout))
        assert new.held is not None
        return self._open(conn, (new.id, *new.held))

    # --- building in place ---

    def create(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> building.Builder:
        conn = self._conn
        _check_new(name, object_id)
        payload = building.blob_payload(nbytes)
        new = new_object(self._session, payload, name, object_id, metadata)
        return building.Builder(conn, new, _deadline(timeout))

    def create_now(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
    ) -> building.Builder:
        return self.create(nbytes, name, object_id=object_id, metadata=metadata, timeout=0)

    def create_table(
        self,
        schema: pa.Schema,
        num_rows: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> TableBuilder:
        from flightstore.lifecycle.tablebuilding import TableBuilder

        conn = self._conn
        _check_new(name, object_id)
        return TableBuilder(
            conn, self._session, schema, num_rows, name, object_id, metadata, _deadline(timeout)
        )

    def abort(self, ref: ObjectID) -> bool:
        return sealing.abort(self._conn, self._session, ref)

    # --- getting ---

    def get(self, ref: Ref, *, timeout: float | None = 0) -> Object:
        conn = self._conn
        acquired = reading.acquire(conn, self._session, ref)
        if acquired is None:
            if timeout == 0:
                raise reading.not_found(conn, ref, None)
            acquired = reading.wait_for(conn, self._session, ref, _deadline(timeout))
            if acquired is None:
                raise reading.not_found(conn, ref, timeout)
        return self._open(conn, acquired)

    def get_many(self, refs: Iterable[Ref], *, timeout: float | None = 0) -> list[Object]:
        conn, wanted = self._conn, list(refs)
        deadline = _deadline(timeout)
        while True:
            acquired = reading.acquire_many(conn, self._session, wanted)
            missing = [ref for ref, found in zip(wanted, acquired, strict=True) if found is None]
            if not missing:
                break
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if left == 0 or self.wait(missing, timeout=left)[1]:
                raise reading.not_found(conn, missing[0], None if timeout == 0 else timeout)
        return [self._open(conn, found) for found in acquired if found]

    async def get_async(self, ref: Ref, *, timeout: float | None = None) -> Object:
        conn, session = self._conn, self._session
        acquired = reading.acquire(conn, session, ref) or await _in_thread(
            lambda slice_s: reading.wait_for(conn, session, ref, _deadline(slice_s)), timeout
        )
        if acquired is None:
            raise reading.not_found(conn, ref, timeout)
        return self._open(conn, acquired)

    def _open(self, conn: Connection, acquired: reading.Acquired) -> Object:
        return open_object(reading.handle_for(conn, _View(conn, self._session), acquired))

    def contains(self, ref: Ref) -> bool:
        return reading.lookup(self._conn, self._session, ref) is not None

    def wait(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        wanted = list(refs)
        needed = len(wanted) if num_ready is None else num_ready
        if not 0 <= needed <= len(wanted):
            raise InvalidArgument(f"num_ready is {needed}, of {len(wanted)} references")
        flags = reading.wait_among(self._conn, self._session, wanted, needed, _deadline(timeout))
        ready = [ref for ref, is_ready in zip(wanted, flags, strict=True) if is_ready]
        return ready, [ref for ref, is_ready in zip(wanted, flags, strict=True) if not is_ready]

    async def wait_async(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        wanted = list(refs)
        needed = len(wanted) if num_ready is None else num_ready

        def step(slice_s: float) -> tuple[list[Ref], list[Ref]] | None:
            result = self.wait(wanted, num_ready=needed, timeout=slice_s)
            return result if len(result[0]) >= needed else None

        result = step(0) or await _in_thread(step, timeout)
        return result if result is not None else self.wait(wanted, num_ready=needed, timeout=0)

    # --- deleting ---

    def delete(self, refs: Ref | Iterable[Ref], *, if_unused: bool = False) -> int:
        several = [refs] if isinstance(refs, str | bytes) else list(refs)
        work = freeing.delete_unused if if_unused else freeing.delete
        return work(self._conn, self._session, [_checked(ref) for ref in several])

    # --- looking ---

    def list(self, pattern: str | None = None) -> list[ObjectInfo]:
        return reports.list_objects(self._conn, self._session, pattern)

    def stat(self, ref: Ref) -> ObjectInfo:
        conn = self._conn
        found = reading.lookup(conn, self._session, ref)
        if found is None:
            raise reading.not_found(conn, ref, None)
        return reports.info(conn, self._session, found[0], decode_record(found[1]), conn.clients.counts())

    def stats(self) -> StoreStats:
        return reports.usage(self._conn)

    def holders(self, ref: Ref) -> builtins.list[Holder]:
        """The processes that hold references on an object.

        Raises:
            ObjectNotFound: there is none.
        """
        conn = self._conn
        found = reading.lookup(conn, self._session, ref)
        if found is None:
            raise reading.not_found(conn, ref, None)
        return reports.holders(conn, decode_record(found[1]).serial)

    # --- upkeep ---

    def recover(self) -> RecoverReport:
        return recovery.recover(self._conn)

    def fsck(self) -> builtins.list[fsck.Finding]:
        """Everything that is wrong with the store, empty when all is well. Changes nothing."""
        return fsck.fsck(self._conn)

    # --- the end ---

    def close(self) -> None:
        with self._closing:
            conn, self._connection = self._connection, None
        if conn is not None:
            release_connection(conn)

    def destroy(self) -> None:
        conn = self._conn
        path = conn.path

        def mark() -> None:
            conn.refuse_destroyed()  # else two at once could remove the store that a third made in between
            conn.control.mark_destroyed()

        conn.exclusive(mark)
        self.close()
        layout.remove_store(path, conn.control.identity.nonce)

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()

    def __repr__(self) -> str:
        conn = self._connection
        return f"<Store {conn.path if conn else 'closed'}>"


def composing() -> Any:
    """The functions that compose tables: loaded with the first call, since they need Arrow."""
    from flightstore.objects import columns

    return columns


class _View:
    """What an object may ask of the store it came from."""

    __slots__ = ("_conn", "_session")

    def __init__(self, conn: Connection, session: int) -> None:
        self._conn = conn
        self._session = session

    def holders_of(self, serial: int) -> list[Holder]:
        return reports.holders(self._conn, serial)

    def departing(self, object_id: ObjectID) -> tuple[Callable[..., Object], tuple[Any, ...]]:
        identity = self._conn.control.identity
        return arrived, (self._conn.path, identity.nonce, self._session, bytes(object_id))


def arrived(path: str, nonce: bytes, session: int, object_id: bytes) -> Object:
    """An object that travelled here, got again from its store.

    Raises:
        NotAStore, StoreClosed: its store is not on this machine, or was destroyed since.
        ObjectNotFound: it was deleted since.
    """
    with connect(path, create=False) as store:
        if store._conn.control.identity.nonce != nonce:
            raise StoreClosed(
                f"the store {path} that {ObjectID(object_id)} came from was destroyed, another is there now"
            )
        store._session = session
        return store.get(ObjectID(object_id))


def _check_new(name: str | None, object_id: ObjectID | None) -> None:
    """Refuse what cannot be a new object's name or id."""
    if name is not None:
        check_name(name)
    if object_id is not None and not isinstance(object_id, ObjectID):
        raise InvalidArgument(f"object_id is an ObjectID, got {type(object_id).__name__}")


def _checked(ref: Ref) -> Ref:
    if not isinstance(ref, ObjectID):
        check_name(ref)
    return ref


def _deadline(timeout: float | None) -> float | None:
    """When (monotonic seconds) a timeout ends; None for never.

    Raises:
        InvalidArgument: it is not a number of seconds.
    """
    if timeout is None:
        return None
    if not timeout >= 0:
        raise InvalidArgument(f"a timeout of {timeout} s: give seconds, 0 not to wait, None to wait for ever")
    return time.monotonic() + timeout


_ASYNC_SLICE_S = 0.5


async def _in_thread(step: Callable[[float], T | None], timeout: float | None) -> T | None:
    """Repeat `step` (which waits a moment) in a thread until it gives a result or `timeout` has passed.

    The thread is a daemon and looks every half second whether it is still wanted: it holds up neither
    the loop, nor cancellation, nor the exit of the program.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T | None] = loop.create_future()
    unwanted = threading.Event()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    def run() -> None:
        deadline = _deadline(timeout)
        result, error = None, None
        try:
            while result is None and not unwanted.is_set():
                left = _ASYNC_SLICE_S if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                result = step(min(left, _ASYNC_SLICE_S))
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name="flightstore-wait", daemon=True).start()
    try:
        return await outcome
    finally:
        unwanted.set()
