"""What the gateway counts, and what the store says of itself, as Prometheus reads it.

Counters are this gateway's, from its start; gauges of the store are read when they are asked for. Nothing is
registered anywhere but in the registry of each Metrics, so several may live in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flightstore.errors import FlightStoreError

if TYPE_CHECKING:
    from flightstore.store.local import Store

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_STORE = {
    "objects": "sealed objects",
    "pending": "objects being created",
    "dying": "deleted objects whose memory has not been given back",
    "clients": "live client processes",
    "leases": "references that readers hold, in all processes",
    "capacity_bytes": "upper bound of the bytes backed by memory",
    "used_bytes": "bytes in extents",
    "backed_bytes": "bytes of the arena backed by memory",
    "leased_bytes": "bytes of objects that somebody refers to",
    "pinned_bytes": "bytes of pinned objects",
    "evictable_bytes": "what evicting all that may be evicted would free",
    "spillable_bytes": "what spilling all that may be spilled would free",
    "spilled_bytes": "bytes of objects that are in spill files only",
    "catalog_bytes": "size of the catalog",
    "catalog_used_bytes": "bytes of the catalog in use",
}
_COUNTED = {
    "evictions": "objects dropped to make room, since the store was made",
    "spills": "how often memory was given up for a spill file, since the store was made",
}


class Metrics:
    """Counts of one gateway.

    Args:
        store: The store whose usage is told; None for not known yet (`watch`).
    """

    def __init__(self, store: Store | None = None) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "flightstore_requests", "requests answered", ("kind", "code"), registry=self._registry
        )
        self._seconds = Histogram(
            "flightstore_request_seconds",
            "time from a request's headers to the last byte of its answer",
            ("kind",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._received = Counter(
            "flightstore_received_bytes", "bytes of requests' bodies", ("kind",), registry=self._registry
        )
        self._sent = Counter(
            "flightstore_sent_bytes", "bytes of answers' bodies", ("kind",), registry=self._registry
        )
        self._current = _Current()
        self._registry.register(self._current)
        self._usage: _Usage | None = None
        if store is not None:
            self.watch(store)

    def watch(self, store: Store) -> None:
        """Tell the usage of a store from now on. Idempotent: there is one store."""
        if self._usage is None:
            self._usage = _Usage(store)
            self._registry.register(self._usage)

    def request(self, kind: str, code: str, seconds: float, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """One request was answered.

        Args:
            kind: What it was; one of few.
            code: How it ended: a status, or gRPC's code.
            seconds: How long it took.
            bytes_in: Length of its body.
            bytes_out: Length of the answer's.
        """
        self._requests.labels(kind, code).inc()
        self._seconds.labels(kind).observe(seconds)
        if bytes_in:
            self._received.labels(kind).inc(bytes_in)
        if bytes_out:
            self._sent.labels(kind).inc(bytes_out)

    def track(self, name: str, server: str, count: Callable[[], int]) -> None:
        """Tell a number whenever the metrics are read; those of one name and server are added up. Idempotent.

        Args:
            name: ``connections``, ``uploads``, ``leases``, ...
            server: Whose it is: ``http`` or ``flight``.
            count: Tells it; called from any thread.
        """
        if (name, server, count) not in self._current.counts:
            self._current.counts.append((name, server, count))

    def untrack(self, name: str, server: str, count: Callable[[], int]) -> None:
        """Undo `track`."""
        self._current.counts.remove((name, server, count))

    def text(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Current(Collector):
    """What there is at the moment in the gateway itself."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, str, Callable[[], int]]] = []

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        sums: dict[tuple[str, str], int] = {}
        for name, server, count in list(self.counts):
            sums[name, server] = sums.get((name, server), 0) + count()
        families: dict[str, GaugeMetricFamily] = {}
        for (name, server), number in sums.items():
            if name not in families:
                full = f"flightstore_gateway_{name}"
                families[name] = GaugeMetricFamily(full, f"{name} at the moment", labels=["server"])
            families[name].add_metric([server], number)
        return families.values()


class _Usage(Collector):
    """What the store says; nothing but ``flightstore_up 0`` when it says nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        up = "whether the store answers"
        try:
            stats = self._store.stats()
        except (FlightStoreError, OSError):
            yield GaugeMetricFamily("flightstore_up", up, value=0)
            return
        yield GaugeMetricFamily("flightstore_up", up, value=1)
        for name, text in _STORE.items():
            yield GaugeMetricFamily(f"flightstore_{name}", text, value=getattr(stats, name))
        for name, text in _COUNTED.items():
            yield CounterMetricFamily(f"flightstore_{name}", text, value=getattr(stats, name))
