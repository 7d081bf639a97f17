"""What ends this process's own sleeps on a bell, from another of its threads.

Bells count what happened in the store and are rung by who holds the writers' lock. Whoever only wants a
thread of its own process to stop waiting rings an alarm, which nobody else sees.
"""

from __future__ import annotations

import ctypes

from flightstore.memory import kernel
from flightstore.memory.control import Control

__all__ = ["Alarm"]


class Alarm:
    """Quiet at first; once rung, whoever sleeps with it wakes, and nobody sleeps with it again."""

    def __init__(self) -> None:
        self._word = ctypes.c_uint32(0)
        self._address = ctypes.addressof(self._word)

    @property
    def is_rung(self) -> bool:
        """Whether it was rung."""
        return self._word.value != 0

    def ring(self) -> None:
        """Wake all sleepers, for good. Idempotent; takes no lock, so that finalizers may call it."""
        self._word.value = 1
        kernel.futex_wake(self._address)

    def sleep(self, control: Control, bell: int, seen: int, timeout_s: float) -> None:
        """`Control.sleep`, until the alarm is rung at the latest."""
        words = ((control.address_of(bell), seen), (self._address, 0))
        kernel.futex_wait_any(words, min(timeout_s, 1.0))
