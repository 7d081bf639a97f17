"""What objects that are built in place offer."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from flightstore.types import ObjectID

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["BlobBuilder", "TableBuilder"]


class BlobBuilder(Protocol):
    """Raw bytes being built in place; visible to nobody until sealed.

    As a context manager it seals on a normal exit and aborts when an exception leaves the block.
    """

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        ...

    @property
    def buffer(self) -> memoryview:
        """The object's memory, writable, zeroed. After seal, writes through views kept of it reach nobody."""
        ...

    def seal(self) -> ObjectID:
        """Make the object immutable and visible. Idempotent.

        Raises:
            StoreClosed: it was aborted.
            BatchEnded: the batch in which it was created is over; it is aborted.
        """
        ...

    def abort(self) -> None:
        """Make the object vanish as if it had never been. Idempotent; does nothing once sealed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class TableBuilder(Protocol):
    """A table being built in place; visible to nobody until sealed.

    Columns whose type has a fixed width (numbers, booleans, dates, times, decimals, fixed-size binaries, and
    fixed-size lists of numbers) are NumPy views of the object's own memory, zeros at first: write into them.
    The others are given whole: ``builder["name"] = array``. After the seal no write through a view reaches
    anybody. As a context manager it seals on a normal exit and aborts when an exception leaves the block.
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
        """The table's rows."""
        ...

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """The values of a column of fixed width, writable.

        Timestamps and durations are ``datetime64`` and ``timedelta64`` of their unit; dates and times of day
        the integers that Arrow keeps; decimals 4 or 8 byte integers, or rows of 64-bit words, lowest first;
        fixed-size lists have two dimensions. Booleans are one byte each and packed by the seal.

        Raises:
            InvalidArgument: there is no such column, or its type has no fixed width.
            StoreClosed: the table was sealed or aborted.
        """
        ...

    def __setitem__(self, name: str, values: Any) -> None:
        """Fill a column: with NumPy values, or with anything that makes an Arrow array of its type, nulls
        included.

        Raises:
            InvalidArgument: there is no such column, or not one value for each row.
            NotStorable: the values do not fit its type.
        """

    def mask(self, name: str) -> np.ndarray[Any, Any]:
        """Which rows of a column of fixed width are null (True), writable; none at first.

        Raises:
            InvalidArgument: there is no such column, or it takes no nulls.
            StoreClosed: the table was sealed or aborted.
        """
        ...

    def seal(self) -> ObjectID:
        """Make the table immutable and visible. Idempotent.

        Raises:
            InvalidArgument: a column whose type has no fixed width was not given.
            StoreFull: there is no room for the columns that were given whole.
            StoreClosed: it was aborted.
            BatchEnded: the batch in which it was created is over; it is aborted.
        """
        ...

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
