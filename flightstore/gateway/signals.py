"""Signals as events that the main thread waits for.

The interpreter's handlers run between any two instructions of the main thread; here they do nothing, and what
counts is the byte that the interpreter writes into a pipe, whichever thread the kernel interrupted.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Any

__all__ = ["Signals"]


class Signals:
    """While the block runs, these signals do nothing but end `wait`. For the main thread."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before: dict[int, Any] = {
            number: signal.signal(number, lambda _number, _frame: None) for number in self._numbers
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The next signal; None if none came in time."""
        ready, _, _ = select.select([self._read], [], [], timeout_s)
        return os.read(self._read, 1)[0] if ready else None
