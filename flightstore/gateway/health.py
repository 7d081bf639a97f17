"""The gRPC health service, which Kubernetes and others ask, on a port of its own.

`readiness` and the service without a name say whether the store answers; `liveness`, whether a restart would
not help: it fails when the store was destroyed, or when it has not answered for LIVE_S.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from flightstore.errors import StoreClosed
from flightstore.store.local import Store

__all__ = ["LIVENESS", "READINESS", "HealthServer"]

READINESS, LIVENESS = "readiness", "liveness"
PERIOD_S = 1.0
READY_S = 5.0
"""A store that takes longer to answer is not ready."""
LIVE_S = 60.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServer:
    """Answers as long as it runs; asks the store once a second.

    Args:
        address: ``host:port``; port 0 for any.
    """

    def __init__(self, store: Store, address: str) -> None:
        self._store = store
        self._stopping = threading.Event()
        self._service = health.HealthServicer()
        self._said: dict[str, Any] = {}
        self._say(ready=True, live=True)
        self._server = grpc.server(ThreadPoolExecutor(4, "health"), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._service, self._server)
        self.port: int = self._server.add_insecure_port(address)
        self._server.start()
        threading.Thread(target=self._watch, name="flightstore-health", daemon=True).start()

    def drain(self) -> None:
        """Say that the gateway is about to end, while it still lives."""
        self._stopping.set()
        self._say(ready=False, live=True)

    def stop(self, grace_s: float = 0) -> None:
        """Answer no more."""
        self._stopping.set()
        self._server.stop(grace_s).wait(grace_s + 1)

    def _say(self, *, ready: bool, live: bool) -> None:
        for name, well in ((LIVENESS, live), ("", ready), (READINESS, ready)):
            status = _SERVING if well else _NOT_SERVING
            if self._said.get(name) != status:
                self._said[name] = status
                self._service.set(name, status)

    def _watch(self) -> None:
        """Ask in another thread: a store that does not answer would keep this one."""
        asking = ThreadPoolExecutor(1, "flightstore-health-store")
        asked: Future[bool] = asking.submit(self._answers)
        since = time.monotonic()
        while not self._stopping.wait(PERIOD_S):
            waited = time.monotonic() - since
            if asked.done():
                gone = isinstance(asked.exception(), StoreClosed)
                self._say(ready=asked.exception() is None, live=not gone)
                asked, since = asking.submit(self._answers), time.monotonic()
            elif waited > READY_S:
                self._say(ready=False, live=waited < LIVE_S)
        asking.shutdown(wait=False)

    def _answers(self) -> bool:
        self._store.contains("flightstore-health")
        return True
