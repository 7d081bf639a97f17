"""The clients that the stateful machine drives: each carries out commands on a store handle of its own.

Lives here: `Executor` (commands on one handle), `LocalClient` (an executor in this process) and
`WorkerClient` (one in a forked process, driven over a pipe, that can be killed). Calls children.py and the
public API only, so any store can be driven.

Invariants: what an executor holds, it holds under a token that the machine chose, so that the machine knows
every reference there is. Results are private copies, never views. An error is handed over without its
traceback, whose frames would keep references.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.abc import AbstractStore, BlobBuilder
from flightstore.testing.children import Child, start
from flightstore.types import ObjectID, ObjectInfo, RecoverReport, Ref, StoreStats

__all__ = ["Answer", "Executor", "Got", "LocalClient", "WorkerClient"]

ANSWER_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Got:
    """What a get showed."""

    id: ObjectID
    """The object's id."""
    name: str | None
    """Its name."""
    kind: str
    """Its kind."""
    metadata: Any
    """What its creator attached."""
    value: Any
    """A copy of its value."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one command."""

    result: Any = None
    """What it returned."""
    error: Exception | None = None
    """What it raised instead."""


class Executor:
    """Commands on one store handle. The public methods are the commands."""

    def __init__(self, connect: Callable[[], AbstractStore]) -> None:
        self._connect = connect
        self._store = connect()
        self._held: dict[int, Any] = {}
        self._builders: dict[int, BlobBuilder] = {}
        self._late: dict[int, memoryview] = {}

    def run(self, command: str, arguments: tuple[Any, ...]) -> Answer:
        """Carry out one command."""
        try:
            return Answer(result=getattr(self, command)(*arguments))
        except Exception as error:
            error.add_note(traceback.format_exc())
            error.__cause__ = error.__context__ = None
            return Answer(error=error.with_traceback(None))

    # --- values ---

    def put(self, value: Any, name: str | None, object_id: ObjectID | None, metadata: Any) -> ObjectID:
        return self._store.put(value, name, object_id=object_id, metadata=metadata)

    def put_many(self, values: Mapping[str, Any] | list[Any]) -> list[ObjectID]:
        return self._store.put_many(values)

    def get(self, ref: Ref) -> Got:
        return _look(self._store.get(ref))

    def get_many(self, refs: list[Ref]) -> list[Got]:
        return [_look(obj) for obj in self._store.get_many(refs)]

    def hold(self, token: int, ref: Ref, view: bool) -> ObjectID:
        """Keep a reference: the object, or (where its memory is its value) only a view of it."""
        obj = self._store.get(ref)
        shares_memory = obj.kind in ("blob", "tensor", "table") and len(obj) > 0  # type: ignore[arg-type]
        self._held[token] = obj.value() if view and shares_memory else obj
        return obj.id

    def held(self, token: int) -> Any:
        """A copy of what is held now."""
        kept = self._held[token]
        return copy_of(kept.value() if hasattr(kept, "release") and hasattr(kept, "holders") else kept)

    def drop(self, token: int) -> None:
        """Give a reference back."""
        kept = self._held.pop(token, None)
        if hasattr(kept, "holders"):
            kept.release()
        self._late.pop(token, None)

    # --- building in place ---

    def create(
        self,
        token: int,
        nbytes: int,
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
        now: bool,
    ) -> ObjectID:
        make = self._store.create_now if now else self._store.create
        builder = make(nbytes, name, object_id=object_id, metadata=metadata)
        assert not any(builder.buffer), "a new object's memory is not zeroed"
        self._builders[token] = builder
        return builder.id

    def fill(self, token: int, at: int, data: bytes) -> None:
        self._builders[token].buffer[at : at + len(data)] = data

    def seal(self, token: int, keep_view: bool) -> ObjectID:
        """Seal; with `keep_view`, keep the writable view that the builder gave out."""
        builder = self._builders.pop(token)
        if keep_view:
            self._late[token] = builder.buffer
        return builder.seal()

    def scribble(self, token: int) -> None:
        """Write through a view kept from before the seal: must reach nobody."""
        view = self._late[token]
        view[:] = b"\xee" * len(view)

    def abort(self, token: int) -> None:
        self._builders.pop(token).abort()

    def abort_id(self, object_id: ObjectID) -> bool:
        return self._store.abort(object_id)

    def forget(self, token: int) -> None:
        """Lose a builder without a word."""
        del self._builders[token]

    # --- the rest ---

    def delete(self, refs: list[Ref], if_unused: bool) -> int:
        return self._store.delete(refs, if_unused=if_unused)

    def contains(self, ref: Ref) -> bool:
        return self._store.contains(ref)

    def wait(self, refs: list[Ref], num_ready: int) -> tuple[list[Ref], list[Ref]]:
        return self._store.wait(refs, num_ready=num_ready, timeout=0)

    def list(self, pattern: str | None) -> list[ObjectInfo]:
        return self._store.list(pattern)

    def stat(self, ref: Ref) -> ObjectInfo:
        return self._store.stat(ref)

    def stats(self) -> StoreStats:
        return self._store.stats()

    def recover(self) -> RecoverReport:
        return self._store.recover()

    def reopen(self) -> None:
        """Close the handle and connect again; what is held stays valid."""
        self.close()
        self.open()

    def close(self) -> None:
        self._store.close()

    def open(self) -> None:
        self._store = self._connect()

    def forget_all(self) -> None:
        """In a forked worker: drop what this copy of another client holds."""
        self._held.clear()
        self._late.clear()
        self._builders.clear()

    @property
    def store(self) -> AbstractStore:
        """The handle."""
        return self._store


