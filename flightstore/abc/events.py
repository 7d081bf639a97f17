"""Hearing of what happens in a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol, Self

from flightstore.types import Event, ObjectID

__all__ = ["AbstractSubscribing", "EventCallback", "Subscription"]


class Subscription(ABC):
    """The events of a store, in the order in which they happened, each once and none left out.

    Iterate over it, with ``for`` or with ``async for``: it waits for what is yet to happen. Any thread may
    use it; each event goes to one of them. As a context manager it is closed at the end. It belongs to the
    process that made it: a forked child subscribes again, with ``since=subscription.position``.
    """

    @abstractmethod
    def poll(self, timeout: float | None = 0) -> Event | None:
        """The next event, or None when there is none within `timeout` seconds, or when it was closed.

        Raises:
            EventsMissed: once, when events were dropped that it had not seen; the next call goes on.
            StoreClosed: the store was destroyed.
        """

    @property
    @abstractmethod
    def position(self) -> int:
        """Number of the last event that it is done with: ``subscribe(since=position)`` goes on behind it.

        Store it when you are done with an event, and no event is lost or comes twice, whoever goes on.
        """

    @abstractmethod
    def close(self) -> None:
        """End it, also for a thread that waits for the next event. Idempotent."""

    @abstractmethod
    def __next__(self) -> Event:
        """The next event. Ends the iteration when it was closed or its time is over; raises as `poll`."""

    @abstractmethod
    async def __anext__(self) -> Event:
        """The next event, for asyncio; waiting blocks neither the loop nor the exit of the program."""

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class EventCallback(Protocol):
    """A function that is called for events, until this is closed."""

    def close(self) -> None:
        """Call it no more; a call that is under way ends. Idempotent, and may be used in the function."""


class AbstractSubscribing(ABC):
    """What a store offers to those who want to hear of what happens in it."""

    @abstractmethod
    def subscribe(
        self,
        pattern: str | ObjectID | None = None,
        *,
        since: int | None = None,
        kinds: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Follow the events of this store: objects added, deleted, spilled, and creates that found no room.

        Every event is recorded in the commit that it tells of, so numbers ascend in the order of the commits,
        and a process that dies takes none with it. Putting a name anew gives two events, ``deleted`` and
        ``added``. The store keeps the latest events only, 1,024 or more (one for each 8 KiB of its catalog).

        Args:
            pattern: A shell pattern for names, or an id; None for all. An event without a name (``full``,
                objects without one) matches no pattern.
            since: Number of the last event that was seen; 0 for everything that is still kept. None for what
                happens from this call on.
            kinds: Some of ``added``, ``deleted``, ``spilled``, ``full``; None for all.
            timeout: Seconds without an event after which an iteration ends; None for never.

        Raises:
            InvalidArgument: no such kind, or no event has that number yet.
        """

    @abstractmethod
    def on_added(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None = None
    ) -> EventCallback:
        """Call a function whenever an object was sealed, from now on until the handle returned is closed.

        All functions of one handle on the store are called by one thread, a daemon, in the order of the
        events; a slow one delays the others. What a function raises goes to the logger ``flightstore`` and
        stops nothing. The thread ends with the handle, and does not hold up the end of the program. A forked
        child has none of its parent's callbacks: register them there again.
        """

    @abstractmethod
    def on_deleted(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None = None
    ) -> EventCallback:
        """Call a function whenever a sealed object was deleted, or its name put anew. See `on_added`."""

    @abstractmethod
    def on_spilled(
        self, function: Callable[[Event], object], pattern: str | ObjectID | None = None
    ) -> EventCallback:
        """Call a function whenever an object begins to be spilled. See `on_added`."""

    @abstractmethod
    def on_full(self, function: Callable[[Event], object]) -> EventCallback:
        """Call a function whenever a create found no room. See `on_added`."""
