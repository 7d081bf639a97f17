"""Files into the store and out of it, and tables cut, joined and sorted: routines for any pipeline.

    from flightstore.connectors import sources

    orders = sources.read("s3://bucket/orders/*.parquet", name="orders")
    parts = sources.partition(orders, by="hash", columns=["customer"], n=8)
    sources.write(orders, "orders/", format="parquet", partition_by=["country"])

Each says in its docstring, and in what it returns, which bytes were copied and which are shared. Nothing
heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightstore.connectors.sources.adopting import adopt
    from flightstore.connectors.sources.reading import read
    from flightstore.connectors.sources.routines import (
        Parts,
        RoutineReport,
        chunk,
        concat,
        partition,
        repartition,
        sort_within,
    )
    from flightstore.connectors.sources.units import FileUnreadable
    from flightstore.connectors.sources.writing import FileTaken, WriteResult, write

__all__ = [
    "FileTaken",
    "FileUnreadable",
    "Parts",
    "RoutineReport",
    "WriteResult",
    "adopt",
    "chunk",
    "concat",
    "partition",
    "read",
    "repartition",
    "sort_within",
    "write",
]

_MODULES = {
    "FileTaken": "writing",
    "FileUnreadable": "units",
    "WriteResult": "writing",
    "adopt": "adopting",
    "read": "reading",
    "write": "writing",
}
"""Where names are; those that are not listed are in routines.py."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'routines')}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
