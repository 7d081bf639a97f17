"""Functions that are called for events: one thread for each handle on a store.

The thread follows the log with a `Tail` (lifecycle.events), and knows neither the handle nor keeps it alive:
the handle closes its `Callbacks` when it is closed or collected, and the thread ends. It is a daemon, and it
ends also with the last function, so that a handle without callbacks has none.

A function is called for what is committed after its registration: it is registered, with the number of the
latest event, under the lock under which the thread looks for the functions of an event it has read.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol

from flightstore.errors import EventsMissed, FlightStoreError, StoreClosed
from flightstore.lifecycle.events import Selection
from flightstore.types import Event

__all__ = ["Callback", "Callbacks", "Following"]

_log = logging.getLogger("flightstore")


class Following(Protocol):
    """What the thread follows: a `Tail`, or what does the same over a network."""

    def next(self, deadline: float | None) -> Event | None:
        """The next event; None when it was closed."""
        ...

    def close(self) -> None:
        """End it, for those who wait too."""


class Callback:
    """One function; implements EventCallback."""

    def __init__(
        self, owner: Callbacks, function: Callable[[Event], object], selection: Selection, after: int
    ) -> None:
        self._owner = owner
        self._function = function
        self._selection = selection
        self._after = after
        self._closed = False

    def wants(self, event: Event) -> bool:
        """Whether the function is to be called for it."""
        return not self._closed and event.number > self._after and self._selection.takes(event)

    def call(self, event: Event) -> None:
        """Call the function; whatever it raises is logged."""
        try:
            if not self._closed:
                self._function(event)
        except SystemExit:
            pass  # the interpreter is on its way out, or the function wants to leave: it has left
        except BaseException:
            _log.exception("a callback failed for the event %s", event)

    def close(self) -> None:
        """Call it no more."""
        self._closed = True
        self._owner.remove(self)


class Callbacks:
    """The functions of one handle, in one process."""

    def __init__(self, latest: Callable[[], int], follow: Callable[[int], Following]) -> None:
        """`latest` gives the number of the latest event; `follow` follows all events behind a number."""
        self._latest = latest
        self._follow = follow
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._callbacks: list[Callback] = []
        self._tail: Following | None = None

    @property
    def is_ours(self) -> bool:
        """Whether they belong to this process; a forked child has neither their thread nor their lock."""
        return self._pid == os.getpid()

    def add(self, function: Callable[[Event], object], selection: Selection) -> Callback:
        """Call `function` for every event that is committed from now on."""
        with self._lock:
            after = self._latest()
            callback = Callback(self, function, selection, after)
            self._callbacks.append(callback)
            if self._tail is None:
                self._begin(after)
        return callback

    def _begin(self, after: int) -> None:
        # Later ones want events of no lower number: one tail serves them all.
        tail = self._follow(after)
        threading.Thread(target=self._run, args=(tail,), name="flightstore-events", daemon=True).start()
        self._tail = tail

    def remove(self, callback: Callback) -> None:
        """Forget one; the thread ends with the last."""
        if self.is_ours:
            with self._lock:
                self._callbacks = [one for one in self._callbacks if one is not callback]
                if not self._callbacks:
                    self._end()

    def close(self) -> None:
        """End the thread, without waiting for a function that it is in. Takes no lock: for finalizers."""
        if self.is_ours:
            self._end()

    def _end(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()

    def _run(self, tail: Following) -> None:
        """The thread."""
        while True:
            try:
                event = tail.next(None)
            except EventsMissed as error:
                _log.warning("callbacks are too slow: %s", error)
                continue
            except StoreClosed:
                return
            except FlightStoreError as error:
                _log.error("no more events for callbacks: %s", error)
                return
            if event is None:
                return
            with self._lock:
                wanting = [callback for callback in self._callbacks if callback.wants(event)]
            for callback in wanting:
                callback.call(event)
