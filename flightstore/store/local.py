"""The store on this machine."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flightstore import config
from flightstore.abc import AbstractStore
from flightstore.catalog.records import FLAG_EVICTABLE
from flightstore.errors import InvalidArgument
from flightstore.lifecycle import (
    building,
    freeing,
    fsck,
    layout,
    reading,
    recovery,
    reports,
    sealing,
    spilling,
)
from flightstore.lifecycle.choosing import Policy
from flightstore.lifecycle.registry import connection_for, release_connection
from flightstore.lifecycle.sealing import NewObject, new_object
from flightstore.objects.base import Object
from flightstore.objects.registry import encode
from flightstore.store.attached import check_new, deadline_of, listed
from flightstore.store.batches import Batching
from flightstore.store.borrowing import Borrowing
from flightstore.store.composing import Composing
from flightstore.store.events import Subscribing
from flightstore.store.keeping import Keeping
from flightstore.store.sessions import Sessions
from flightstore.store.streaming import Streaming
from flightstore.store.waiting import in_thread
from flightstore.types import Holder, ObjectID, ObjectInfo, RecoverReport, Ref, StoreStats

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.lifecycle.tablebuilding import TableBuilder

__all__ = ["Store", "connect"]


def connect(
    target: str | os.PathLike[str] | None = None,
    *,
    capacity: int | str | None = None,
    create: bool = True,
    busy_timeout: float | None = None,
    spill: str | os.PathLike[str] | None = None,
    policy: str | Policy | None = None,
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
        spill: URL or directory of the storage that objects are spilled to when memory is short, as
            :meth:`Store.set_spill` sets it, for all clients and for good; None leaves what is set. A new
            store takes FLIGHTSTORE_SPILL, if that is set.
        policy: In which order this process evicts and spills; see :meth:`Store.set_policy`.

    Raises:
        NotAStore, StoreAccessDenied, StoreDamaged, StoreVersionMismatch, WrongPidNamespace, StoreFull,
        InvalidArgument: what they say.
    """
    asked = config.parse_bytes(capacity) if capacity is not None else None
    path = os.path.realpath(os.fspath(target) if target is not None else config.default_directory())
    for_new = asked if asked is not None else config.configured_capacity()
    is_new = layout.ensure_store(path, for_new, create=create)
    conn = connection_for(path, busy_timeout)
    if asked is not None and layout.rounded_capacity(asked) != conn.capacity_bytes:
        actual = conn.capacity_bytes
        release_connection(conn)
        raise InvalidArgument(
            f"the store {path} has a capacity of {actual:,} bytes, not {asked:,}",
            hint="connect without capacity=, or destroy the store and make it anew",
        )
    store = Store(conn)
    try:
        wanted = os.fspath(spill) if spill is not None else config.configured_spill() if is_new else None
        if wanted is not None and wanted != store.spill_url:
            store.set_spill(wanted)
        if policy is not None:
            store.set_policy(policy)
    except BaseException:
        store.close()
        raise
    return store


