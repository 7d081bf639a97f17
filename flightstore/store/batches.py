"""The part of the facade that scopes objects: batches, and which is current."""

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
from flightstore.lifecycle import batch_objects, batches
from flightstore.objects.base import Object
from flightstore.store import current
from flightstore.store.attached import Attached, checked
from flightstore.store.view import View
from flightstore.types import BatchInfo, ObjectID, Ref

if TYPE_CHECKING:
    from flightstore.store.local import Store

__all__ = ["Batch", "Batching"]

Refs: TypeAlias = Ref | Object | Iterable[Ref | Object]
_LONGEST_TIMEOUT_S = 1e9


class Batch(AbstractBatch):
    """A scope: the objects that are made in it go when it ends. Made by :meth:`Store.batch`; thread-safe."""

    def __init__(
        self, store: Batching, number: int, name: str | None, around: tuple[int, ...], *, joined: bool
    ) -> None:
        self._store = store  # keeps the connection, and so the process's ownership
        self._number = number
        self._name = name
        self._around = around
        self._joined = joined
        self._pid = os.getpid()
        conn = store._conn
        self._path = conn.path
        self._home = (conn.control.identity.nonce, store._session)

    @property
    def number(self) -> int:
        return self._number

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def store(self) -> Store:
        return cast("Store", self._store)  # which has all parts of the facade

    @property
    def home(self) -> tuple[bytes, int]:
        """The nonce of its store, and its session."""
        return self._home

    @property
    def token(self) -> str:
        return f"{self._home[0].hex()}:{self._number}"

    def activate(self) -> AbstractContextManager[Self]:
        return _Activation(self)

    def keep(self, objects: Refs) -> None:
        store = self._store
        batch_objects.keep(store._conn, self._home[1], self._number, store._refs_of(objects))

    def end(self) -> None:
        batches.end(self._store._conn, self._home[1], self._number)

    def delete(self) -> None:
        batches.delete(self._store._conn, self._home[1], self._number)

    def leave(self) -> None:
        batches.leave(self._store._conn, self._home[1], self._number)

    def status(self) -> BatchInfo:
        found = batch_objects.info(self._store._conn, self._number)
        if found is not None:
            return found
        parent = self._around[0] if self._around else None
        return BatchInfo(self._number, self._name, "ended", 0, 0, parent, (), 0, None, self._home[1])

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
        """What the end of a block does with the batch itself."""
        if self._pid != os.getpid():
            return  # in a forked child, which the batch does not belong to
        with contextlib.suppress(BatchEnded, StoreClosed):  # it ended in another way meanwhile
            if self._joined:
                self.leave()
            else:
                self._end_surely()

    def _end_surely(self) -> None:
        """End it now or, if that is interrupted, with the next write of this process."""
        conn = self._store._conn
        try:
            self.end()
        except BatchEnded:
            raise
        except BaseException:
            conn.undo((batches.end_step(conn, self._home[1], self._number),))
            raise

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        return _arrived, (self._path, self._home, self._number)

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<Batch {self._number}{name} of {self._path}>"


_B = TypeVar("_B", bound=Batch)


class _Activation(AbstractContextManager[_B]):
    """A block in which a batch is current, and that ends nothing. No generator: one that is interrupted as it
    ends would leave its batch current.
    """

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


def _arrived(path: str, home: tuple[bytes, int], number: int) -> Batch:
    """A batch that travelled here, joined.

    Raises:
        NotAStore, StoreClosed: its store is not on this machine, or was destroyed since.
        BatchEnded: it is over.
    """
    from flightstore.store.local import connect

    store = connect(path, create=False)
    if store._conn.control.identity.nonce != home[0]:
        store.close()
        raise StoreClosed(f"the store {path} that batch {number} is of was destroyed, another is there now")
    store._session = home[1]
    return store.join_batch(number)


class Batching(Attached, AbstractBatching):
    """batch, new_batch, current_batch, join_batch, end_batch, destroy_batch, transfer_ownership, batches."""

    def batch(self, name: str | None = None, *, timeout: float | None = None, cleanup: bool = True) -> Batch:
        if name is not None:
            check_name(name)
        if timeout is not None and not 0 < timeout <= _LONGEST_TIMEOUT_S:
            raise InvalidArgument(f"a batch's timeout of {timeout} s: give seconds, more than 0, or None")
        parent = self.current_batch()
        around = (parent._number, *parent._around) if parent is not None else ()
        number = batches.begin(self._conn, self._session, name, around, timeout, cleanup)
        return Batch(self, number, name, around, joined=False)

    def new_batch(
        self, name: str | None = None, *, timeout: float | None = None, cleanup: bool = True
    ) -> Batch:
        return self.batch(name, timeout=timeout, cleanup=cleanup)

    def current_batch(self) -> Batch | None:
        found = current.current(self._conn.control.identity.nonce, self._session)
        assert found is None or isinstance(found, Batch)
        return found

    def join_batch(self, batch: BatchRef) -> Batch:
        number = self._number_of(batch)
        record = batches.join(self._conn, self._session, number)
        return Batch(self, number, record.name or None, record.around, joined=True)

    def end_batch(self, batch: BatchRef) -> None:
        batches.end(self._conn, self._session, self._number_of(batch))

    def destroy_batch(self, batch: BatchRef) -> None:
        batches.delete(self._conn, self._session, self._number_of(batch))

    def transfer_ownership(self, objects: Refs, batch: BatchRef | None) -> None:
        number = 0 if batch is None else self._number_of(batch)
        batch_objects.transfer(self._conn, self._session, self._refs_of(objects), number)

    def batches(self) -> builtins.list[BatchInfo]:
        return batch_objects.infos(self._conn, self._session)

    def _number_of(self, batch: BatchRef) -> int:
        """The number of a batch of this store."""
        if isinstance(batch, int) and not isinstance(batch, bool):
            number, nonce = batch, self._conn.control.identity.nonce
        elif isinstance(batch, Batch):
            number, nonce = batch._number, batch._home[0]
        else:
            number, nonce = _parsed(batch)
        if nonce != self._conn.control.identity.nonce:
            raise InvalidArgument(f"batch {number} is not of the store {self.path}, but of another")
        if not 0 < number < 1 << 64:
            raise InvalidArgument(f"{number} is not the number of a batch")
        return number

    def _refs_of(self, objects: Refs) -> builtins.list[Ref]:
        """Names and ids of objects of this store and session."""
        several = [objects] if isinstance(objects, str | ObjectID | Object) else objects
        return [self._ref_of(one) for one in several]

    def _ref_of(self, one: Ref | Object) -> Ref:
        if not isinstance(one, Object):
            return checked(one)
        view = one._live.store
        if not isinstance(view, View) or view._conn is not self._conn or view._session != self._session:
            raise InvalidArgument(f"the object {one.id} is not of this store and session")
        return one.id


def _parsed(token: object) -> tuple[int, bytes]:
    """(number, nonce) in a token.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        nonce, number = str(token).split(":")
        return int(number), bytes.fromhex(nonce)
    except ValueError as error:
        raise InvalidArgument(f"{token!r} is not a batch, nor the token or number of one") from error
