"""The log of events, read: what happened in a store, in the order of the commits.

Events are written by the transactions that they tell of (`WriteTransaction.note`), so the log is as true as
the catalog itself, and numbers have no gaps. The one event without a transaction of its own is *full*, which
is recorded here.

A `Tail` follows the log. It reads some hundred events in a short read transaction and hands them out from
memory; when it has handed out all it sleeps on the bell, at most a second, because a writer can die between
its commit and the bell. What it has read and how far it has come are replaced together, by one assignment: an
interrupt, or a thread that nobody waits for any more, neither loses an event nor brings one twice.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from flightstore.catalog import keys
from flightstore.catalog.scopes import ADDED, DELETED, FULL, SPILLED, EventRecord, decode_event
from flightstore.catalog.transaction import decode_counters
from flightstore.errors import EventsMissed, FlightStoreError, InvalidArgument, StoreClosed
from flightstore.lifecycle.connection import Connection
from flightstore.memory.alarm import Alarm
from flightstore.memory.control import Control
from flightstore.types import Event, ObjectID

__all__ = ["KINDS", "Selection", "Tail", "latest", "record_full"]

KINDS = {ADDED: "added", DELETED: "deleted", SPILLED: "spilled", FULL: "full"}
"""What the kinds of events are called."""
_PAGE_EVENTS = 256  # read in one transaction: bounds how long it keeps old pages of the catalog
_RECORD_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events somebody wants."""

    pattern: str | ObjectID | None = None
    """A shell pattern for names, or an id; None for all."""
    kinds: frozenset[str] = frozenset(KINDS.values())
    """Which kinds."""

    @classmethod
    def of(cls, pattern: str | ObjectID | None, kinds: Iterable[str] | None) -> Selection:
        """What the arguments mean.

        Raises:
            InvalidArgument: they mean nothing.
        """
        if pattern is not None and not isinstance(pattern, str | ObjectID):
            raise InvalidArgument(f"a pattern is a str or an ObjectID, got {type(pattern).__name__}")
        if kinds is None:
            return cls(pattern)
        wanted = frozenset([kinds] if isinstance(kinds, str) else kinds)
        if unknown := wanted - set(KINDS.values()):
            raise InvalidArgument(
                f"there are no events of the kind {sorted(map(str, unknown))[0]!r}",
                hint=f"the kinds are {', '.join(KINDS.values())}",
            )
        return cls(pattern, wanted)

    def takes(self, event: Event) -> bool:
        """Whether it is one of them."""
        if event.kind not in self.kinds:
            return False
        if self.pattern is None:
            return True
        if isinstance(self.pattern, ObjectID):
            return event.id == self.pattern
        return event.name is not None and fnmatch.fnmatchcase(event.name, self.pattern)


# --- the log ---


@dataclass(frozen=True, slots=True)
class _Extract:
    """A part of the log, as of one moment."""

    first_kept: int
    next_event: int
    records: list[tuple[int, EventRecord]]


def _extract(conn: Connection, after: int, most: int) -> _Extract:
    """The log's bounds and the events behind number `after`, oldest first, at most so many."""
    conn.refuse_destroyed()
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            counters = decode_counters(txn.get(keys.COUNTERS))
            start = max(after + 1, counters.first_event)
            count = max(min(counters.next_event - start, most), 0)
            cursor = txn.cursor()
            cursor.set_range(keys.event_key(start))
            raws = list(itertools.islice(cursor.iternext(keys=False), count)) if count else []
        finally:
            txn.abort()
    records = [(number, decode_event(raw)) for number, raw in enumerate(raws, start)]
    return _Extract(counters.first_event, counters.next_event, records)


def latest(conn: Connection) -> int:
    """Number of the latest event; 0 when there was none yet."""
    return _extract(conn, 0, 0).next_event - 1


def _event(number: int, record: EventRecord) -> Event:
    object_id = ObjectID(record.id) if record.id else None
    return Event(number, KINDS[record.kind], object_id, record.name, record.nbytes, record.time_ns)


def record_full(conn: Connection, session: int, nbytes: int) -> None:
    """Record that a create of so many bytes found no room; not where the catalog has none for that either.

    Raises nothing of its own, and waits hardly for other writers: an error is on its way.
    """
    lock = conn.control.lock
    if lock.held_by_this_thread():
        return
    event = EventRecord(FULL, session, b"", None, nbytes, time.time_ns())
    with contextlib.suppress(FlightStoreError):
        try:
            lock.acquire(min(_RECORD_WAIT_S, conn.busy_timeout_s))
            conn.transact(lambda tx: tx.add_event(event))
        finally:
            lock.release()


