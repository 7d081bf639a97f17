"""The contract of a store, in one file: every store, local or remote, ours or a stranger's, implements it.

`Ref` below is a name (``str``) or an :class:`ObjectID`. All methods may be called from any thread.
``timeout`` is seconds; 0 does not wait, None waits for ever.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from flightstore.objects.base import Object
from flightstore.types import ObjectID, ObjectInfo, RecoverReport, Ref, StoreStats

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["AbstractStore", "BlobBuilder", "TableBuilder"]


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
        """
        ...

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class AbstractStore(ABC):
    """A store of immutable objects."""

    @abstractmethod
    def put(
        self,
        value: Any,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        pickle: bool = True,
        timeout: float | None = 0,
    ) -> ObjectID:
        """Store a value; no reader can observe it half-written.

        Nothing in the store aliases the caller's memory afterwards. Putting under a name that exists swaps it
        atomically: readers of the old object keep it, and it is deleted.

        Args:
            value: A data frame (Arrow, pandas, polars), NumPy array, bytes-like object, or anything that
                can be pickled.
            name: 1 to 1,024 bytes of UTF-8, not beginning with ``{`` or ``id:``.
            object_id: The id to use instead of a generated one.
            metadata: Anything msgpack can hold (None, numbers, text, bytes, lists, dicts).
            pickle: False refuses what only pickle could take.
            timeout: How long to wait for room, seconds; 0 tries once.

        Raises:
            ObjectExists: `object_id` is taken.
            NotStorable: the value cannot be stored; says why.
            StoreFull: no room within `timeout`.
            StoreBusy: another process holds the writers' lock.
        """

    @abstractmethod
    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[Any],
        *,
        pickle: bool = True,
        timeout: float | None = 0,
    ) -> list[ObjectID]:
        """Store several values (a mapping gives their names); all become visible in one commit, or none."""

    @abstractmethod
    def get(self, ref: Ref, *, timeout: float | None = 0) -> Object:
        """A reference on a sealed object, its memory mapped read-only.

        Raises:
            ObjectNotFound: there is none, and `timeout` is 0.
            GetTimeout: there was none within `timeout` (also an ObjectNotFound and a TimeoutError).
        """

    @abstractmethod
    def get_many(self, refs: Iterable[Ref], *, timeout: float | None = 0) -> list[Object]:
        """References on several objects, as they were at one moment; all or none."""

    @abstractmethod
    async def get_async(self, ref: Ref, *, timeout: float | None = None) -> Object:
        """:meth:`get` for asyncio; waiting blocks neither the loop nor the exit of the program."""

    @abstractmethod
    def contains(self, ref: Ref) -> bool:
        """Whether a sealed object has this id or name."""

    @abstractmethod
    def wait(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        """Wait until `num_ready` of `refs` (all by default) are sealed, or `timeout` has passed.

        Returns:
            (ready, not ready), each in the order given. Does not raise on timeout.
        """

    @abstractmethod
    async def wait_async(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        """:meth:`wait` for asyncio."""

    @abstractmethod
    def delete(self, refs: Ref | Iterable[Ref], *, if_unused: bool = False) -> int:
        """Delete objects: gone for new readers at once; the memory is reused after the last reader.

        Args:
            refs: One name or id, or several.
            if_unused: Delete only objects that nobody holds; do nothing to the others.

        Returns:
            How many were deleted; what does not exist is not counted and not an error.
        """

    @abstractmethod
    def with_columns(
        self,
        ref: Ref | Object,
        columns: Any,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        """A new table: that of `ref` with more columns. Only these are written, the rest is shared.

        The new object is independent of the old one, which may be deleted; what they share is freed with the
        last that uses it. A name that is overwritten meanwhile keeps its object, by id, as long as a composed
        one lists it as a member.

        Args:
            ref: A table: name, id, or object of this store.
            columns: A mapping of names to columns (Arrow arrays, pandas or polars series, NumPy arrays,
                lists; stored tables of one column, which are shared too), or a frame or stored table whose
                columns are all added. A column of a name that is there takes its place.
            name: The new object's name; the table's own name replaces it.
            object_id: As for :meth:`put`.
            metadata: As for :meth:`put`.
            timeout: As for :meth:`put`.

        Returns:
            A reference on the new object.

        Raises:
            ObjectNotFound: there is no `ref`.
            InvalidArgument: it is not a table of this store, or a column has another number of rows.
            NotStorable: Arrow cannot hold a column; names it.
            StoreFull, StoreBusy, ObjectExists: as :meth:`put`.
        """

    @abstractmethod
    def select(
        self,
        ref: Ref | Object,
        columns: Iterable[str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        """A new table of these columns of `ref`, in this order; no row is written. The index of a pandas
        frame stays with it. See :meth:`with_columns`.
        """

    @abstractmethod
    def drop(
        self,
        ref: Ref | Object,
        columns: Iterable[str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        """A new table without these columns of `ref`; no row is written. See :meth:`with_columns`."""

    @abstractmethod
    def rename(
        self,
        ref: Ref | Object,
        names: Mapping[str, str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        """A new table with columns of `ref` under new names (old to new); no row is written. See
        :meth:`with_columns`.
        """

    @abstractmethod
    def concat(
        self,
        refs: Iterable[Ref | Object],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        """A new table of the rows of all `refs`, whose columns must be alike; no row is written. See
        :meth:`with_columns`.
        """

    @abstractmethod
    def create(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> BlobBuilder:
        """Make room for `nbytes` raw bytes, to be filled in place and then sealed. Takes a reference.

        Waits at most `timeout` for room. Raises as :meth:`put`.
        """

    @abstractmethod
    def create_now(
        self,
        nbytes: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
    ) -> BlobBuilder:
        """:meth:`create` that never waits and never spills: it succeeds at once or raises StoreFull."""

    @abstractmethod
    def create_table(
        self,
        schema: pa.Schema,
        num_rows: int,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> TableBuilder:
        """Make room for a table of `num_rows` rows, to be filled in place and then sealed. Takes a reference.

        Waits at most `timeout` for room. Raises as :meth:`put`.
        """

    @abstractmethod
    def abort(self, ref: ObjectID) -> bool:
        """Abort an unsealed object of this process; False if there is none."""

    @abstractmethod
    def list(self, pattern: str | None = None) -> list[ObjectInfo]:
        """The sealed objects whose name matches the shell pattern `pattern`; all for None."""

    @abstractmethod
    def stat(self, ref: Ref) -> ObjectInfo:
        """What is known about one object.

        Raises:
            ObjectNotFound: there is none.
        """

    @abstractmethod
    def stats(self) -> StoreStats:
        """Usage of the whole store."""

    @abstractmethod
    def recover(self) -> RecoverReport:
        """Reclaim what dead clients left and what deleted objects no longer need. Safe at any time."""

    @abstractmethod
    def close(self) -> None:
        """Give up this handle. Objects and views got through it stay valid. Idempotent."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove the store and everything in it, for everybody. Views that processes hold stay readable."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __contains__(self, ref: object) -> bool:
        return isinstance(ref, str | ObjectID) and self.contains(ref)
