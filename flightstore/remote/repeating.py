"""Waiting for room for longer than one request does, and for a gateway that has enough to do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from flightstore.errors import GatewayBusy, StoreFull
from flightstore.remote.attached import slice_of

__all__ = ["until_there_is_room"]

T = TypeVar("T")

BUSY_S = 20.0
"""How long to try again when a gateway says that it has enough to do: it has done nothing then."""


def until_there_is_room(attempt: Callable[[float], T], deadline: float | None) -> T:
    """Call `attempt` with the seconds that it may wait, again as long as only time was lacking.

    Raises:
        StoreFull: there is no room until `deadline`, or waiting cannot help.
        GatewayBusy: it had as many uploads as it takes, for BUSY_S.
    """
    busy_until = time.monotonic() + BUSY_S
    pause_s = 0.01
    while True:
        wait_s = slice_of(deadline)
        began = time.monotonic()
        try:
            return attempt(wait_s)
        except GatewayBusy:
            if time.monotonic() + pause_s > busy_until:
                raise
            time.sleep(pause_s * (1 + random.random()))
            pause_s = min(2 * pause_s, 0.5)
        except StoreFull as error:
            waited = time.monotonic() - began
            is_over = deadline is not None and time.monotonic() >= deadline
            if is_over or waited < wait_s / 2 or error.asked_bytes > error.capacity_bytes > 0:
                raise
