"""Building raw bytes in place: a writable mapping of the object's own pages, until it is sealed.

The builder holds a lease on the object from the beginning, and every view of its memory keeps that lease:
however long a forgotten view lives, the pages it maps are not given to another object.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from flightstore.errors import BatchEnded, FlightStoreError, InvalidArgument, StoreClosed
from flightstore.lifecycle import sealing
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.sealing import NewObject
from flightstore.memory import kernel
from flightstore.memory.copying import copy_pieces
from flightstore.memory.leases import Lease
from flightstore.objects.base import KIND_BLOB, Payload
from flightstore.types import ObjectID

__all__ = ["Builder", "blob_payload", "seal_together"]


def blob_payload(nbytes: int) -> Payload:
    """The payload of a blob that will be filled in place.

    Raises:
        InvalidArgument: `nbytes` is not a size.
    """
    if not isinstance(nbytes, int) or isinstance(nbytes, bool) or nbytes < 0:
        raise InvalidArgument(f"{nbytes!r} is not a number of bytes")
    return Payload(KIND_BLOB, b"", nbytes, ())


class Builder:
    """A blob being built; implements BlobBuilder."""

    def __init__(self, conn: Connection, new: NewObject, deadline: float | None) -> None:
        self._conn = conn
        self._new = new
        self._pid = os.getpid()
        self._state = "open"
        stay = conn.leases.stay()
        try:
            self.extent = extent = sealing.allocate(conn, new, deadline, kernel.PAGE_BYTES)
            """Where the object lies."""
            lease = conn.write(lambda tx: Lease(conn.leases, new.serial))  # in a transaction: forks see it
            arena = conn.arena
            whole = range(extent.offset, extent.offset + extent.length)
            copy_pieces(
                arena.write_address + extent.offset,
                extent.length,
                new.payload.pieces,
                populate=lambda at, nbytes: arena.populate(extent.offset + at, nbytes, whole),
            )
            self._range = arena.open_range(extent.offset, max(new.payload.size_bytes, 1), lease)
            conn.builders.add(self._range)
        except BaseException:
            sealing.give_up(conn, (new,))
            raise
        finally:
            del stay
        nbytes = new.payload.size_bytes if new.nbytes < 0 else new.nbytes
        self._view = self._range.view[:nbytes]

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        return self._new.id

    @property
    def is_open(self) -> bool:
        """Whether it was neither sealed nor aborted."""
        return self._state == "open"

    @property
    def is_sealed(self) -> bool:
        """Whether it was sealed."""
        return self._state == "sealed"

    @property
    def buffer(self) -> memoryview:
        """The object's memory, writable, zeroed. After seal, writes through views kept of it reach nobody.

        Raises:
            StoreClosed: it was sealed or aborted.
        """
        self.check()
        return self._view

    def freeze(self) -> memoryview:
        """The object's memory as readers will have it, read-only: from here on, what is written through views
        of `buffer` reaches nobody. Valid until it is sealed (by somebody else, perhaps) or aborted.

        Raises:
            StoreClosed: it was sealed or aborted.
        """
        self.check()
        self._range.freeze()
        return self._conn.arena.readable(self.extent.offset, len(self._view))

    def seal(self) -> ObjectID:
        """Make the object immutable and visible. Idempotent.

        Raises:
            StoreClosed: it was aborted.
            BatchEnded: the batch in which it was created is over; it is aborted.
        """
        if self._state != "sealed":
            self.check()
            self._range.freeze()  # before anybody can see it: from here on no write reaches it
            try:
                sealing.seal(self._conn, self._new)
            except BatchEnded:
                self.abort()
                raise
            self._finish("sealed")
        return self._new.id

    @property
    def new(self) -> NewObject:
        """The object on its way."""
        return self._new

    def was_sealed(self) -> None:
        """Note that it was sealed by somebody else."""
        self._finish("sealed")

    def abort(self) -> None:
        """Make the object vanish as if it had never been. Idempotent; does nothing once sealed."""
        if self._state == "open" and self._pid == os.getpid():
            try:
                self._range.freeze()
                sealing.abort(self._conn, self._new.session, self._new.id)
            except BaseException:
                sealing.give_up(self._conn, (self._new,))
                raise
            finally:
                self._finish("aborted")

    def _finish(self, state: str) -> None:
        self._state = state
        del self._view, self._range

    def check(self) -> None:
        """Refuse to go on with what was sealed or aborted, or with another process's builder.

        Raises:
            StoreClosed, FlightStoreError: it is so.
        """
        if self._pid != os.getpid():
            raise FlightStoreError(
                f"the object {self._new.id} is being built by process {self._pid}",
                hint="a forked child cannot go on with its parent's builder: create in the child",
            )
        if self._state != "open":
            raise StoreClosed(f"the object {self._new.id} was {self._state}", hint="create another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._state == "open":
                self.seal()
        else:
            self.abort()

    def __del__(self) -> None:
        """A builder that is forgotten unsealed is aborted by the next write of this process."""
        if getattr(self, "_state", "") == "open" and hasattr(self, "_range") and self._pid == os.getpid():
            self._range.freeze()
            self._conn.abandoned.append(sealing.undoing(self._new))


def seal_together(
    conn: Connection, builders: Sequence[Builder], small: Sequence[NewObject], deadline: float | None
) -> None:
    """Seal what was built, and store small objects, all in one commit or none.

    Raises:
        StoreClosed: one was sealed or aborted.
        StoreFull, ObjectExists, SessionEnded, ...: nothing was stored; the builders can be sealed again, but
            not be written to.
    """
    for builder in builders:
        builder.freeze()
    sealing.seal_all(conn, [builder.new for builder in builders], small, deadline)
    for builder in builders:
        builder.was_sealed()