# --- following it ---


@dataclass(slots=True)
class _Page:
    """What was read and not handed out yet, and how far that goes."""

    scanned: int
    """Everything up to this number was read."""
    events: deque[Event] = field(default_factory=deque)
    """What is wanted of it."""
    missed: EventsMissed | None = None
    """To be raised before anything else."""


class Tail:
    """Follows the log: each event that is wanted, once. Thread-safe; of no use in a forked child."""

    def __init__(
        self, conn: Connection, session: int, selection: Selection, since: int | None = None
    ) -> None:
        """Begin behind event `since`; 0 for the oldest that is kept, None for what happens from now on.

        Raises:
            InvalidArgument: no event has that number yet.
        """
        self._conn = conn
        self._session = session
        self._selection = selection
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._alarm = Alarm()
        # With 0, what is kept at this moment is read at once: the next commit may drop some of it.
        now = _extract(conn, 0, _PAGE_EVENTS if since == 0 else 0)
        if since is None:
            self._page = _Page(now.next_event - 1)
        elif not isinstance(since, int) or not 0 <= since < now.next_event:
            raise InvalidArgument(
                f"since={since!r}: the latest event of {conn.path} has the number {now.next_event - 1}",
                hint="give the number of an event of this very store, or 0 for all that are kept",
            )
        else:
            self._page = _Page(since) if since or not now.records else self._read(now)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._alarm.is_rung

    @property
    def position(self) -> int:
        """Everything up to this number was handed out, or is not wanted."""
        page = self._page
        try:
            return page.events[0].number - 1
        except IndexError:
            return page.scanned

    def close(self) -> None:
        """End it, for those who wait too. Takes no lock."""
        self._alarm.ring()

    def next(self, deadline: float | None) -> Event | None:
        """The next event; None when there is none until `deadline` (monotonic), or it was closed.

        Raises:
            EventsMissed: once; then it goes on at the oldest that is kept.
        """
        while self.wait(deadline):
            event = self.take()
            if event is not None or self.closed:
                return event
        return None

    def take(self) -> Event | None:
        """An event that was read already; None when there is none, or when it is closed. Raises as `next`."""
        if self.closed:
            return None
        with self._lock:
            page = self._page
            if page.missed is not None:
                self._page = _Page(page.scanned)
                raise page.missed
            return page.events.popleft() if page.events else None

    def wait(self, deadline: float | None) -> bool:
        """Wait until `take` has something, or it is closed; False when the time is over. Looks at least once.

        Raises:
            StoreClosed: the store was destroyed.
        """
        self._refuse_elsewhere()
        control = self._conn.control
        while True:
            seen = control.bell(Control.EVENT_BELL)
            try:
                if self.closed or self._look():
                    return True
            except StoreClosed:
                if self.closed:  # by the handle that it belongs to, with all else
                    return True
                raise
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._alarm.sleep(control, Control.EVENT_BELL, seen, left)

    def _look(self) -> bool:
        """Read on until there is something that is wanted; False when the log has no more."""
        with self._lock:
            while not self._page.events and self._page.missed is None:
                after = self._page.scanned
                extract = _extract(self._conn, after, _PAGE_EVENTS)
                if after + 1 < extract.first_kept:
                    self._page = _Page(extract.first_kept - 1, missed=_missed(self._conn, after, extract))
                elif not extract.records:
                    return False
                elif not self.closed:
                    self._page = self._read(extract)
                else:
                    return True
            return True

    def _read(self, extract: _Extract) -> _Page:
        ours = (_event(*pair) for pair in extract.records if pair[1].session == self._session)
        return _Page(extract.records[-1][0], deque(event for event in ours if self._selection.takes(event)))

    def _refuse_elsewhere(self) -> None:
        """Refuse to go on in a forked child: another thread may have been in the middle of it."""
        if self._pid != os.getpid():
            raise FlightStoreError(
                f"this subscription to {self._conn.path} belongs to process {self._pid}",
                hint=f"subscribe again in the child, with since={self.position} to go on where it was",
            )


def _missed(conn: Connection, after: int, extract: _Extract) -> EventsMissed:
    missed, kept = extract.first_kept - 1 - after, extract.next_event - extract.first_kept
    error = EventsMissed(
        f"you missed {missed:,} events of {conn.path}, {kept:,} are still kept",
        hint="look at the store for what you need of them, and iterate again to go on with those kept",
    )
    error.missed, error.first_kept = missed, extract.first_kept
    return error
