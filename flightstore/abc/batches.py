"""Batches: scopes whose objects go together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from flightstore.objects.base import Object
from flightstore.types import BatchInfo, Ref

if TYPE_CHECKING:
    from flightstore.abc import AbstractStore

__all__ = ["AbstractBatch", "AbstractBatching", "BatchRef"]


class AbstractBatch(ABC):
    """A scope: the objects that are made in it go when it ends.

    Begun by :meth:`Store.batch`. It is over, and nobody sees its objects any more, as soon as it is ended,
    its time has passed, or the last process that it belongs to is gone, however that one ended. Nobody waits
    for the end: who holds an object reads on, what was composed of its objects stays whole, and the memory is
    used again by later puts.

    ``with batch:`` makes it the current batch of its store and session, for this thread or asyncio task and
    the tasks begun within, and ends it, also when an exception leaves the block. In a process that joined it,
    the block ends with :meth:`leave` instead. In a forked child the block ends nothing.

    Pickled, it travels as its store's path and its token; whoever unpickles it joins it.
    """

    @property
    @abstractmethod
    def number(self) -> int:
        """Its number in the store, never used twice."""

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The name that it was given."""

    @property
    @abstractmethod
    def store(self) -> AbstractStore:
        """The handle through which it was begun or joined; whoever unpickled it uses the store by this."""

    @property
    @abstractmethod
    def token(self) -> str:
        """Text by which another process joins it: :meth:`Store.join_batch`."""

    @abstractmethod
    def activate(self) -> AbstractContextManager[Self]:
        """``with batch.activate():`` makes it current without ending or leaving it: for threads, and for
        parts of the work.
        """

    @abstractmethod
    def keep(self, objects: Ref | Object | Iterable[Ref | Object]) -> None:
        """Let objects outlive the batch. They pass to the nearest batch around it that is not over; without
        one they stay until they are deleted.

        A kept object stays, by its id, when its name is put anew.

        Args:
            objects: Names, ids or objects: made in this batch or in one within it. What outlives the batch
                anyway is left alone.

        Raises:
            ObjectNotFound: one is not there. Those before it may have been kept.
            BatchEnded: the batch is over.
            InvalidArgument: one goes with a batch that has nothing to do with this one.
        """

    @abstractmethod
    def end(self) -> None:
        """End the batch, in whichever process: nobody sees its objects from this moment. With
        ``cleanup=False`` they stay until :meth:`delete`.

        Of several that call it, one succeeds.

        Raises:
            BatchEnded: it is over already.
        """

    @abstractmethod
    def delete(self) -> None:
        """Take all objects away that were made in the batch, those too that were kept. Ends it first if need
        be. Pinned objects stay.

        Raises:
            BatchEnded: it was ended before, with its objects.
        """

    @abstractmethod
    def leave(self) -> None:
        """The batch does not belong to this process any more; the last that leaves ends it. Nothing happens
        if it belongs to others only.

        Raises:
            BatchEnded: it is over.
        """

    @abstractmethod
    def status(self) -> BatchInfo:
        """What is known about it at this moment."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


BatchRef: TypeAlias = AbstractBatch | str | int
"""How a caller names a batch: the batch itself, its token, or its number in the store."""


class AbstractBatching(ABC):
    """What a store offers for batches."""

    @abstractmethod
    def batch(
        self, name: str | None = None, *, timeout: float | None = None, cleanup: bool = True
    ) -> AbstractBatch:
        """Begin a batch: ``with store.batch() as batch:``. Whatever is put, created, built or composed
        through this store and session in the block goes with it; ``batch.keep(obj)`` makes an exception.

        It is begun at once, within the current batch, and belongs to this process.

        Args:
            name: For people; need not be unique.
            timeout: Seconds after which it is over, whether or not anybody ends it.
            cleanup: False lets its objects stay when it is ended, until it is deleted. Its timeout, or the
                death of its processes, takes them away all the same.

        Raises:
            InvalidArgument: `name` or `timeout` cannot be one.
            CatalogFull, StoreBusy: it was not begun.
        """

    @abstractmethod
    def new_batch(
        self, name: str | None = None, *, timeout: float | None = None, cleanup: bool = True
    ) -> AbstractBatch:
        """:meth:`batch` for use without ``with``: make it current with :meth:`Batch.activate`, and end it
        with :meth:`end_batch`.
        """

    @abstractmethod
    def current_batch(self) -> AbstractBatch | None:
        """The innermost batch of this store and session that this thread or asyncio task is in."""

    @abstractmethod
    def join_batch(self, batch: BatchRef) -> AbstractBatch:
        """Make a batch belong to this process too: it goes on when the process that began it dies.

        Args:
            batch: Its token, say, from another process.

        Raises:
            BatchEnded: it is over.
            InvalidArgument: it is another store's, or session's.
        """

    @abstractmethod
    def end_batch(self, batch: BatchRef) -> None:
        """:meth:`Batch.end`, for a batch of any process.

        Raises:
            BatchEnded: it is over already.
            InvalidArgument: as :meth:`join_batch`.
        """

    @abstractmethod
    def destroy_batch(self, batch: BatchRef) -> None:
        """:meth:`Batch.delete`, for a batch of any process.

        Raises:
            BatchEnded: it was ended before, with its objects.
            InvalidArgument: as :meth:`join_batch`.
        """

    @abstractmethod
    def transfer_ownership(
        self, objects: Ref | Object | Iterable[Ref | Object], batch: BatchRef | None
    ) -> None:
        """Let objects go with another batch from now on, or with none.

        The batch in which they were made still lists them: :meth:`destroy_batch` takes them too.

        Args:
            objects: Names, ids or objects.
            batch: The new one; None lets them stay until they are deleted.

        Raises:
            ObjectNotFound: one is not there. Those before it may have been passed on.
            BatchEnded: the batch is over.
            InvalidArgument: as :meth:`join_batch`.
        """

    @abstractmethod
    def batches(self) -> list[BatchInfo]:
        """The batches of this session, in the order in which they were begun; those too that are over and
        whose objects were not all reclaimed yet.
        """
