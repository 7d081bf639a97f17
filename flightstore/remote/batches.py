"""The part of a remote store that scopes objects. What is current is kept as for local stores, apart from
them: a batch that was begun here is in no local handle's way.
"""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast

from flightstore.abc.batches import AbstractBatch, AbstractBatching, BatchRef
from flightstore.catalog.keys import check_name
from flightstore.errors import BatchEnded, InvalidArgument, StoreClosed
from flightstore.objects.base import Object
from flightstore.remote.attached import Attached
from flightstore.store import current
from flightstore.types import BatchInfo, Ref
from flightstore.wire import messages as m

if TYPE_CHECKING:
    from flightstore.remote.store import RemoteStore

__all__ = ["Batching", "RemoteBatch"]

Refs: TypeAlias = Ref | Object | Iterable[Ref | Object]
_LONGEST_TIMEOUT_S = 1e9


class RemoteBatch(AbstractBatch):
    """A batch behind a gateway: it belongs to the gateway's process, not to this one.

    The end of its block ends it. If this process dies before, its timeout does, or the end of the gateway.
    """

    def __init__(
        self, store: Batching, reply: m.BatchReply, name: str | None, parent: int | None, *, joined: bool
    ) -> None:
        self._store = store
        self._reply = reply
        self._name = name
        self._parent = parent
        self._joined = joined
        self._pid = os.getpid()
        self._home = store.home

    @property
    def number(self) -> int:
        return self._reply.number

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def store(self) -> RemoteStore:
        return cast("RemoteStore", self._store)

    @property
    def home(self) -> tuple[bytes, int]:
        """Its store, and its session."""
        return self._home

    @property
    def token(self) -> str:
        return self._reply.token

    def activate(self) -> AbstractContextManager[Self]:
        return _Activation(self)

    def keep(self, objects: Refs) -> None:
        refs = [m.text_of(ref) for ref in self._store._refs_of(objects)]
        self._store._act("keep", m.KeepObjects(batch=self.number, refs=refs), m.Done)

    def end(self) -> None:
        self._store._act("end_batch", m.OneBatch(batch=self.number), m.Done)

    def delete(self) -> None:
        self._store._act("destroy_batch", m.OneBatch(batch=self.number), m.Done)

    def leave(self) -> None:
        """The batch is not the gateway's any more, for whichever client it was begun."""
        self._store._act("leave_batch", m.OneBatch(batch=self.number), m.Done)

    def status(self) -> BatchInfo:
        found = self._store._act("batch_status", m.OneBatch(batch=self.number), m.Record).record
        if "objects" in found:
            return _info(found)
        return BatchInfo(self.number, self._name, "ended", 0, 0, self._parent, (), 0, None, self._home[1])

    def __enter__(self) -> Self:
        try:
            current.enter(self)
            return self
        except BaseException:  # interrupted: what is put afterwards must not go with this batch
            current.leave(self)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            current.leave(self)
        except BaseException:
            current.leave(self)
            self._end_at_exit()
            raise
        self._end_at_exit()

    def _end_at_exit(self) -> None:
        """A joined one goes on: the gateway may have it for others, too."""
        if self._pid == os.getpid() and not self._joined:
            with contextlib.suppress(BatchEnded, StoreClosed):
                self.end()

    def __reduce__(self) -> tuple[Callable[..., AbstractBatch], tuple[Any, ...]]:
        store = self._store
        return _arrived, (store.url, store.session_text, self.token)

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<RemoteBatch {self.number}{name} of {self._store.url}>"


_B = TypeVar("_B", bound=RemoteBatch)


class _Activation(AbstractContextManager[_B]):
    """A block in which a batch is current, and that ends nothing."""

    def __init__(self, batch: _B) -> None:
        self._batch = batch

    def __enter__(self) -> _B:
        try:
            current.enter(self._batch)
            return self._batch
        except BaseException:
            current.leave(self._batch)
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            current.leave(self._batch)
        except BaseException:
            current.leave(self._batch)
            raise


def _arrived(url: str, session: str | None, token: str) -> AbstractBatch:
    """A batch that travelled here, joined.

    Raises:
        GatewayUnreachable, NotAuthenticated: its gateway cannot be reached from here, or wants a token.
        BatchEnded: it is over.
        InvalidArgument: another store is there now.
    """
    from flightstore.remote.connecting import handle_for

    return handle_for(url, session).join_batch(token)


class Batching(Attached, AbstractBatching):
    """batch, new_batch, current_batch, join_batch, end_batch, destroy_batch, transfer_ownership, batches."""

    def batch(
        self, name: str | None = None, *, timeout: float | None = None, cleanup: bool = True
    ) -> RemoteBatch:
        """As that of a local store; but it belongs to the gateway's process.

        Give it a timeout: when this process dies, nothing else ends it before the gateway ends.
        """
        if name is not None:
            check_name(name)
        if timeout is not None and not 0 < timeout <= _LONGEST_TIMEOUT_S:
            raise InvalidArgument(f"a batch's timeout of {timeout} s: give seconds, more than 0, or None")
        parent = self._current
        request = m.NewBatch(name=name, timeout_s=timeout, cleanup=cleanup, parent=parent)
        return RemoteBatch(
            self, self._act("batch", request, m.BatchReply), name, parent or None, joined=False
        )

    def new_batch(
        self, name: str | None = None, *, timeout: float | None = None, cleanup: bool = True
    ) -> RemoteBatch:
        return self.batch(name, timeout=timeout, cleanup=cleanup)

    def current_batch(self) -> RemoteBatch | None:
        found = current.current(*self.home)
        assert found is None or isinstance(found, RemoteBatch)
        return found

    def join_batch(self, batch: BatchRef) -> RemoteBatch:
        """Make a batch belong to the gateway's process, too."""
        reply = self._act("join_batch", m.OneBatch(batch=self._named(batch)), m.BatchReply)
        known = self._act("batch_status", m.OneBatch(batch=reply.number), m.Record).record
        return RemoteBatch(self, reply, known.get("name"), known.get("parent"), joined=True)

    def end_batch(self, batch: BatchRef) -> None:
        self._act("end_batch", m.OneBatch(batch=self._named(batch)), m.Done)

    def destroy_batch(self, batch: BatchRef) -> None:
        self._act("destroy_batch", m.OneBatch(batch=self._named(batch)), m.Done)

    def transfer_ownership(self, objects: Refs, batch: BatchRef | None) -> None:
        refs = [m.text_of(ref) for ref in self._refs_of(objects)]
        named = None if batch is None else self._named(batch)
        self._act("transfer", m.Transfer(refs=refs, batch=named), m.Done)

    def batches(self) -> builtins.list[BatchInfo]:
        return [_info(one) for one in self._act("batches", m.Empty(), m.Records).records]

    def _named(self, batch: BatchRef) -> int | str:
        """A batch as requests name it."""
        if isinstance(batch, AbstractBatch):
            return batch.token
        if isinstance(batch, str) or (isinstance(batch, int) and not isinstance(batch, bool)):
            return batch
        raise InvalidArgument(f"{batch!r} is not a batch, nor the token or number of one")


def _info(record: dict[str, Any]) -> BatchInfo:
    return BatchInfo(**{**record, "owner_pids": tuple(record["owner_pids"])})
