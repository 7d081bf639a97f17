"""Threads that calls which block are made in, so that the servers' own never do.

Unlike those of concurrent.futures they do not keep a process from ending: a call that waits for the store, or
for a client, must not outlive a bounded shutdown.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from flightstore.errors import GatewayBusy

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")

IDLE_S = 5.0
"""A thread without work ends after so long."""


class Threads(Executor):
    """Up to `limit` threads, begun when there is work; what is beyond waits in line."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._changed = threading.Condition()
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._count = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a call made.

        Raises:
            GatewayBusy: the threads were shut down; nothing was begun.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise GatewayBusy("the gateway is stopping", hint="try again when it has been restarted")
            self._work.append((future, lambda: fn(*args, **kwargs)))
            if self._idle >= len(self._work):
                self._changed.notify()
            elif self._count < self._limit:
                self._count += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Take no more work; what waits in line is not done. Waits for nothing."""
        with self._changed:
            self._closed = True
            for future, _ in self._work:
                future.cancel()
            self._work.clear()
            self._changed.notify_all()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._work and not self._closed:
                    if not self._changed.wait(IDLE_S) and not self._work:
                        break
                if self._work:
                    return self._work.popleft()
            finally:
                self._idle -= 1
            self._count -= 1
            return None

    def _run(self) -> None:
        while (found := self._next()) is not None:
            future, call = found
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            # What the call referred to must not stay until the next one.
            del future, call, found
