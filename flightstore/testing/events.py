"""Events between processes, so that tests wait for what happens instead of sleeping.

Lives here: `Gate` and `Barrier` (shared across fork), `wait_until` and `wait_for_file` for what has no event
of its own. Calls nothing else of flightstore.

Invariants: every wait has a timeout and raises TimeoutError saying what did not come.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

__all__ = ["Barrier", "Gate", "wait_for_file", "wait_until"]


class Gate:
    """Closed at first; once opened, by any process, it lets everybody through for ever.

    Made before the fork whose two sides use it. Each process closes its own copy, or leaves that to its end.
    """

    def __init__(self, name: str = "gate") -> None:
        self.name = name
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)

    def open(self) -> None:
        """Let everybody through. Idempotent."""
        os.eventfd_write(self._fd, 1)

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._poll(0)

    def wait(self, timeout_s: float = 30) -> None:
        """Wait until it is open.

        Raises:
            TimeoutError: nobody opened it in time.
        """
        if not self._poll(timeout_s):
            raise TimeoutError(f"{self.name} was not opened within {timeout_s} s")

    def close(self) -> None:
        """Give up this process's descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _poll(self, timeout_s: float) -> bool:
        # The counter is never read, so the descriptor stays readable: the gate stays open.
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self.close()


class Barrier:
    """Holds `parties` processes or threads until all of them have arrived. Serves once."""

    def __init__(self, parties: int, name: str = "barrier") -> None:
        self.parties = parties
        self._arrivals_in, self._arrivals_out = os.pipe()
        self._gate = Gate(name)

    def wait(self, timeout_s: float = 30) -> None:
        """Arrive, and wait for the others.

        Raises:
            TimeoutError: somebody did not come in time.
        """
        os.write(self._arrivals_out, b".")
        # Each looks after its own arrival, so the last one at least sees them all.
        if self.arrived >= self.parties:
            self._gate.open()
        self._gate.wait(timeout_s)

    @property
    def arrived(self) -> int:
        """How many have arrived."""
        count = array.array("i", [0])
        fcntl.ioctl(self._arrivals_in, termios.FIONREAD, count)
        return count[0]

    def close(self) -> None:
        """Give up this process's descriptors. Idempotent."""
        self._gate.close()
        for name in ("_arrivals_in", "_arrivals_out"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def wait_until(condition: Callable[[], object], *, what: str, timeout_s: float = 30) -> None:
    """Look every millisecond until `condition()` is true: for what sends no event.

    Raises:
        TimeoutError: it did not become true; names `what`.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.001)


def wait_for_file(path: str | Path, *, timeout_s: float = 30) -> Path:
    """Wait until the file exists.

    Raises:
        TimeoutError: it did not appear.
    """
    wait_until(Path(path).exists, what=f"{path} appears", timeout_s=timeout_s)
    return Path(path)
