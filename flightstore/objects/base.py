"""The interface between kinds of objects and the store: what a kind hands over to be stored, and what it gets
back to open an object again.

A kind (table, tensor, blob, object) is a class derived from :class:`Object` and an encoder. The encoder turns
a value into a :class:`Payload`, that is bytes and where they go; the store turns the payload into an extent
and a record; later, in any process, the kind's class is constructed on a :class:`Handle`. Kinds know nothing
of catalog, leases or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from flightstore.errors import InvalidArgument
from flightstore.objects.connector import connector_named
from flightstore.types import ConversionReport, Holder, ObjectID

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.catalog.records import ObjectRecord

__all__ = [
    "ALIGNMENT_BYTES",
    "KIND_BLOB",
    "KIND_COMPOSED",
    "KIND_PYOBJECT",
    "KIND_TABLE",
    "KIND_TENSOR",
    "Handle",
    "Object",
    "Payload",
    "aligned",
]

ALIGNMENT_BYTES = 64
"""Extents begin at multiples of this, and every buffer within an extent does."""


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a multiple of ALIGNMENT_BYTES."""
    return (nbytes + 63) & -64


# Kind codes are stored: never renumber.
KIND_TABLE = 1
KIND_TENSOR = 2
KIND_BLOB = 3
KIND_PYOBJECT = 4
KIND_COMPOSED = 5
"""A table of several streams; opened by the same class as a plain one."""


class Payload(msgspec.Struct, frozen=True):
    """A value ready to be stored.

    Invariants: offsets ascend, pieces do not overlap and end within ``size_bytes``; whatever they leave out
    is stored as zeros. ``layout`` stays below 1,000 bytes.
    """

    kind: int
    """Kind code."""
    layout: bytes
    """What the kind needs to read it again, msgpack; opaque to the store."""
    size_bytes: int
    """Bytes of the extent."""
    pieces: Sequence[tuple[int, Any]]
    """(offset within the extent, bytes-like object). The extent begins at a multiple of 64 bytes."""
    num_rows: int | None = None
    """Rows, for tables."""
    keepalive: Any = None
    """Whatever must live until the pieces have been copied."""
    origin: str = ""
    """Name of the connector that built it; empty for none."""


class StoreView(Protocol):
    """What an object may ask of the store it came from."""

    def holders_of(self, serial: int) -> list[Holder]:
        """Processes that hold references on the object."""
        ...

    def borrows(self, record: ObjectRecord) -> bool:
        """Whether some of the object's bytes are somebody else's memory."""
        ...

    def loan_check(self, handle: Handle) -> Callable[[], None] | None:
        """What raises ObjectLost unless bytes that were read from a handle until then were the right ones;
        None where they always are, because nothing of it is borrowed.
        """
        ...

    def persisted(self, handle: Handle, timeout: float | None) -> Handle:
        """The object after what it borrows was copied into the store."""
        ...

    def departing(self, object_id: ObjectID) -> tuple[Callable[..., Object], tuple[Any, ...]]:
        """A function and arguments that get the object again, in another process: what pickle takes."""
        ...


class Handle:
    """One reference on a stored object: its record, its lease, and its bytes mapped read-only.

    The memory stays valid as long as the handle, or any buffer taken from it, lives.
    """

    __slots__ = ("id", "lease", "others", "payload", "record", "store")

    def __init__(
        self,
        store: StoreView,
        object_id: ObjectID,
        record: ObjectRecord,
        lease: Any,
        payload: pa.Buffer,
        others: tuple[pa.Buffer, ...] = (),
    ) -> None:
        self.store = store
        self.id = object_id
        self.record = record
        self.lease = lease
        self.payload = payload
        """The object's first extent, read-only; keeps the lease alive. Empty if it has none."""
        self.others = others
        """Its further extents, likewise."""

    def extent(self, number: int) -> pa.Buffer:
        """The extent of that number, as the record lists them."""
        return self.others[number - 1] if number else self.payload


