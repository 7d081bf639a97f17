"""Ends the connections of Flight clients that have stalled.

What a stalled client is: one whose next message an upload has been waiting for, or one that has taken nothing
of its download, for the idle timeout; one whose call takes longer than the request timeout; one that has
begun a call and never sent its first message. Progress of downloads is what the client's machine has
acknowledged: several downloads over one connection count as one. Connections to a unix socket, which cannot
be told apart, and whose clients are this user's own processes, are not ended.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from flightstore.gateway.connections import Connection, Connections

if TYPE_CHECKING:
    from flightstore.gateway.flight_calls import Call, Calls
    from flightstore.gateway.limits import Limits

__all__ = ["Watch"]

UNIX = "unix:"
PROGRESS_BYTES = 1024
"""Less than this in a whole idle timeout is none: it may be gRPC's own pings."""


class Watch:
    """A thread that looks at the running calls of one server now and then."""

    def __init__(self, calls: Calls, connections: Connections, limits: Limits) -> None:
        self._calls = calls
        self._connections = connections
        self._limits = limits
        self._over = threading.Event()
        self._acked: dict[str, tuple[int, float]] = {}
        """By peer: bytes when progress was last seen, and when."""
        self._thread = threading.Thread(target=self._run, name="flightstore-flight-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(min(self._limits.idle_timeout_s / 4, 5.0)):
            self._look()

    def _look(self) -> None:
        running = self._calls.running()
        by_peer: dict[str, list[Call]] = {}
        for call in running:
            if call.peer is not None:
                by_peer.setdefault(call.peer, []).append(call)
        # Calls that never reached a handler have no peer yet: one of the silent connections has to be theirs.
        lost = any(call.peer is None and self._waits_too_long(call) for call in running)
        acked = {}
        for number, connection in enumerate(self._connections):
            calls = by_peer.get(connection.peer, [])
            if connection.peer == UNIX:
                continue
            acked[connection.peer] = self._progress(connection)
            if not calls:
                silent = lost and connection.silent_s > self._limits.idle_timeout_s
                if silent or number >= self._limits.max_connections:
                    connection.end()
            elif any(self._has_stalled(call, acked[connection.peer][1]) for call in calls):
                connection.end()
        self._acked = acked

    def _progress(self, connection: Connection) -> tuple[int, float]:
        """(bytes acknowledged, when) as of the last time that the client took something."""
        last = self._acked.get(connection.peer)
        if last is not None and connection.acked_bytes - last[0] < PROGRESS_BYTES:
            return last
        return connection.acked_bytes, time.monotonic()

    def _has_stalled(self, call: Call, taken: float) -> bool:
        if not call.lasting and time.monotonic() - call.began > self._limits.request_timeout_s:
            return True
        return self._waits_too_long(call, 0.0 if call.is_upload else taken)

    def _waits_too_long(self, call: Call, taken: float = 0.0) -> bool:
        since = call.waiting_since
        return since is not None and time.monotonic() - max(since, taken) > self._limits.idle_timeout_s
