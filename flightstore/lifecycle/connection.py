"""This process's view of one store: control page, catalog, arena and client file, shared by all its Store
handles.

There is one Connection per store and process (two LMDB environments on one file in one process would corrupt
it): lifecycle.registry sees to that, and calls the fork hooks. It owns the two ways of changing anything:

- `write(work)`: one transaction under the writers' lock;
- `exclusive(work)`: several of them, and whatever lies between, under one hold of the lock.

Both are one function each with its own ``try/finally``, because only so is the lock dropped whatever
interrupt comes when (memory.writers says why). Bells are rung after the commit and before the unlock.

Fork. Before: freeze the lease table, make the child's client file, wait for this process's transactions and
close the catalog. After, in the parent: thaw. After, in the child: take over the client file, cut builders
off, forget everything else.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import lmdb

from flightstore.catalog.environment import FULL_SHARE, Catalog
from flightstore.catalog.transaction import Counters, WriteTransaction
from flightstore.errors import (
    CatalogFull,
    NotAStore,
    StoreClosed,
    StoreDamaged,
)
from flightstore.lifecycle import layout
from flightstore.memory import kernel
from flightstore.memory.allocator import size_class
from flightstore.memory.arena import Arena, BuilderRange
from flightstore.memory.clients import Clients
from flightstore.memory.control import Control
from flightstore.memory.leases import ClientFile, LeaseTable, new_client_file

__all__ = ["Connection"]

T = TypeVar("T")
NO_ROOM = layout.NO_ROOM
_CLOSING_WAIT_S = 1.0  # who closes one store must not wait for long for threads that use another
_READER_PAUSE_S = 0.002
_NOBODY_S = 0.5  # how long pages are looked for that no reader keeps: one may have let go of them just now
_CHECK_FULL_EVERY = 32  # creates; each changes a few pages of a catalog whose last tenth is kept free
_UNDO_WAIT_S = 0.5
_EVENT_SHARE = 13  # one event, of a hundred bytes or two, for each 8 KiB of the catalog
_LEAST_EVENTS = 1024


def _weakly(method: Callable[[], T]) -> Callable[[], T]:
    """A method that does not keep its Connection alive: without cycles, what a process has mapped of a store
    goes with the last handle and view, and does not wait for the collector.
    """
    reference = weakref.WeakMethod(method)

    def call() -> T:
        bound = reference()
        if bound is None:
            raise StoreClosed("this store handle was closed", hint="connect again")
        return bound()

    return call


class Connection:
    """One store, as this process uses it. Thread-safe."""

    def __init__(self, path: str, control: Control, busy_timeout_s: float) -> None:
        identity = control.identity
        self.path = path
        self.control = control
        self.capacity_bytes = identity.capacity_bytes
        self.busy_timeout_s = busy_timeout_s
        self.mode = layout.file_mode(path)
        self.catalog = Catalog(
            os.path.join(path, "catalog"), identity.catalog_bytes, self.mode, _weakly(self._refuse_replaced)
        )
        self.arena = Arena(os.path.join(path, "arena"), identity.arena_bytes)
        self.clients = Clients(path)
        self.handles = 0
        self.builders: weakref.WeakSet[BuilderRange] = weakref.WeakSet()
        self.abandoned: deque[Callable[[WriteTransaction], object]] = deque()
        """What an interrupt or a finalizer left to be undone: the next write that commits does it first."""
        self.moving: dict[int, list[int]] = {}
        """Starts of ranges whose backing a thread of this process is changing; see lifecycle.room."""
        self.spilling: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        """Numbers of spill files that a thread of this process is writing, while it is at it: what an
        interrupt makes it forget goes by itself; see lifecycle.spilling."""
        self.policies: dict[int, Any] = {}
        """Eviction policies that this process uses, by session; see lifecycle.choosing."""
        self.verified_spills: dict[int, tuple[int, int]] = {}
        """Spill files whose checksum this process has compared: number, and inode and time of change."""
        self.borrowed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        """What this process has mapped of borrowed extents, by number; see lifecycle.lending."""
        self.batches_looked_at = 0
        """Where to look for the next batch to reclaim; see lifecycle.batch_sweep."""
        self.events_kept = max(identity.catalog_bytes >> _EVENT_SHARE, _LEAST_EVENTS)
        """How many events the log holds at least; once it is longer, some at a time are dropped."""
        self.counters: Counters | None = None
        """The counters as of this process's last commit."""
        self._creates = 0
        self._childs_file: ClientFile | None = None
        self._fork_problem: str | None = None
        self._client = 0
        self.leases = LeaseTable(_weakly(self._register), self.arena)
        kernel.register_membarrier()

    def _register(self) -> ClientFile:
        """Make this process's client file.

        Raises:
            StoreFull: the file system has no room for it.
        """
        file = self._new_client(ClientFile.sign)
        self._client = file.client
        return file

    def new_guest(self) -> ClientFile:
        """Make a client file for a process that is no client itself, and that lives for as long as it has
        `ClientFile.shared` open; see lifecycle.guests.

        Raises:
            StoreFull: the file system has no room for it.
        """
        return self._new_client(ClientFile.share)

    def _new_client(self, finish: Callable[[ClientFile], None]) -> ClientFile:
        """A client file where all others see it; gives the reserve up when the file system has no other room.

        Raises:
            StoreFull: it has no room at all.
        """
        self.refuse_destroyed()
        try:
            try:
                return self._published(lambda: new_client_file(self.path, self.mode), finish)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
            layout.give_up_reserve(self.path)
            return self._published(lambda: new_client_file(self.path, self.mode), finish)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise layout.no_room_for(self.path, "a client file") from error

    def _published(self, make: Callable[[], ClientFile], finish: Callable[[ClientFile], None]) -> ClientFile:
        """A client file where all others see it."""
        while True:
            file = make()
            try:
                finish(file)
                file.publish(os.path.join(self.clients.directory, f"{file.client:016x}"))
                return file
            except FileNotFoundError:
                # Between its making and its locking, a recovery may take a file for a dead process's.
                file.discard()
                if not os.path.isdir(self.clients.directory):
                    raise
            except BaseException:
                file.discard()
                raise

    @property
    def client(self) -> int:
        """This process's client id."""
        return self._client or self.leases.file.client

    def refuse_destroyed(self) -> None:
        """Refuse to go on once the store was destroyed.

        Raises:
            StoreClosed: it was.
        """
        if self.control.destroyed:
            raise StoreClosed(f"the store {self.path} was destroyed", hint="connect again to make a new one")

    def _refuse_replaced(self) -> None:
        """Refuse to open by path what is not this store any more: another one may have been made there.

        To open its catalog with our map size would cut it short under its users.
        """
        self.refuse_destroyed()
        identity = self.control.identity
        try:
            now = Control(self.path).identity
        except NotAStore:
            now = None
        if now != identity:
            raise StoreClosed(f"the store {self.path} was removed", hint="connect again to make a new one")
        try:
            layout.check_files(self.path, identity)
        except StoreDamaged:
            self.refuse_destroyed()  # it is being removed since we looked
            raise

    # --- changing the store ---

    def write(self, work: Callable[[WriteTransaction], T]) -> T:
        """Run `work` in one write transaction; commit, or on any exception change nothing.

        `work` may run again: a reader that lost its processor in the middle of a transaction can fill the
        catalog with old pages within milliseconds, and is waited for.

        Raises:
            StoreBusy: the lock was not to be had within ``busy_timeout_s``.
            CatalogFull: the catalog has no room for the change.
            StoreClosed: the store was destroyed.
        """
        try:
            return self._write(work)
        except CatalogFull as error:
            return self._when_pages_return(error, lambda: self._write(work))

    def exclusive(self, work: Callable[[], T]) -> T:
        """Run `work` under the writers' lock; it may call `transact` several times, and is begun again when
        the catalog had no room.
        """
        try:
            return self._exclusive(work)
        except CatalogFull as error:
            return self._when_pages_return(error, lambda: self._exclusive(work))

    def _when_pages_return(self, error: CatalogFull, again: Callable[[], T]) -> T:
        """Try again while it is not records that fill the catalog, but old pages kept for a reader that runs.

        As a rule the scheduler has only taken its turn away between two lines; meanwhile others write on, and
        in a small catalog a few hundred transactions use all pages up. Where no reader keeps any, and none
        does for a moment, the change is simply too large for the pages there are.
        """
        now = time.monotonic()
        deadline, nobody_until = now + self.busy_timeout_s, now + _NOBODY_S
        while now < min(deadline, nobody_until):
            if self.catalog.used_bytes() > self.catalog.map_bytes * FULL_SHARE:
                break
            worst = self.catalog.lagging_readers(least=1)[:1]
            if any(kernel.process_state(pid) in ("T", "t") for pid, _ in worst):
                break
            if worst:
                nobody_until = now + _NOBODY_S
            self.catalog.clear_stale_readers()
            time.sleep(_READER_PAUSE_S)  # nobody rings when a read transaction ends
            try:
                return again()
            except CatalogFull as still:
                error = still
            now = time.monotonic()
        raise error

    def _write(self, work: Callable[[WriteTransaction], T]) -> T:
        lock = self.control.lock
        lock.refuse_reentry()
        try:
            lock.acquire(self.busy_timeout_s)
            return self.transact(work)
        finally:
            lock.release()

    def _exclusive(self, work: Callable[[], T]) -> T:
        lock = self.control.lock
        lock.refuse_reentry()
        try:
            lock.acquire(self.busy_timeout_s)
            return work()
        finally:
            lock.release()

    def transact(self, work: Callable[[WriteTransaction], T]) -> T:
        """Run `work` in one write transaction. Requires the writers' lock."""
        self.refuse_destroyed()
        txn = None
        try:
            with self.catalog.gate:
                try:
                    if self.leases.frozen:  # not outside of the gate: a fork may be under way
                        self.leases.thaw()
                    txn = self.catalog.begin(write=True)
                    transaction = WriteTransaction(txn, size_class, self.events_kept)
                    undone = self._undo_abandoned(transaction) if self.abandoned else 0
                    result = work(transaction)
                    transaction.finish()
                    txn.commit()
                    for _ in range(undone):
                        self.abandoned.popleft()  # not earlier: the transaction might not have been
                finally:
                    if txn is not None:
                        txn.abort()
        except lmdb.MapFullError as error:
            self.catalog.clear_stale_readers()  # the next try may use what the dead held
            raise self.catalog_full() from error
        self._publish(transaction)
        return result

    def _undo_abandoned(self, transaction: WriteTransaction) -> int:
        """Undo what was left behind; how many, to be forgotten after the commit."""
        abandoned = list(self.abandoned)
        for undo in abandoned:
            undo(transaction)
        return len(abandoned)

    def undo(self, steps: Iterable[Callable[[WriteTransaction], object]]) -> None:
        """Undo something because of an exception that is on its way: soon, or in this process's next write.

        Does not wait long, and raises nothing of its own but interrupts.
        """
        self.abandoned.extend(steps)
        lock = self.control.lock
        if lock.held_by_this_thread():
            return
        with contextlib.suppress(Exception):
            try:
                lock.acquire(min(_UNDO_WAIT_S, self.busy_timeout_s))
                self.transact(lambda tx: None)
            finally:
                lock.release()

    def _publish(self, transaction: WriteTransaction) -> None:
        counters, control = transaction.counters, self.control
        self.counters = counters
        control.publish_usage(
            counters.used_bytes, counters.backed_bytes, counters.objects, counters.pending, counters.dying
        )
        for bell in transaction.bells:
            control.ring(bell)
        if transaction.has_events:
            control.ring(Control.EVENT_BELL)

    def check_catalog_room(self) -> None:
        """Refuse a create when the catalog is nearly full, so that deletes always fit. Requires the gate."""
        self._creates += 1
        if self._creates % _CHECK_FULL_EVERY == 1 and self.catalog.is_nearly_full():
            self._creates = 0  # look again at once next time
            raise self.catalog_full()

    def catalog_full(self) -> CatalogFull:
        """The error for a catalog that has no room."""
        size, used = self.catalog.map_bytes, self.catalog.used_bytes()
        crowded = used > size * FULL_SHARE
        lagging = [] if crowded else self.catalog.lagging_readers(least=1)[:1]
        readers = ", ".join(f"process {pid} ({behind:,} transactions behind)" for pid, behind in lagging)
        error = CatalogFull(
            f"the catalog of {self.path} is full: {used:,} of {size:,} bytes hold records"
            + (f", and old pages are kept for {readers}" if readers else ""),
            hint="resume or end that process"
            if readers
            else "delete objects, or use a store of larger capacity",
        )
        error.capacity_bytes = self.capacity_bytes
        error.catalog_bytes, error.catalog_used_bytes = size, used
        return error

    def thaw_if_possible(self) -> None:
        """Give back what was released during a fork, if the writers' lock is free."""
        lock = self.control.lock
        if lock.held_by_this_thread():
            return
        try:
            if lock.try_acquire():
                with self.catalog.gate:  # a fork may be under way: its leases stay until it is through
                    self.leases.thaw()
        finally:
            lock.release()

    # --- the end ---

    def close(self) -> bool:
        """Close what is open; True when nothing is in use any more, and this connection is at its end.

        While leases are out, the client file stays, and so its lock. At the end a thread that is still in the
        middle of something gets StoreClosed at its next look into the catalog, at the latest when it looks
        whether its lease counts.
        """
        gate = self.catalog.gate
        if gate._is_owned():  # type: ignore[attr-defined]
            return False  # in a finalizer, in the middle of a transaction of this very thread
        if not gate.acquire(timeout=_CLOSING_WAIT_S):
            return False  # transactions are short: that thread was stopped in one, or left it without its end
        try:
            self.catalog.close()
            if self.leases.in_use or self.leases.frozen:
                return False
            self.catalog.end(StoreClosed("this store handle was closed", hint="connect again"))
            self._forget_client()
            return True
        finally:
            gate.release()

    def close_at_exit(self) -> None:
        """Close what is open, as the interpreter exits: threads that still use the store end quietly.

        The exiting thread itself may go on, in exit handlers that come later.
        """
        with self.catalog.gate:
            self.catalog.close()
            self.catalog.end(SystemExit(), but_for=threading.get_ident())
            if not self.leases.in_use and not self.leases.frozen:
                self._forget_client()

    def _forget_client(self) -> None:
        """Remove the client file; should there be another lease after all, it gets a new one. Requires the
        gate.
        """
        leases, self.leases = self.leases, LeaseTable(_weakly(self._register), self.arena)
        self._client = 0
        if leases.has_file:
            leases.file.discard()

    # --- fork ---

    def before_fork(self) -> None:
        """In the parent, before: no transaction runs, no catalog is open, the child's leases are written.

        The gate comes first. From then on no other thread finishes a get, which would give the child a view
        that the copy of the leases does not know; and none thaws before the fork.
        """
        self.catalog.gate.acquire()
        self.leases.freeze()
        self.catalog.close()
        # What a destroyed store held is never reused: its views need no protection in the child either.
        wanted = self.leases.in_use and not self.control.destroyed
        if wanted:
            self._copy_leases()

    def _copy_leases(self) -> None:
        """Make the child's client file; gives the reserve up when the file system has no other room.

        Without a file of its own the child is protected by ours, as long as we live and stay frozen.
        """
        for last in (False, True):
            try:
                self._childs_file = self._published(
                    lambda: self.leases.copy_for_child(self.path, self.mode), lambda unsigned: None
                )
                return
            except OSError as error:
                if last or error.errno not in NO_ROOM:
                    self.leases.freeze_for_good()
                    self._fork_problem = f"no client file for a forked child of {self.path}: {error}"
                    return
                layout.give_up_reserve(self.path)

    def after_fork_in_parent(self) -> str | None:
        """In the parent, after: go on. Returns what the user should be warned of."""
        self.catalog.gate.release()
        if self._childs_file is not None:
            self._childs_file.close()  # the child's copy of the descriptor keeps the lock
            self._childs_file = None
        self.thaw_if_possible()
        problem, self._fork_problem = self._fork_problem, None
        return problem

    def after_fork_in_child(self) -> None:
        """In the child: stand on own feet; nothing of the parent's is touched."""
        childs_file, self._childs_file = self._childs_file, None
        if self.leases.has_file:
            self.leases.file.close()  # the parent holds its own descriptor, and so the lock
        self.catalog.abandon_after_fork()
        self.clients.reset_after_fork()
        self.abandoned.clear()
        self.moving.clear()
        self.spilling.clear()
        self.leases.adopt(childs_file)
        self._client = childs_file.client if childs_file else 0
        if childs_file is None:
            # Leases of threads that have vanished keep the old table.
            self.leases = LeaseTable(_weakly(self._register), self.arena)
        else:
            childs_file.sign()
        for builder in list(self.builders):
            builder.freeze()
        with contextlib.suppress(OSError):
            kernel.register_membarrier()
