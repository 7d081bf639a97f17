"""Waiting in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from flightstore.store.attached import deadline_of

__all__ = ["in_thread"]

T = TypeVar("T")

_ASYNC_SLICE_S = 0.5


async def in_thread(step: Callable[[float], T | None], timeout: float | None) -> T | None:
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
        deadline = deadline_of(timeout)
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