class LocalClient:
    """A client in this process."""

    def __init__(self, connect: Callable[[], AbstractStore]) -> None:
        self.executor = Executor(connect)

    def call(self, command: str, *arguments: Any) -> Answer:
        """Carry out one command."""
        return self.executor.run(command, arguments)

    def end(self) -> None:
        """Give up everything."""
        self.executor.forget_all()
        self.executor.close()


class WorkerClient:
    """A client in a forked process.

    Args:
        connect: Connects to the store, in the worker.
        others: The executors of this process: the worker drops its copies of what they hold, so that the
            references that a fork adds are gone before its first command.
    """

    def __init__(self, connect: Callable[[], AbstractStore], others: Iterable[Executor]) -> None:
        self._pipe, theirs = Pipe()
        self._process: Child[None] = start(_serve, connect, list(others), theirs, self._pipe)
        theirs.close()
        self.call("stats")  # what it inherited is dropped by the time it answers

    def call(self, command: str, *arguments: Any) -> Answer:
        """Carry out one command.

        Raises:
            TimeoutError: no answer came; ChildDied: the worker is gone.
        """
        self._pipe.send((command, arguments))
        if not self._pipe.poll(ANSWER_DEADLINE_S):
            raise TimeoutError(f"worker {self._process.pid} did not answer {command}")
        try:
            answer: Answer = self._pipe.recv()
        except EOFError:
            self._process.result(deadline_s=5)
            raise
        return answer

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._pipe.close()

    def end(self) -> None:
        """Kill it: whatever it holds is its death's to release."""
        self.kill()


def _serve(
    connect: Callable[[], AbstractStore], others: list[Executor], pipe: Connection, parents: Connection
) -> None:
    """The life of a worker: until its pipe is closed."""
    parents.close()
    for other in others:
        other.forget_all()
    executor = Executor(connect)
    with contextlib.suppress(EOFError):
        while True:
            command, arguments = pipe.recv()
            pipe.send(executor.run(command, arguments))


def _look(obj: Any) -> Got:
    return Got(obj.id, obj.name, obj.kind, obj.metadata, copy_of(obj.value()))


def copy_of(value: Any) -> Any:
    """A private copy of a value that may lie in the store, in a form that can be pickled and compared."""
    if isinstance(value, dict):
        return {key: copy_of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copy_of(part) for part in value]
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value)
        return pa.ipc.open_stream(pa.py_buffer(sink.getvalue().to_pybytes())).read_all()
    return value
