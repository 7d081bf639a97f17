"""flightstore lets programs share data frames at the speed of memory.

    import flightstore as fs

    store = fs.connect()
    store.put(frame, name="orders")        # in one process
    store.get("orders").to_pandas()        # in any other: the same memory, no copy

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightstore.abc.events import Subscription
    from flightstore.errors import (
        CatalogFull,
        EventsMissed,
        FlightStoreError,
        GetTimeout,
        InvalidArgument,
        MissingExtra,
        NotAStore,
        NotConvertible,
        NotStorable,
        ObjectExists,
        ObjectLost,
        ObjectNotFound,
        StoreAccessDenied,
        StoreBusy,
        StoreClosed,
        StoreDamaged,
        StoreFull,
        StoreVersionMismatch,
        WrongPidNamespace,
    )
    from flightstore.objects.base import Object
    from flightstore.store import Store, connect
    from flightstore.types import (
        ColumnConversion,
        ConversionReport,
        Event,
        Holder,
        ObjectID,
        ObjectInfo,
        RecoverReport,
        Ref,
        StoreStats,
    )

__version__ = "0.1.0"

__all__ = [
    "CatalogFull",
    "ColumnConversion",
    "ConversionReport",
    "Event",
    "EventsMissed",
    "FlightStoreError",
    "GetTimeout",
    "Holder",
    "InvalidArgument",
    "MissingExtra",
    "NotAStore",
    "NotConvertible",
    "NotStorable",
    "Object",
    "ObjectExists",
    "ObjectID",
    "ObjectInfo",
    "ObjectLost",
    "ObjectNotFound",
    "RecoverReport",
    "Ref",
    "Store",
    "StoreAccessDenied",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreFull",
    "StoreStats",
    "StoreVersionMismatch",
    "Subscription",
    "WrongPidNamespace",
    "connect",
]

_ELSEWHERE = {
    "Object": "objects.base",
    "Store": "store",
    "Subscription": "abc.events",
    "connect": "store",
}
_TYPES = frozenset(
    {
        "ColumnConversion",
        "ConversionReport",
        "Event",
        "Holder",
        "ObjectID",
        "ObjectInfo",
        "RecoverReport",
        "Ref",
        "StoreStats",
    }
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flightstore' has no attribute {name!r}")
    module = _ELSEWHERE.get(name) or ("types" if name in _TYPES else "errors")
    value = globals()[name] = getattr(import_module(f"flightstore.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
