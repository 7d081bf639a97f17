"""Any store for asyncio: the calls of one in a few threads, so that none blocks the loop.

What waits for something to happen (`get` with a timeout, `wait`) takes no thread of the few. A call that is
cancelled is not waited for any more; one that was begun is carried out all the same, as over a network it
could be in any case.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from flightstore.abc import AbstractStore
from flightstore.objects.base import Object
from flightstore.types import ObjectID, ObjectInfo, Ref, StoreStats

__all__ = ["AsyncStore"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncStore:
    """A store whose methods are coroutines: ``async with AsyncStore(flightstore.connect(url)) as store:``.

    Methods take the arguments of AbstractStore's; what they make goes with the current batch of their task.
    Use it in one event loop.
    """

    def __init__(self, store: AbstractStore, *, max_threads: int = 8) -> None:
        """Wrap a store; closing the wrapper closes it.

        Args:
            store: The store, local or remote.
            max_threads: How many calls run at a time; further ones wait for their turn.
        """
        self.store = store
        self._threads = ThreadPoolExecutor(max_threads, "flightstore-async")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Any function of the store, in a thread: ``await store.call(store.store.concat, names)``."""
        work = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def put(self, value: Any, name: str | None = None, **options: Any) -> ObjectID:
        """As AbstractStore.put."""
        return await self.call(self.store.put, value, name, **options)

    async def put_many(self, values: Mapping[str, Any] | Iterable[Any], **options: Any) -> list[ObjectID]:
        """As AbstractStore.put_many."""
        return await self.call(self.store.put_many, values, **options)

    async def get(self, ref: Ref, *, timeout: float | None = 0) -> Object:
        """As AbstractStore.get."""
        if timeout == 0:
            return await self.call(self.store.get, ref)
        return await self.store.get_async(ref, timeout=timeout)

    async def get_many(self, refs: Iterable[Ref]) -> list[Object]:
        """As AbstractStore.get_many, without waiting."""
        return await self.call(self.store.get_many, refs)

    async def wait(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        """As AbstractStore.wait."""
        return await self.store.wait_async(refs, num_ready=num_ready, timeout=timeout)

    async def contains(self, ref: Ref) -> bool:
        """As AbstractStore.contains."""
        return await self.call(self.store.contains, ref)

    async def delete(self, refs: Ref | Iterable[Ref], *, if_unused: bool = False) -> int:
        """As AbstractStore.delete."""
        return await self.call(self.store.delete, refs, if_unused=if_unused)

    async def list(self, pattern: str | None = None) -> list[ObjectInfo]:
        """As AbstractStore.list."""
        return await self.call(self.store.list, pattern)

    async def stat(self, ref: Ref) -> ObjectInfo:
        """As AbstractStore.stat."""
        return await self.call(self.store.stat, ref)

    async def stats(self) -> StoreStats:
        """As AbstractStore.stats."""
        return await self.call(self.store.stats)

    async def with_columns(
        self, ref: Ref | Object, columns: Any, name: str | None = None, **options: Any
    ) -> Object:
        """As AbstractStore.with_columns."""
        return await self.call(self.store.with_columns, ref, columns, name, **options)

    async def close(self) -> None:
        """Wait for the calls that are under way, and close the store."""
        await self.call(self.store.close)
        await asyncio.to_thread(self._threads.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