class Store(Borrowing, Composing, Streaming, Keeping, Sessions, Batching, Subscribing, AbstractStore):
    """A store in shared memory on this machine. Made by :func:`connect`; thread-safe, and usable
    on both sides of a fork.

    ``str`` arguments are names, :class:`ObjectID` ones are ids. Handles are cheap; closing
    one leaves objects and views got through it valid.
    """

    # --- putting ---

    def put(
        self,
        value: Any,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        pickle: bool = True,
        evictable: bool = False,
        timeout: float | None = 0,
    ) -> ObjectID:
        conn = self._conn
        new = self._new(value, name, object_id, metadata, pickle, evictable)
        sealing.put(conn, (new,), deadline_of(timeout))
        return new.id

    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[Any],
        *,
        pickle: bool = True,
        evictable: bool = False,
        timeout: float | None = 0,
    ) -> list[ObjectID]:
        conn = self._conn
        pairs: Iterable[tuple[str | None, Any]]
        pairs = values.items() if isinstance(values, Mapping) else ((None, value) for value in values)
        objects = [self._new(value, name, None, None, pickle, evictable) for name, value in pairs]
        if objects:
            sealing.put(conn, objects, deadline_of(timeout))
        return [new.id for new in objects]

    def _new(
        self,
        value: Any,
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
        pickle: bool,
        evictable: bool,
    ) -> NewObject:
        check_new(name, object_id)
        new = new_object(self._session, encode(value, pickle=pickle), name, object_id, metadata)
        new.batch = self._current
        if evictable:
            new.flags = FLAG_EVICTABLE
        return new

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
        return building.Builder(conn, self._blob(nbytes, name, object_id, metadata), deadline_of(timeout))

    def create_now(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
    ) -> building.Builder:
        conn = self._conn
        new = self._blob(nbytes, name, object_id, metadata)
        new.may_spill = False
        return building.Builder(conn, new, deadline_of(0))

    def _blob(self, nbytes: int, name: str | None, object_id: ObjectID | None, metadata: Any) -> NewObject:
        check_new(name, object_id)
        new = new_object(self._session, building.blob_payload(nbytes), name, object_id, metadata)
        new.batch = self._current
        return new

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
        check_new(name, object_id)
        deadline = deadline_of(timeout)
        return TableBuilder(
            conn, self._session, schema, num_rows, name, object_id, metadata, deadline, self._current
        )

    def abort(self, ref: ObjectID) -> bool:
        return sealing.abort(self._conn, self._session, ref)

    # --- getting ---

    def get_many(self, refs: Iterable[Ref], *, timeout: float | None = 0) -> list[Object]:
        conn, wanted = self._conn, list(refs)
        deadline = deadline_of(timeout)
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
        acquired = reading.acquire(conn, session, ref) or await in_thread(
            lambda slice_s: reading.wait_for(conn, session, ref, deadline_of(slice_s)), timeout
        )
        if acquired is None:
            raise reading.not_found(conn, ref, timeout)
        return self._open(conn, acquired)

    def contains(self, ref: Ref) -> bool:
        return reading.lookup(self._conn, self._session, ref) is not None

    def wait(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        wanted = list(refs)
        needed = len(wanted) if num_ready is None else num_ready
        if not 0 <= needed <= len(wanted):
            raise InvalidArgument(f"num_ready is {needed}, of {len(wanted)} references")
        flags = reading.wait_among(self._conn, self._session, wanted, needed, deadline_of(timeout))
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

        result = step(0) or await in_thread(step, timeout)
        return result if result is not None else self.wait(wanted, num_ready=needed, timeout=0)

    # --- deleting ---

    def delete(self, refs: Ref | Iterable[Ref], *, if_unused: bool = False) -> int:
        work = freeing.delete_unused if if_unused else freeing.delete
        return work(self._conn, self._session, listed(refs))

    # --- looking ---

    def list(self, pattern: str | None = None) -> list[ObjectInfo]:
        return reports.list_objects(self._conn, self._session, pattern)

    def stat(self, ref: Ref) -> ObjectInfo:
        conn = self._conn
        found = reading.lookup(conn, self._session, ref)
        if found is None:
            raise reading.not_found(conn, ref, None)
        return reports.info(conn, self._session, *found, conn.clients.counts())

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
        return reports.holders(conn, found[1].serial)

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
            self._end_subscriptions()
            release_connection(conn)

    def destroy(self) -> None:
        conn = self._conn
        path = conn.path
        urls = spilling.storage_urls(conn)

        def mark() -> None:
            conn.refuse_destroyed()  # else two at once could remove the store that a third made in between
            conn.control.mark_destroyed()

        conn.exclusive(mark)
        self.close()
        spilling.remove_all_files(conn.control.identity.nonce, urls)
        layout.remove_store(path, conn.control.identity.nonce)

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()

    def __repr__(self) -> str:
        conn = self._connection
        return f"<Store {conn.path if conn else 'closed'}>"
