"""The store behind a gateway: putting, getting, deleting, looking. Its other parts are mixins, one file each,
named like the parts of the contract.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flightstore.abc import AbstractStore
from flightstore.errors import GatewayUnreachable, InvalidArgument, NotOffered, ObjectNotFound, StoreBusy
from flightstore.objects.base import Object, Payload
from flightstore.objects.registry import encode
from flightstore.remote.attached import Attached, Shared, metadata_raw
from flightstore.remote.batches import Batching
from flightstore.remote.building import Building
from flightstore.remote.composing import Composing
from flightstore.remote.events import Subscribing
from flightstore.remote.fetched import opened
from flightstore.remote.keeping import Keeping
from flightstore.remote.repeating import until_there_is_room
from flightstore.remote.sessions import Sessions
from flightstore.remote.streaming import Streaming
from flightstore.store.attached import check_new, checked, deadline_of, listed
from flightstore.store.waiting import in_thread
from flightstore.types import ObjectID, ObjectInfo, RecoverReport, Ref, StoreStats
from flightstore.wire import messages as m
from flightstore.wire.frames import FrameHeader
from flightstore.wire.many import INLINE_BYTES, MAX_INLINE_BYTES, GetMany, Many, OneOfMany, PutMany

__all__ = ["RemoteStore"]

_GET_MANY_ROUNDS = 100


class RemoteStore(Building, Composing, Streaming, Keeping, Sessions, Batching, Subscribing, AbstractStore):
    """A store behind a gateway. Made by :func:`flightstore.connect`; thread-safe. A forked child can use its
    parent's handle over HTTP, not over Flight.

    The interface is that of a local store. What differs, because this process does not map the memory:

    - What is got is a private copy, and holds no reference in the store: ``refs`` do not count it, and
      deleting or evicting does not wait for it.
    - What is composed is fetched when more than its id is asked for, and must still be there then.
    - `create` builds in private memory: room and id are asked for at the seal.
    - Batches and sessions that are begun here belong to the gateway's process (see `batch`).
    """

    def __init__(self, shared: Shared, session: m.SessionReply | None, session_text: str | None) -> None:
        Attached.__init__(self, shared, session, session_text)
        Subscribing.__init__(self)

    # --- putting ---

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
        deadline = deadline_of(timeout)
        check_new(name, object_id)
        payload = encode(value, pickle=pickle)
        header = self._header(payload, name, object_id, metadata, evictable)
        return self._put_payload(header, payload, deadline, ours=object_id is None)

    def _put_payload(
        self, header: FrameHeader, payload: Payload, deadline: float | None, *, ours: bool
    ) -> ObjectID:
        """Send an object. `ours`: its id was made up here, so whether it is there tells whether it arrived.

        A small one goes as an action, which takes the gateway less work than a frame does.
        """
        object_id = ObjectID.from_text(str(header.id))
        try:
            if payload.size_bytes <= INLINE_BYTES and not header.staged:
                self._put_inline([OneOfMany(header=header, payload=_joined(payload))], deadline)
            else:
                self._put_frame(header, payload, deadline)
        except GatewayUnreachable:
            if not (ours and self._arrived(object_id)):
                raise
        return object_id

    def _put_frame(self, header: FrameHeader, payload: Payload, deadline: float | None) -> None:
        transport = self._shared.transport

        def attempt(wait_s: float) -> None:
            header.timeout_s = wait_s
            transport.put_frame(header, payload.pieces, session=self.session_text, wait_s=wait_s)

        until_there_is_room(attempt, deadline)

    def _put_inline(self, objects: builtins.list[OneOfMany], deadline: float | None) -> None:
        def attempt(wait_s: float) -> None:
            self._act("put_many", PutMany(objects=objects, timeout_s=wait_s), m.Done, wait_s=wait_s)

        until_there_is_room(attempt, deadline)

    def _arrived(self, object_id: ObjectID) -> bool:
        try:
            return self.contains(object_id)
        except GatewayUnreachable:
            return False

    def put_many(
        self,
        values: Mapping[str, Any] | Iterable[Any],
        *,
        pickle: bool = True,
        evictable: bool = False,
        timeout: float | None = 0,
    ) -> list[ObjectID]:
        deadline = deadline_of(timeout)
        pairs: Iterable[tuple[str | None, Any]]
        pairs = values.items() if isinstance(values, Mapping) else ((None, value) for value in values)
        encoded = []
        for name, value in pairs:
            check_new(name, None)
            payload = encode(value, pickle=pickle)
            encoded.append((self._header(payload, name, None, None, evictable), payload))
        if encoded:
            self._put_together(encoded, deadline)
        return [ObjectID.from_text(str(header.id)) for header, _ in encoded]

    def _put_together(self, encoded: Sequence[tuple[FrameHeader, Payload]], deadline: float | None) -> None:
        """Small ones in the request that commits all; large ones are staged before."""
        inline = 0
        objects = []
        staged = []
        for header, payload in encoded:
            inline += payload.size_bytes
            if payload.size_bytes <= INLINE_BYTES and inline <= MAX_INLINE_BYTES:
                objects.append(OneOfMany(header=header, payload=_joined(payload)))
            else:
                header.staged = True
                staged.append((header, payload))
                objects.append(OneOfMany(header=header))
        try:
            for header, payload in staged:
                self._put_payload(header, payload, deadline, ours=False)
            self._put_inline(objects, deadline)
        except BaseException:
            self._unstage([str(header.id) for header, _ in staged])
            raise

    def _unstage(self, refs: builtins.list[str]) -> None:
        """Give up what was staged. The gateway does it by itself after a while."""
        if refs:
            try:
                self._act("unstage", m.Refs(refs=refs), m.Count)
            except GatewayUnreachable:
                return

    def _header(
        self,
        payload: Payload,
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
        evictable: bool = False,
    ) -> FrameHeader:
        return FrameHeader(
            kind=payload.kind,
            size_bytes=payload.size_bytes,
            layout=payload.layout,
            num_rows=payload.num_rows,
            origin=payload.origin,
            name=name,
            id=str(object_id if object_id is not None else ObjectID.random()),
            metadata_raw=metadata_raw(metadata),
            evictable=evictable,
            batch=self._current,
        )

    # --- getting ---

    def get_many(self, refs: Iterable[Ref], *, timeout: float | None = 0) -> list[Object]:
        wanted = [checked(ref) for ref in refs]
        deadline = deadline_of(timeout)
        if not wanted:
            return []
        rounds = 0
        while True:
            try:
                return self._got_many(wanted)
            except ObjectNotFound:
                ready = self._ready(wanted, len(wanted), deadline if timeout != 0 else time.monotonic())
                if not all(ready):
                    if timeout == 0:
                        raise
                    missing = next(ref for ref, there in zip(wanted, ready, strict=True) if not there)
                    raise self._timed_out(missing, timeout) from None
            rounds += 1  # they are all there, but one was put anew while the others were fetched
            if rounds == _GET_MANY_ROUNDS:
                raise StoreBusy(f"the objects {wanted} at {self.url} are put anew all the time")

    def _got_many(self, refs: builtins.list[Ref]) -> builtins.list[Object]:
        """As they are at one moment: ids never change their bytes, so large ones may be fetched after it."""
        request = GetMany(refs=[m.text_of(ref) for ref in refs])
        found = []
        for one in self._act("get_many", request, Many).objects:
            if one.payload is None:
                found.append(self.fetch(ObjectID.from_text(str(one.header.id))))
            else:
                found.append(opened(self, one.header, private_copy(one.payload)))
        return found

    async def get_async(self, ref: Ref, *, timeout: float | None = None) -> Object:
        checked(ref)
        deadline_of(timeout)

        def step(slice_s: float) -> Object | None:
            try:
                return self.get(ref, timeout=slice_s)
            except ObjectNotFound:
                return None

        found = await in_thread(step, timeout)
        if found is None:
            raise self._timed_out(ref, timeout)
        return found

    def contains(self, ref: Ref) -> bool:
        return self._act("contains", m.OneRef(ref=m.text_of(checked(ref))), m.Found).found

    def wait(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        wanted = list(refs)
        needed = len(wanted) if num_ready is None else num_ready
        if not 0 <= needed <= len(wanted):
            raise InvalidArgument(f"num_ready is {needed}, of {len(wanted)} references")
        flags = self._ready(wanted, needed, deadline_of(timeout))
        ready = [ref for ref, is_ready in zip(wanted, flags, strict=True) if is_ready]
        return ready, [ref for ref, is_ready in zip(wanted, flags, strict=True) if not is_ready]

    async def wait_async(
        self, refs: Iterable[Ref], *, num_ready: int | None = None, timeout: float | None = None
    ) -> tuple[list[Ref], list[Ref]]:
        wanted = list(refs)
        needed = len(wanted) if num_ready is None else num_ready

        def step(slice_s: float) -> tuple[builtins.list[Ref], builtins.list[Ref]] | None:
            result = self.wait(wanted, num_ready=needed, timeout=slice_s)
            return result if len(result[0]) >= needed else None

        result = await in_thread(step, timeout)
        return result if result is not None else self.wait(wanted, num_ready=needed, timeout=0)

    # --- deleting ---

    def delete(self, refs: Ref | Iterable[Ref], *, if_unused: bool = False) -> int:
        texts = [m.text_of(ref) for ref in listed(refs)]
        return self._act("delete", m.Delete(refs=texts, if_unused=if_unused), m.Count).count

    # --- looking ---

    def list(self, pattern: str | None = None) -> list[ObjectInfo]:
        found = self._act("list", m.ListObjects(pattern=pattern), m.Objects)
        return [m.object_info(one) for one in found.objects]

    def stat(self, ref: Ref) -> ObjectInfo:
        return m.object_info(self._act("stat", m.OneRef(ref=m.text_of(checked(ref))), m.Info))

    def stats(self) -> StoreStats:
        return StoreStats(**self._act("stats", m.Empty(), m.Record).record)

    # --- upkeep ---

    def recover(self) -> RecoverReport:
        return RecoverReport(**self._act("recover", m.Empty(), m.Record).record)

    # --- the end ---

    def close(self) -> None:
        with self._closing:
            shared, self._shared_or_none = self._shared_or_none, None
        if shared is not None:
            self._end_subscriptions()
            if self._mapping is not None:
                self._mapping.close()
            shared.left()

    def destroy(self) -> None:
        """Not offered: a store is destroyed on its own machine.

        Raises:
            NotOffered: always.
        """
        raise NotOffered(
            f"the store at {self.url} cannot be destroyed from here",
            hint=f"flightstore destroy {self.path}, on its own machine",
        )

    def __del__(self) -> None:
        if getattr(self, "_shared_or_none", None) is not None:
            self.close()

    def __repr__(self) -> str:
        shared = self._shared_or_none
        return f"<{type(self).__name__} {shared.url if shared else 'closed'}>"


def _joined(payload: Payload) -> bytes:
    whole = bytearray(payload.size_bytes)
    for offset, piece in payload.pieces:
        view = memoryview(piece).cast("B")
        whole[offset : offset + view.nbytes] = view
    return bytes(whole)


def private_copy(raw: bytes) -> Any:
    """A small payload at a multiple of 64."""
    from flightstore.remote.private import private_memory

    target, buffer = private_memory(len(raw))
    target[:] = raw
    return buffer
