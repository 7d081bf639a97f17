"""The queue of creates that wait for room: first come, first served.

A create that may wait takes a *ticket* when its first attempt finds no room, or when others wait already.
From then on only the first in the queue tries to make room and to take it; the others sleep on the bell of
room and look, some twenty times a second, whether it is their turn. A create that does not wait never queues:
it takes what is free at that moment, or fails.

Who cannot go on must not hold the others up:

- what belongs to a put that has room for a part already does not queue: the others may be waiting for just
  that part;
- a ticket whose client is dead, or whose time was over long ago, is removed by whoever comes upon it (and by
  recovery);
- one whose process is stopped is *passed over* after a second, and first again once its process goes on.

The ticket is recorded in a transaction, and the step that removes it is noted within that transaction, before
the commit. Whatever ends the wait hands that step to `Connection.abandoned` in a C function, so that no
interrupt comes in between (memory.writers explains that), and then carries it out. A ticket is removed only
when its record is exactly as its owner wrote it: one that came to nothing may be somebody else's by now.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import encode_record
from flightstore.catalog.scopes import WaiterRecord, decode_waiter
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import CatalogFull, StoreFull
from flightstore.lifecycle.connection import Connection
from flightstore.memory import kernel
from flightstore.memory.control import Control

__all__ = ["Place", "drop_waiters"]

_POLL_S = 0.05  # nobody rings when a process stops, or dies
_STOPPED_S = 1.0  # so long a stopped process keeps its turn
_OVERDUE_S = 1.0


class Place:
    """Where one create stands: nowhere, or in the queue with its ticket."""

    def __init__(self, conn: Connection, nbytes: int, deadline: float | None, *, queues: bool) -> None:
        self.nbytes = nbytes
        """What it needs room for."""
        self.deadline = deadline
        """When its time is over, on the monotonic clock; None for never."""
        self.queues = queues
        """Whether it waits, and so queues."""
        self._conn = conn
        self._pid = os.getpid()
        self._ticket = 0
        self._passed: frozenset[int] = frozenset()
        """Tickets before ours whose processes do not go on, as of our latest look."""
        self._stopped_since: dict[int, float] = {}
        self._stay: object = None
        self._steps: list[Callable[[WriteTransaction], object]] = []
        self.abandon: Callable[[], None] = functools.partial(conn.abandoned.extend, self._steps)
        """Leave what is to be undone to the next write: the C function itself, for a ``finally``."""

    def admits(self, tx: WriteTransaction) -> bool:
        """Whether the create may take room in this transaction: nobody waits that came before it."""
        if not self.queues or not tx.counters.waiting:
            return True
        self._forget_after_fork()
        for key, _ in scan(tx.txn, keys.WAITER):
            ticket = _ticket_of(key)
            if ticket == self._ticket:
                return True
            if ticket not in self._passed:
                return False
        return False

    def leave(self, tx: WriteTransaction) -> None:
        """The create has what it waited for, once this transaction is committed."""
        for step in self._steps:
            step(tx)

    def done(self) -> None:
        """That transaction was committed."""
        self._steps.clear()

    def settle(self) -> None:
        """The wait is over: carry out now what was left to the next write."""
        if self._steps:
            self._conn.undo(())
        self._stay = None  # not later: an error keeps this object alive, with its traceback

    def wait_for_turn(self) -> bool:
        """Queue, if the create may wait, until it is the first; False when its time is over before that."""
        if not self.queues:
            return True
        control = self._conn.control
        while True:
            seen = control.bell(Control.ROOM_BELL)
            self._forget_after_fork()
            if not self._ticket:
                self._queue()
            if self._is_first():
                return True
            left = _POLL_S if self.deadline is None else self.deadline - time.monotonic()
            if left <= 0:
                return False
            control.sleep(Control.ROOM_BELL, seen, min(left, _POLL_S))

    def explain(self, error: StoreFull) -> None:
        """Say in an error how many creates wait ahead of this one."""
        if isinstance(error, CatalogFull):
            return
        tickets = [ticket for ticket, _, _ in _waiters(self._conn)]
        ahead = sum(ticket < self._ticket for ticket in tickets) if self._ticket else len(tickets)
        if ahead:
            error.waiting_ahead = ahead
            error.message += f"; {ahead:,} {'creates wait' if ahead > 1 else 'create waits'} ahead of it"

    def _queue(self) -> None:
        """Take a ticket."""
        conn = self._conn
        if self._stay is None:
            self._stay = conn.leases.stay()  # the ticket is good as long as our client file is there
        until_s = 0.0
        if self.deadline is not None:
            until_s = self.deadline - time.monotonic() + conn.busy_timeout_s + _OVERDUE_S
        conn.write(lambda tx: self._record(tx, until_s))

    def _record(self, tx: WriteTransaction, until_s: float) -> None:
        now_ns = time.time_ns()
        until_ns = _clock_ns() + int(until_s * 1e9) if until_s else 0
        raw = encode_record(WaiterRecord(self._conn.client, os.getpid(), self.nbytes, now_ns, until_ns))
        ticket = self._ticket = tx.counters.next_ticket
        self._steps[:] = [_removing(ticket, raw)]  # before the commit, and of no effect should it not come
        tx.counters.next_ticket = ticket + 1
        tx.counters.waiting += 1
        tx.txn.put(keys.waiter_key(ticket), raw)

    def _is_first(self) -> bool:
        """Look whether it is our turn; removes tickets that are nobody's any more."""
        passed: set[int] = set()
        gone: list[tuple[int, bytes]] = []
        first = found = False
        for ticket, raw, record in _waiters(self._conn):
            if ticket == self._ticket:
                first = found = True
                break
            if _is_gone(self._conn, record):
                gone.append((ticket, raw))
            elif self._goes_on(ticket, record):
                found = True  # further behind: not of interest
                break
            passed.add(ticket)
        if gone:
            self._conn.write(lambda tx: _remove_all(tx, gone))
        if not found:
            self._ticket = 0  # taken for nobody's: take another one
            self._steps.clear()
        self._passed = frozenset(passed)
        return first

    def _goes_on(self, ticket: int, record: WaiterRecord) -> bool:
        """Whether a living waiter keeps its turn: not when it has been stopped for a second."""
        if record.pid == self._pid or kernel.process_state(record.pid) not in ("T", "t"):
            self._stopped_since.pop(ticket, None)
            return True
        now = time.monotonic()
        return now - self._stopped_since.setdefault(ticket, now) < _STOPPED_S

    def _forget_after_fork(self) -> None:
        """In a forked child: the ticket is the parent's."""
        if self._pid != os.getpid():
            self._pid, self._ticket, self._stay = os.getpid(), 0, None
            self._steps.clear()


