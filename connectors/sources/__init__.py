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
    from flightstore.connectors.sources.reading import read
    from flightstore.connectors.sources.units import FileUnreadable
    from flightstore.connectors.sources.writing import FileTaken, WriteResult, write

__all__ = ["FileTaken", "FileUnreadable", "WriteResult", "read", "write"]

_MODULES = {
    "FileTaken": "writing",
    "FileUnreadable": "units",
    "WriteResult": "writing",
    "read": "reading",
    "write": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
