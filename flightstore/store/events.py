"""The part of the facade that tells what happens in the store."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol

from flightstore.abc.events import AbstractSubscribing, EventCallback, Subscription
from flightstore.errors import StoreClosed
from flightstore.lifecycle.callbacks import Callbacks
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.events import Selection, Tail, latest
from flightstore.store.attached import Attached, deadline_of
from flightstore.store.waiting import in_thread
from flightstore.types import Event, ObjectID

__all__ = ["Subscribing", "TailSubscription"]


class _Tail(Protocol):
    """A `Tail`, or what does the same over a network."""

    @property
    def closed(self) -> bool: ...
    @property
    def position(self) -> int: ...
    def next(self, deadline: float | None) -> Event | None: ...
    def wait(self, deadline: float | None) -> bool: ...
    def take(self) -> Event | None: ...
    def close(self) -> None: ...


class TailSubscription(Subscription):
    """A subscription, over what follows the log; keeps the handle that it was made with."""

    def __init__(self, store: AbstractSubscribing, tail: _Tail, timeout: float | None) -> None:
        deadline_of(timeout)  # refuses what is no time
        self._store = store
        self._tail = tail
        self._timeout = timeout

    def poll(self, timeout: float | None = 0) -> Event | None:
        return self._tail.next(deadline_of(timeout))

    @property
    def position(self) -> int:
        return self._tail.position

    def close(self) -> None:
        self._tail.close()

    def __next__(self) -> Event:
        event = self._tail.next(deadline_of(self._timeout))
        if event is None:
            raise StopIteration
        return event

    async def __anext__(self) -> Event:
        tail, deadline = self._tail, deadline_of(self._timeout)
        while not tail.wait(time.monotonic()):
            left = None if deadline is None else deadline - time.monotonic()
            # The thread only waits: what it finds is taken here, so a wait that is cancelled loses nothing.
            if left is not None and left <= 0:
                raise StopAsyncIteration
            await in_thread(lambda slice_s: tail.wait(deadline_of(slice_s)) or None, left)
        event = tail.take()
        if event is not None:
            return event
        if tail.closed:
            raise StopAsyncIteration
        return await self.__anext__()  # somebody else was faster


class Subscribing(Attached, AbstractSubscribing):
    """subscribe, on_added, on_deleted, on_spilled, on_full."""

    def __init__(self, conn: Connection, session: int = 0) -> None:
        self._subscriptions: weakref.WeakSet[Tail] = weakref.WeakSet()
        self._callbacks: Callbacks | None = None
        super().__init__(conn, session)  # last: from here on there is something to close

    def subscribe(
        self,
        pattern: str | ObjectID | None = None,
        *,
        since: int | None = None,
        kinds: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        tail = Tail(self._conn, self._session, Selection.of(pattern, kinds), since)
        subscription = TailSubscription(self, tail, timeout)
        with self._closing:
            if self._connection is None:
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
        conn, selection = self._conn, Selection.of(pattern, [kind])
        with self._closing:
            if self._callbacks is None or not self._callbacks.is_ours:
                session = self._session
                self._callbacks = Callbacks(
                    lambda: latest(conn), lambda after: Tail(conn, session, Selection(), after)
                )
            callbacks = self._callbacks
        callback = callbacks.add(function, selection)
        if self._connection is None:
            callbacks.close()
            raise StoreClosed("this store handle was closed", hint="connect again")
        return callback

    def _end_subscriptions(self) -> None:
        """End what this handle follows. The handle is closed already, so there will be no more."""
        for tail in list(self._subscriptions):
            tail.close()
        if self._callbacks is not None:
            self._callbacks.close()
