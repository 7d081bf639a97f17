"""Tables whose length is not known before they are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from flightstore.types import ObjectID

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AbstractStreaming", "TableSection", "TableWriter"]


class TableSection(Protocol):
    """Rows of a table that follow each other, written by one thread at a time.

    As a context manager it closes on a normal exit, and aborts the table when an exception leaves the block.
    """

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        ...

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows, as :meth:`TableWriter.write`."""
        ...

    def close(self) -> None:
        """Write what is gathered of it, and give back its private memory. Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class TableWriter(Protocol):
    """A table that is written batch by batch; visible to nobody until sealed.

    What is written lies in the store at once: private memory holds some 16 MiB for each open section, however
    long the table becomes (a store behind a gateway keeps all of it in private memory, and sends it by the
    seal). As a context manager it seals on a normal exit and aborts when an exception leaves the block.
    Whatever else ends it (garbage collection, death) leaves nothing behind.
    """

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The table's schema."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows taken so far."""
        ...

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Append rows to section 0; for one thread at a time. Their memory may go, or change, when this
        returns.

        Raises:
            InvalidArgument: they are of another schema; nothing happened.
            StoreFull, QuotaExceeded, SessionEnded: the table is aborted.
            StoreClosed: the table was sealed or aborted.
        """
        ...

    def section(self, number: int) -> TableSection:
        """The rows that come after those of sections of lower numbers.

        Sections may be written at the same time, by a thread each: the order of the rows is that of the
        sections' numbers. Close each when it is complete; the seal closes those that are not.

        Raises:
            InvalidArgument: it is no number from 0.
            StoreClosed: the table was sealed or aborted.
        """
        ...

    def seal(self) -> ObjectID:
        """Make the table immutable and visible, when all threads are done with it. Idempotent.

        Raises:
            InvalidArgument: another thread is writing to it; nothing happened.
            StoreFull, SessionEnded, BatchEnded, ObjectExists: nothing was stored.
            StoreClosed: it was aborted.
        """
        ...

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class AbstractStreaming(ABC):
    """What a store offers for tables of unknown length."""

    @abstractmethod
    def create_stream(
        self,
        schema: pa.Schema,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
        group_bytes: int | None = None,
    ) -> TableWriter:
        """Begin a table that is written batch by batch, and sealed when the last one is there.

        Its chunks lie as they were written. Each part waits at most `timeout` for room. Raises as
        :meth:`put`.

        Args:
            schema: The table's columns.
            name: As for :meth:`put`.
            object_id: As for :meth:`put`.
            metadata: As for :meth:`put`.
            timeout: As for :meth:`put`, for each part.
            group_bytes: How much is gathered in private memory before it is written, for each section; None
                for 16 MiB. Less makes more chunks.
        """

    @abstractmethod
    def seal_many(self, writers: Iterable[TableWriter], *, timeout: float | None = 0) -> list[ObjectID]:
        """Seal several tables that are being written: all become visible in one commit, or none.

        Waits at most `timeout` for what room is still needed. After an error all are aborted.

        Raises:
            InvalidArgument: they are not of this store and session, or one is being written by another
                thread.
            StoreFull, SessionEnded, BatchEnded, ObjectExists, StoreClosed: nothing was stored.
        """
