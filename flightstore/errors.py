"""Every error flightstore raises on purpose.

An error is named for what the caller can do about it, derives from :class:`FlightStoreError` and from the
builtin exception a caller would catch anyway, names the object or store concerned, and carries ``hint``: one
sentence that says what to do next.
"""

from __future__ import annotations

__all__ = [
    "BatchEnded",
    "CatalogFull",
    "EventsMissed",
    "FlightStoreError",
    "GatewayBusy",
    "GatewayUnreachable",
    "GetTimeout",
    "InvalidArgument",
    "MissingExtra",
    "NotAStore",
    "NotAllowed",
    "NotAuthenticated",
    "NotBorrowable",
    "NotConvertible",
    "NotOffered",
    "NotStorable",
    "ObjectExists",
    "ObjectLost",
    "ObjectNotFound",
    "SpillDamaged",
    "SpillFailed",
    "QuotaExceeded",
    "SessionEnded",
    "SessionNotFound",
    "StoreAccessDenied",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreFull",
    "StoreVersionMismatch",
    "WrongPidNamespace",
]


class FlightStoreError(Exception):
    """Base of all errors of flightstore.

    Attributes:
        message: What happened, naming the object or store.
        hint: What the caller can do about it; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[FlightStoreError], state: dict[str, object]) -> FlightStoreError:
    """Unpickle an error, with its attributes."""
    error = kind(str(state["message"]))
    error.__dict__.update(state)
    return error


class ObjectNotFound(FlightStoreError, KeyError):
    """No sealed object has this id or name."""


class GetTimeout(ObjectNotFound, TimeoutError):
    """The object did not appear within the timeout."""


class ObjectExists(FlightStoreError, ValueError):
    """An object with this id exists already (ids, unlike names, are never overwritten)."""


class ObjectLost(FlightStoreError, LookupError):
    """The object existed, and its payload cannot be had any more."""


class EventsMissed(FlightStoreError, LookupError):
    """The subscriber was too slow: the store has dropped events that it has not seen. It may go on.

    Attributes:
        missed: How many events of the store it will never see, of whatever object.
        first_kept: Number of the oldest event that is still kept; the subscription goes on there.
    """

    missed: int = 0
    first_kept: int = 0


class NotStorable(FlightStoreError, TypeError):
    """This value cannot be stored; the message says why.

    Attributes:
        pickle_helps: Whether pickle may be tried instead, where it is allowed.
    """

    pickle_helps: bool = True


class NotBorrowable(NotStorable):
    """Nothing of this value lies in the memory that was offered for it; it can be copied: put it."""


class NotConvertible(FlightStoreError, TypeError):
    """A library's form cannot hold this object; the message names the column and its type."""


class NotOffered(FlightStoreError, NotImplementedError):
    """This store does not do that; others may."""


class InvalidArgument(FlightStoreError, ValueError):
    """An argument is outside what the call accepts."""


class StoreFull(FlightStoreError, MemoryError):
    """There is no room for the object, and making room was not allowed or not enough.

    Attributes (all bytes):
        asked_bytes: What the request needed.
        capacity_bytes: The store's capacity.
        free_bytes: Capacity not used by any extent.
        pinned_bytes: In pinned objects.
        leased_bytes: In objects that readers hold, deleted ones included.
        spillable_bytes: What spilling could free.
        largest_hole_bytes: The largest free run of addresses.
        waiting_ahead: How many creates wait for room ahead of this one (a count).
    """

    asked_bytes: int = 0
    capacity_bytes: int = 0
    free_bytes: int = 0
    pinned_bytes: int = 0
    leased_bytes: int = 0
    spillable_bytes: int = 0
    largest_hole_bytes: int = 0
    waiting_ahead: int = 0


class CatalogFull(StoreFull):
    """The catalog (not the arena) has no room for another object; deleting still works.

    Attributes:
        catalog_bytes: Size of the catalog.
        catalog_used_bytes: How much of it is in use.
    """

    catalog_bytes: int = 0
    catalog_used_bytes: int = 0


class SpillFailed(StoreFull):
    """There is no room, and what would have made some could not be written to the spill storage.

    Or what was spilled cannot be read at this moment. Nothing was lost; it works again once the storage does.

    Attributes:
        asked_bytes: What a create asked for; elsewhere, what was to be written or read.
        url: The storage, without credentials.
        free_bytes: What is free there, not in the store; 0 when full or unknown.
    """

    url: str = ""


class SpillDamaged(ObjectLost):
    """A spilled file is not what was written: somebody cut, changed or removed it.

    Attributes:
        url: The storage, without credentials.
        name: The file.
    """

    url: str = ""
    name: str = ""


class QuotaExceeded(StoreFull):
    """The object would take its session beyond its quota, whatever room the store has.

    Attributes:
        session: Number of the session.
        quota_bytes: Its quota.
        used_bytes: Bytes that count against it.
    """

    session: int = 0
    quota_bytes: int = 0
    used_bytes: int = 0


class SessionNotFound(FlightStoreError, LookupError):
    """There is no session of this name or number, or it is over."""


class SessionEnded(FlightStoreError, RuntimeError):
    """The session that this handle is in is over: it was ended, or it was ephemeral and its owner is gone."""


class StoreBusy(FlightStoreError, TimeoutError):
    """Another process held the writers' lock for longer than the caller would wait.

    Attributes:
        holder_pid: Process id of the holder, 0 when unknown.
    """

    holder_pid: int = 0


class StoreClosed(FlightStoreError, RuntimeError):
    """The store handle was closed, or the store was destroyed."""


class BatchEnded(FlightStoreError, RuntimeError):
    """The batch is over: it was ended, its time is over, or nobody is left that it belongs to."""


class NotAStore(FlightStoreError, FileNotFoundError):
    """The path is not a flightstore store (and may not be turned into one)."""


class StoreDamaged(FlightStoreError, RuntimeError):
    """The store's files contradict each other; nothing was changed."""


class StoreVersionMismatch(FlightStoreError, RuntimeError):
    """The store was written in another format version."""


class StoreAccessDenied(FlightStoreError, PermissionError):
    """The file system's permissions do not let this process use the store."""


class WrongPidNamespace(FlightStoreError, PermissionError):
    """The store belongs to another pid namespace; direct clients must share one."""


class MissingExtra(FlightStoreError, ImportError):
    """An optional library is missing; the hint says which extra to install."""


class NotAuthenticated(FlightStoreError, PermissionError):
    """The gateway wants a valid token, and got none."""


class NotAllowed(FlightStoreError, PermissionError):
    """The gateway knows the caller, who has no right to do this, or to this session."""


class GatewayUnreachable(FlightStoreError, ConnectionError):
    """The gateway cannot be reached, did not answer in time, or broke off. Whether a change that was asked
    for was made is not known, unless the message says so.
    """


class GatewayBusy(FlightStoreError, ConnectionError):
    """The gateway has as many clients, or uploads, as it takes at a time. Nothing was done; try later."""
