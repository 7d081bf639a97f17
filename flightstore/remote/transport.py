"""What carries requests to a gateway and answers back: three operations, whatever lies below.

Rules for all of them: whatever happens on the way is GatewayUnreachable, naming the gateway; what the gateway
says is the error that it names. Nothing is sent twice unless it is safe to repeat (`REPEATABLE`): a change
whose answer was lost may have been made. Usable from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from flightstore.errors import FlightStoreError, GatewayUnreachable
from flightstore.wire.frames import FrameHeader
from flightstore.wire.messages import Info

__all__ = ["REPEATABLE", "Timeouts", "Transport", "pieces_of", "unreachable"]

REPEATABLE = frozenset(
    {
        "hello",
        "stat",
        "contains",
        "list",
        "wait",
        "holders",
        "stats",
        "sessions",
        "batches",
        "batch_status",
        "events",
        "get_many",
        "recover",
        "renew",
        "release",
    }
)
"""Actions that change nothing, or nothing more when they are repeated."""

JOINED_BYTES = 64 << 10
"""Pieces of a payload up to this size are joined before they are sent."""


class Timeouts:
    """How long to wait for a gateway, seconds."""

    __slots__ = ("connect_s", "request_s")

    def __init__(self, connect_s: float, request_s: float) -> None:
        self.connect_s = connect_s
        """For a connection."""
        self.request_s = request_s
        """For the next sign of life of a request, beyond what the request itself allows."""


class Transport(Protocol):
    """A way to a gateway."""

    @property
    def url(self) -> str:
        """Where it leads."""
        ...

    def act(self, action: str, request: bytes, *, session: str | None, wait_s: float = 0) -> bytes:
        """Carry out an action, which may itself wait for `wait_s`; returns the reply's JSON."""
        ...

    def get_frame(self, ref: str, *, session: str | None) -> tuple[FrameHeader, pa.Buffer]:
        """An object: its header, and its payload in private memory, read-only, at a multiple of 64."""
        ...

    def put_frame(
        self, header: FrameHeader, pieces: Sequence[tuple[int, Any]], *, session: str | None, wait_s: float
    ) -> Info:
        """Store an object; `pieces` as in objects.base.Payload."""
        ...

    def rest(self) -> None:
        """Give up connections that nobody uses at this moment."""

    def close(self) -> None:
        """Give up all connections; idempotent. Requests that are under way may fail."""


def unreachable(url: str, error: BaseException, *, sent: bool = False) -> FlightStoreError:
    """The error for whatever went wrong on the way."""
    what = "did not answer in time" if isinstance(error, TimeoutError) else "cannot be reached"
    if sent and not isinstance(error, TimeoutError):
        what = "broke off"
    hint = (
        "whether it was carried out is not known"
        if sent
        else "nothing was carried out: is flightstore serve running there?"
    )
    return GatewayUnreachable(f"the gateway {url} {what}: {_text(error)}", hint=hint)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def pieces_of(head: bytes, size_bytes: int, pieces: Sequence[tuple[int, Any]]) -> list[memoryview]:
    """A frame as runs of bytes, in order: large pieces as they are, small ones and gaps joined."""
    runs: list[memoryview] = []
    joined = bytearray(head)

    def flush() -> None:
        nonlocal joined
        if joined:
            runs.append(memoryview(joined))
            joined = bytearray()

    at = 0
    for offset, piece in pieces:
        view = memoryview(piece)
        view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        joined += bytes(offset - at)
        if view.nbytes <= JOINED_BYTES:
            joined += view
            if len(joined) > JOINED_BYTES:
                flush()
        else:
            flush()
            runs.append(view)
        at = offset + view.nbytes
    joined += bytes(size_bytes - at)
    flush()
    return runs