class Object:
    """A sealed, immutable object of the store, and one reference on it.

    The reference is given back by :meth:`release`, at the end of a ``with`` block, or when the object is
    garbage collected. Views taken from it (arrays, frames, buffers) keep the memory alive by themselves.
    """

    __slots__ = ("__weakref__", "_handle")

    kind: ClassVar[str] = "object"
    """Name of the kind: ``table``, ``tensor``, ``blob`` or ``object``."""

    def __init__(self, handle: Handle) -> None:
        self._handle: Handle | None = handle

    @property
    def _live(self) -> Handle:
        handle = self._handle
        if handle is None:
            from flightstore.errors import StoreClosed

            raise StoreClosed(f"this {self.kind} was released", hint="get it again")
        return handle

    @property
    def id(self) -> ObjectID:
        """The object's id."""
        return self._live.id

    @property
    def name(self) -> str | None:
        """The object's first name, or None."""
        names = self._live.record.names
        return names[0] if names else None

    @property
    def nbytes(self) -> int:
        """Bytes of the payload, without padding."""
        return self._live.record.nbytes

    @property
    def metadata(self) -> Any:
        """What the creator attached with ``metadata=``, or None."""
        handle = self._live
        record = handle.record
        raw: Any = record.metadata
        if record.metadata_at is not None:
            raw = memoryview(handle.payload)[record.metadata_at[0] : sum(record.metadata_at)]
        return msgspec.msgpack.decode(raw) if raw else None

    @property
    def borrowed(self) -> bool:
        """Whether some of its bytes are somebody else's memory: it is only as good as its owner then."""
        handle = self._live
        return handle.store.borrows(handle.record)

    def persist(self, *, timeout: float | None = 0) -> None:
        """Copy what the object borrows into the store, once and for all who use it; nothing if it borrows
        nothing.

        Afterwards it depends on nobody. Values that were taken from it before, by anybody, still refer to the
        lender's memory; the loan is over when all who hold the object have let go once.

        Args:
            timeout: Seconds to wait for room; None waits for ever.

        Raises:
            StoreFull: there is no room; it is borrowed as before.
            ObjectLost: its owner is gone already.
        """
        handle = self._live
        if handle.store.borrows(handle.record):
            self._handle = handle.store.persisted(handle, timeout)
            self._forget()

    def _forget(self) -> None:
        """Let go of what was made of the handle's memory."""

    def holders(self) -> list[Holder]:
        """The processes that hold references on this object, this one included."""
        handle = self._live
        return handle.store.holders_of(handle.record.serial)

    def release(self) -> None:
        """Give this reference back now. Views taken from the object stay valid; the object itself does not.

        Idempotent.
        """
        self._handle = None

    def value(self) -> Any:
        """The value in the form it was put, sharing the store's memory wherever its type allows.

        Raises:
            MissingExtra: it was put as a type of a library that is not installed here.
        """
        origin = self._live.record.origin
        return self.to(origin) if origin else self._value()

    def _value(self) -> Any:
        """The value in this kind's own form."""
        raise NotImplementedError

    def to(self, connector: str, **options: Any) -> Any:
        """The object in the form of a connector: ``to("pandas")`` is ``to_pandas()``.

        Raises:
            MissingExtra: the connector, or its library, is not installed.
            NotConvertible: its form cannot hold this object.
        """
        return connector_named(connector).resolve(self, **options)

    def conversion_report(self, connector: str, **options: Any) -> ConversionReport:
        """What ``to(connector, **options)`` shares with the store, and what it copies and why.

        Raises:
            InvalidArgument: the connector makes no reports.
            MissingExtra, NotConvertible: as :meth:`to`.
        """
        report = connector_named(connector).report
        if report is None:
            raise InvalidArgument(f"the connector {connector!r} makes no conversion reports")
        return report(self, **options)

    def __reduce__(self) -> tuple[Callable[..., Object], tuple[Any, ...]]:
        """Pickled, an object travels as its store and id, never as its bytes; it is got again on arrival.

        It holds no reference on the way: one that is deleted meanwhile raises ObjectNotFound there.
        """
        handle = self._live
        return handle.store.departing(handle.id)

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        if self._handle is None:
            return f"<{type(self).__name__} released>"
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__}{name} {self.id} {self.nbytes:,} bytes>"
