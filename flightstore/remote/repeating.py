"""Waiting for room for longer than one request does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from flightstore.errors import StoreFull
from flightstore.remote.attached import slice_of

__all__ = ["until_there_is_room"]

T = TypeVar("T")


def until_there_is_room(attempt: Callable[[float], T], deadline: float | None) -> T:
    """Call `attempt` with the seconds that it may wait, again as long as only time was lacking.

    Raises:
        StoreFull: there is no room until `deadline`, or waiting cannot help.
    """
    while True:
        wait_s = slice_of(deadline)
        began = time.monotonic()
        try:
            return attempt(wait_s)
        except StoreFull as error:
            waited = time.monotonic() - began
            is_over = deadline is not None and time.monotonic() >= deadline
            if is_over or waited < wait_s / 2 or error.asked_bytes > error.capacity_bytes > 0:
                raise
