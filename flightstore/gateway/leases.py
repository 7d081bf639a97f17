"""References that the gateway holds for clients who read the store's memory in place, for a limited time.

A lease that is not renewed ends by itself, so a client that dies leaves nothing. Expired ones are dropped by
a timer thread that runs while there are any.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Generic, TypeVar

from flightstore.errors import GatewayBusy, InvalidArgument, ObjectNotFound

__all__ = ["Leases"]

MAX_SECONDS = 3600.0
MAX_LEASES = 100_000


T = TypeVar("T")


class Leases(Generic[T]):
    """What is held, by lease."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, tuple[T, float]] = {}
        self._sweeping = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: T, seconds: float, *, name: str | None = None) -> tuple[str, float]:
        """Hold something; returns the lease (`name`, if it is given) and for how many seconds it is held.

        Raises:
            GatewayBusy: it holds as many as it takes.
        """
        seconds = _checked(seconds)
        lease = name if name is not None else secrets.token_hex(16)
        with self._changed:
            if len(self._held) >= MAX_LEASES:
                raise GatewayBusy(
                    f"this gateway holds {MAX_LEASES:,} leases, the most there can be",
                    hint="release those that are no longer used",
                )
            self._held[lease] = held, time.monotonic() + seconds
            if not self._sweeping:
                self._sweeping = True
                threading.Thread(target=self._sweep, name="flightstore-leases", daemon=True).start()
            self._changed.notify()
        return lease, seconds

    def held(self, lease: str) -> T | None:
        """What a lease holds, if it does."""
        found = self._held.get(lease)
        return found[0] if found is not None else None

    def renew(self, lease: str, seconds: float) -> None:
        """Hold it for so many seconds from now.

        Raises:
            ObjectNotFound: the lease is over.
        """
        seconds = _checked(seconds)
        with self._changed:
            if lease not in self._held:
                raise ObjectNotFound(f"the lease {lease!r} is over", hint="lease the object again")
            self._held[lease] = self._held[lease][0], time.monotonic() + seconds

    def drop(self, lease: str) -> None:
        """Hold it no longer. Idempotent."""
        with self._changed:
            self._held.pop(lease, None)

    def close(self) -> None:
        """Hold nothing any more."""
        with self._changed:
            self._closed = True
            self._held.clear()
            self._changed.notify()

    def _sweep(self) -> None:
        with self._changed:
            while self._held and not self._closed:
                now = time.monotonic()
                for lease in [lease for lease, (_, end) in self._held.items() if end <= now]:
                    del self._held[lease]
                ends = [end for _, end in self._held.values()]
                self._changed.wait(min(ends) - now if ends else 0)
            self._sweeping = False


def _checked(seconds: float) -> float:
    if not 0 < seconds <= MAX_SECONDS:
        raise InvalidArgument(f"a lease of {seconds} s", hint=f"more than 0, at most {MAX_SECONDS:.0f}")
    return seconds
