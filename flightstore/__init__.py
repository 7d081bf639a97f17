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
    from flightstore.connecting import connect
    from flightstore.errors import (
        BatchEnded,
        CatalogFull,
        EventsMissed,
        FlightStoreError,
        GatewayBusy,
        GatewayUnreachable,
        GetTimeout,
        InvalidArgument,
        MissingExtra,
        NotAllowed,
        NotAStore,
        NotAuthenticated,
        NotBorrowable,
        NotConvertible,
        NotOffered,
        NotStorable,
        ObjectExists,
        ObjectLost,
        ObjectNotFound,
        QuotaExceeded,
        SessionEnded,
        SessionNotFound,
        SpillDamaged,
        SpillFailed,
        StoreAccessDenied,
        StoreBusy,
        StoreClosed,
        StoreDamaged,
        StoreFull,
        StoreVersionMismatch,
        WrongPidNamespace,
    )
    from flightstore.lifecycle.storages import register_spill_storage
    from flightstore.objects.base import Object
    from flightstore.store import Session, Store
    from flightstore.store.batches import Batch
    from flightstore.types import (
        BatchInfo,
        ColumnConversion,
        ConversionReport,
        Event,
        EvictionCandidate,
        Holder,
        Loan,
        LoanInfo,
        ObjectID,
        ObjectInfo,
        RecoverReport,
        Ref,
        SessionInfo,
        StoreStats,
    )

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "BatchEnded",
    "BatchInfo",
    "CatalogFull",
    "ColumnConversion",
    "ConversionReport",
    "EvictionCandidate",
    "Event",
    "EventsMissed",
    "FlightStoreError",
    "GatewayBusy",
    "GatewayUnreachable",
    "GetTimeout",
    "Holder",
    "InvalidArgument",
    "Loan",
    "LoanInfo",
    "MissingExtra",
    "NotAllowed",
    "NotAStore",
    "NotAuthenticated",
    "NotBorrowable",
    "NotConvertible",
    "NotOffered",
    "NotStorable",
    "Object",
    "ObjectExists",
    "ObjectID",
    "ObjectInfo",
    "ObjectLost",
    "ObjectNotFound",
    "QuotaExceeded",
    "RecoverReport",
    "Ref",
    "SpillDamaged",
    "SpillFailed",
    "Session",
    "SessionEnded",
    "SessionInfo",
    "SessionNotFound",
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
    "register_spill_storage",
]

_ELSEWHERE = {
    "Batch": "store.batches",
    "Object": "objects.base",
    "Session": "store",
    "Store": "store",
    "Subscription": "abc.events",
    "connect": "connecting",
    "register_spill_storage": "lifecycle.storages",
}
_TYPES = frozenset(
    {
        "BatchInfo",
        "ColumnConversion",
        "ConversionReport",
        "EvictionCandidate",
        "Event",
        "Holder",
        "Loan",
        "LoanInfo",
        "ObjectID",
        "ObjectInfo",
        "RecoverReport",
        "Ref",
        "SessionInfo",
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
