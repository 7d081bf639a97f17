"""The part of a remote store that tells what happens in it: by asking, again and again, for what is new.

A request waits at the gateway for an event, for two seconds at most, so a subscription that is closed ends
its waiter within that. What was received and how far it goes are replaced together, as in lifecycle.events:
an interrupt neither loses an event nor brings one twice.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flightstore.abc.events import AbstractSubscribing, EventCallback, Subscription
from flightstore.errors import EventsMissed, FlightStoreError, GatewayBusy, GatewayUnreachable, StoreClosed
from flightstore.lifecycle.callbacks import Callbacks
from flightstore.lifecycle.events import Selection
from flightstore.remote.attached import Attached
from flightstore.store.attached import deadline_of
from flightstore.store.events import TailSubscription
from flightstore.types import Event, ObjectID
from flightstore.wire import messages as m

__all__ = ["Subscribing"]

_SLICE_S = 2.0
_LIMIT = 256
_RETRY_S = 1.0


class _Page(NamedTuple):
    """What was received and not handed out yet, and how far that goes."""

    scanned: int
    events: deque[Event]
    missed: EventsMissed | None


class RemoteTail:
    """Follows a gateway's log: each event that is wanted, once. Thread-safe; of no use in a forked child."""

    def __init__(self, store: Attached, selection: Selection, since: int | None, *, patient: bool) -> None:
        """`patient`: while the gateway cannot be reached, wait for it instead of raising."""
        self._shared = store._shared
        self._session_text = store.session_text
        self._patient = patient
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        pattern = selection.pattern
        everything = Selection().kinds
        self._request = m.FollowEvents(
            since=since,
            pattern=None if pattern is None else m.text_of(pattern),
            kinds=None if selection.kinds == everything else sorted(selection.kinds),
            limit=_LIMIT,
        )
        self._page = self._asked(0)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed.is_set()

    @property
    def position(self) -> int:
        """Everything up to this number was handed out, or is not wanted."""
        page = self._page
        try:
            return page.events[0].number - 1
        except IndexError:
            return page.scanned

    def close(self) -> None:
        """End it, for those who wait too."""
        self._closed.set()

    def next(self, deadline: float | None) -> Event | None:
        """The next event; None when there is none until `deadline` (monotonic), or it was closed.

        Raises:
            EventsMissed: once; then it goes on at the oldest that is kept.
            GatewayUnreachable: what it says; the next call goes on where it was.
        """
        while self.wait(deadline):
            event = self.take()
            if event is not None or self.closed:
                return event
        return None

    def take(self) -> Event | None:
        """An event that was received already; None when there is none. Raises as `next`."""
        if self.closed:
            return None
        page = self._page
        if page.missed is not None:
            self._page = _Page(page.scanned, page.events, None)
            raise page.missed
        try:
            return page.events.popleft()
        except IndexError:
            return None

    def wait(self, deadline: float | None) -> bool:
        """Wait until `take` has something, or it is closed; False when the time is over."""
        self._refuse_elsewhere()
        while not self.closed:
            left = _SLICE_S if deadline is None else max(deadline - time.monotonic(), 0.0)
            if self._look(min(left, _SLICE_S)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def _look(self, wait_s: float) -> bool:
        """Ask for more, unless there is something; whether there is then."""
        with self._lock:
            page = self._page
            if page.events or page.missed is not None:
                return True
            self._request.since = page.scanned
            try:
                self._page = page = self._asked(wait_s)
            except (GatewayUnreachable, GatewayBusy):
                if not self._patient:
                    raise
                self._closed.wait(_RETRY_S)
            return bool(page.events or page.missed is not None)

    def _asked(self, wait_s: float) -> _Page:
        self._request.timeout_s = wait_s
        raw = self._shared.transport.act(
            "events", m.encode(self._request), session=self._session_text, wait_s=wait_s
        )
        reply = m.decode(raw, m.Events)
        missed = _missed(self._shared.url, reply) if reply.missed else None
        return _Page(reply.position, deque(_event(one) for one in reply.events), missed)

    def _refuse_elsewhere(self) -> None:
        if self._pid != os.getpid():
            raise FlightStoreError(
                f"this subscription to {self._shared.url} belongs to process {self._pid}",
                hint=f"subscribe again in the child, with since={self.position} to go on where it was",
            )


def _event(record: dict[str, Any]) -> Event:
    text = record["id"]
    return Event(**{**record, "id": None if text is None else ObjectID.from_text(text)})


def _missed(url: str, reply: m.Events) -> EventsMissed:
    error = EventsMissed(
        f"you missed {reply.missed:,} events of {url}",
        hint="look at the store for what you need of them, and iterate again to go on with those kept",
    )
    error.missed, error.first_kept = reply.missed, reply.position + 1
    return error


class Subscribing(Attached, AbstractSubscribing):
    """subscribe, on_added, on_deleted, on_spilled, on_full."""

    def __init__(self) -> None:
        self._subscriptions: weakref.WeakSet[RemoteTail] = weakref.WeakSet()
        self._callbacks: Callbacks | None = None

    def subscribe(
        self,
        pattern: str | ObjectID | None = None,
        *,
        since: int | None = None,
        kinds: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        deadline_of(timeout)
        tail = RemoteTail(self, Selection.of(pattern, kinds), since, patient=False)
        subscription = TailSubscription(self, tail, timeout)
        with self._closing:
            if self._shared_or_none is None:
                raise StoreClosed("this store handle was closed", hint="connect again")
            self._subscriptions.add(tail)
        return subscription

    def on_added(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None = None
    ) -> EventCallback:
        return self._call(function, pattern, "added")

    def on_deleted(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None = None
    ) -> EventCallback:
        return self._call(function, pattern, "deleted")

    def on_spilled(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None = None
    ) -> EventCallback:
        return self._call(function, pattern, "spilled")

    def on_full(self, function: Callable[[Event], object]) -> EventCallback:
        return self._call(function, None, "full")

    def _call(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None, kind: str
    ) -> EventCallback:
        selection = Selection.of(pattern, [kind])
        shared, source = self._shared, weakref.proxy(self)

        def latest() -> int:
            request = m.encode(m.FollowEvents(limit=1))
            reply = shared.transport.act("events", request, session=source.session_text)
            return m.decode(reply, m.Events).position

        with self._closing:
            if self._callbacks is None or not self._callbacks.is_ours:
                self._callbacks = Callbacks(
                    latest, lambda after: RemoteTail(source, Selection(), after, patient=True)
                )
            callbacks = self._callbacks
        callback = callbacks.add(function, selection)
        if self._shared_or_none is None:
            callbacks.close()
            raise StoreClosed("this store handle was closed", hint="connect again")
        return callback

    def _end_subscriptions(self) -> None:
        """End what this handle follows. The handle is closed already, so there will be no more."""
        for tail in list(self._subscriptions):
            tail.close()
        if self._callbacks is not None:
            self._callbacks.close()
