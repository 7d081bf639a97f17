"""The contract of a store, in one folder: every store, local or remote, ours or a stranger's, implements it.

Here: putting, getting, deleting, looking. Beside it, one file for each further part of the interface.

`Ref` below is a name (``str``) or an :class:`ObjectID`. All methods may be called from any thread.
``timeout`` is seconds; 0 does not wait, None waits for ever.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from flightstore.abc.batches import AbstractBatch, AbstractBatching
from flightstore.abc.building import BlobBuilder, TableBuilder
from flightstore.abc.composing import AbstractComposing
from flightstore.abc.events import AbstractSubscribing, EventCallback, Subscription
from flightstore.abc.keeping import AbstractKeeping
from flightstore.abc.sessions import AbstractSessions
from flightstore.abc.streaming import AbstractStreaming, TableSection, TableWriter
from flightstore.objects.base import Object
from flightstore.types import ObjectID, ObjectInfo, RecoverReport, Ref, StoreStats

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "AbstractBatch",
    "AbstractBatching",
    "AbstractComposing",
    "AbstractKeeping",
    "AbstractSession",
    "AbstractSessions",
    "AbstractStore",
    "AbstractStreaming",
    "AbstractSubscribing",
    "BlobBuilder",
    "EventCallback",
    "Subscription",
    "TableBuilder",
    "TableSection",
    "TableWriter",
]


class AbstractStore(
    AbstractComposing,
    AbstractStreaming,
    AbstractKeeping,
    AbstractSessions,
    AbstractBatching,
    AbstractSubscribing,
):
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
        evictable: bool = False,
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
            evictable: Whether it may be dropped to make room for others (see :meth:`evict`).
            timeout: How long to wait for room, seconds; 0 tries once. Those who wait are served in the order
                in which they came, however little they need.

        Raises:
            ObjectExists: `object_id` is taken.
            NotStorable: the value cannot be stored; says why.
            BatchEnded: the current batch is over.
            StoreFull: no room within `timeout`.
            StoreBusy: another process holds the writers' lock.
        """

    @abstractmethod
    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[Any],
        *,
        pickle: bool = True,
        evictable: bool = False,
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


class AbstractSession(AbstractStore):
    """A store of its own ids and names within another one; made by :meth:`AbstractStore.session`.

    :meth:`stats`, :meth:`recover` and :meth:`destroy` are those of the whole store. Once the session is over,
    reads find nothing; writing, or waiting for something, raises SessionEnded.
    """

    @property
    @abstractmethod
    def number(self) -> int:
        """The session's number, by which it can be attached to; unique in the store for ever."""

    @property
    @abstractmethod
    def session_name(self) -> str | None:
        """The session's name, if it has one."""

    @abstractmethod
    def end(self) -> None:
        """End the session for everybody: its ids and names are gone at once, whoever owns it.

        Objects that somebody holds stay readable to them. The memory is given back by the next creates, or
        by :meth:`recover`. Pins keep nothing here. Idempotent.
        """
