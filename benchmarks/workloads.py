"""Every workload by its key, in the order they are run: those with the same value follow one another."""

from __future__ import annotations

from harness import GIB, Settings
from local_add import adds
from local_bulk import bulks
from local_cold import colds
from local_latency import latencies
from local_many import manys
from workload import Workload

KEYS = (
    "bytes",
    "array",
    "table1",
    "row16",
    "row1",
    "table",
    "cold",
    "add",
    "table16",
    "cold16",
    "pandas",
    "mixed",
    "polars",
    "wide",
    "many",
)
ROOM_FACTOR = 3
ROOM_MORE = GIB // 2
"""What a peer's server is given: so many times the large table, and this."""


def all_workloads(settings: Settings) -> dict[str, Workload]:
    """The workloads for these settings."""
    kinds = (latencies, bulks, colds, adds, manys)
    return {work.key: work for kind in kinds for work in kind(settings)}