def _clock_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _ticket_of(key: bytes) -> int:
    return int.from_bytes(key[1:], "big")


def _waiters(conn: Connection) -> list[tuple[int, bytes, WaiterRecord]]:
    """Everybody in the queue, the first one first: ticket, record as stored, record."""
    return [(_ticket_of(key), raw, decode_waiter(raw)) for key, raw in conn.catalog.items(keys.WAITER)]


def _is_gone(conn: Connection, record: WaiterRecord) -> bool:
    """Whether nobody waits with this ticket any more."""
    if record.until_ns and _clock_ns() > record.until_ns:
        return True
    return record.client != conn.client and not conn.clients.lives(record.client)


def _removing(ticket: int, raw: bytes) -> Callable[[WriteTransaction], object]:
    """What removes our ticket, in this process only, and keeps nothing alive."""
    pid = os.getpid()

    def step(tx: WriteTransaction) -> None:
        if os.getpid() == pid:
            _remove(tx, ticket, raw)

    return step


def _remove(tx: WriteTransaction, ticket: int, raw: bytes) -> None:
    """Remove a ticket if it is still the one that was meant, and let the next one look."""
    key = keys.waiter_key(ticket)
    if tx.txn.get(key) == raw:
        tx.txn.delete(key)
        tx.counters.waiting -= 1
        if tx.counters.waiting:
            tx.ring(Control.ROOM_BELL)


def _remove_all(tx: WriteTransaction, gone: Iterable[tuple[int, bytes]]) -> None:
    for ticket, raw in gone:
        _remove(tx, ticket, raw)


def drop_waiters(tx: WriteTransaction, living: Iterable[int]) -> int:
    """Remove the tickets of dead clients; returns how many."""
    clients = set(living)
    dead = [
        (_ticket_of(key), raw)
        for key, raw in tx.records(keys.WAITER)
        if decode_waiter(raw).client not in clients
    ]
    _remove_all(tx, dead)
    return len(dead)
