"""What all parts of a remote handle stand on: a way to the gateway, the session that is meant, and one
request at a time.
"""

from __future__ import annotations

import builtins
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from flightstore.errors import (
    GatewayBusy,
    GatewayUnreachable,
    GetTimeout,
    InvalidArgument,
    NotAllowed,
    NotStorable,
    ObjectNotFound,
    StoreClosed,
)
from flightstore.objects.base import Object
from flightstore.objects.registry import open_object
from flightstore.remote.fetched import RemoteView, opened
from flightstore.remote.mediated import Mapping
from flightstore.remote.transport import Transport
from flightstore.store import current
from flightstore.store.attached import checked, deadline_of
from flightstore.store.forked import renewed_in_children
from flightstore.types import Holder, ObjectID, Ref
from flightstore.wire import messages as m

__all__ = ["Attached", "Shared", "metadata_raw", "slice_of"]

T = TypeVar("T", bound=msgspec.Struct)

WAIT_SLICE_S = 30.0
"""A gateway waits no longer for one request."""
_MAX_METADATA_BYTES = 1 << 20


class Shared:
    """What the handles on one gateway share: the store itself, and its sessions."""

    def __init__(self, transport: Transport, hello: m.Hello, url: str) -> None:
        self.transport = transport
        self.url = url
        """The gateway, as it was named."""
        self.hello = hello
        self.nonce = bytes.fromhex(hello.nonce)
        self.map_path: str | None = None
        """The gateway's socket for those who map, if that is wanted."""
        self.authorization: str | None = None
        self._lock = threading.Lock()
        renewed_in_children(self, "_lock")
        self._users = 0

    def joined(self) -> Shared:
        """For one more handle."""
        with self._lock:
            self._users += 1
        return self

    @property
    def closed(self) -> bool:
        """Whether nobody uses it any more."""
        return self._users <= 0

    def left(self) -> None:
        """By one handle; the last closes the transport."""
        with self._lock:
            self._users -= 1
            last = self._users <= 0
        if last:
            self.transport.close()
        else:
            self.transport.rest()


class Attached:
    """One handle on a gateway's store, or on a session of it."""

    @property
    def mapped(self) -> bool:
        """Whether what is got lies in the store's memory. A handle that could write there is a local one."""
        return self._mapping is not None

    def __init__(self, shared: Shared, session: m.SessionReply | None, session_text: str | None) -> None:
        self._session = session.number if session is not None else 0
        self._session_known = session
        self.session_text = session_text
        """What tells the gateway which session is meant: its number, or the name that the token knows."""
        self._closing = threading.Lock()
        renewed_in_children(self, "_closing")
        self._abandoned: deque[ObjectID] = deque()
        self._mapping = self._mapping_of(shared)
        self._shared_or_none: Shared | None = shared.joined()

    @property
    def _shared(self) -> Shared:
        shared = self._shared_or_none
        if shared is None:
            raise StoreClosed("this store handle was closed", hint="connect again")
        return shared

    @property
    def url(self) -> str:
        """The gateway."""
        return self._shared.url

    @property
    def nonce(self) -> bytes:
        """What tells the store from every other one."""
        return self._shared.nonce

    @property
    def path(self) -> str:
        """Directory of the store, on the gateway's machine."""
        return self._shared.hello.path

    @property
    def capacity_bytes(self) -> int:
        """Upper bound of the memory for payload."""
        return self._shared.hello.capacity_bytes

    @property
    def home(self) -> tuple[bytes, int]:
        """Store and session, for the batches that are current; local handles on the store have others."""
        return b"remote " + self.nonce, self._session

    @property
    def _current(self) -> int:
        """Number of the batch that new objects go with; 0 for none."""
        if not current.any_entered():
            return 0
        found = current.current(*self.home)
        return found.number if found is not None else 0

    def _act(self, action: str, request: msgspec.Struct, reply: type[T], *, wait_s: float = 0) -> T:
        raw = self._shared.transport.act(action, m.encode(request), session=self.session_text, wait_s=wait_s)
        return m.decode(raw, reply)

    def _mapping_of(self, shared: Shared) -> Mapping | None:
        """A mapping of the store's memory, if the gateway will have it."""
        if shared.map_path is None:
            return None
        try:
            return Mapping(shared.map_path, authorization=shared.authorization, session=self.session_text)
        except (GatewayUnreachable, GatewayBusy, NotAllowed):
            return None

    # --- what several parts need ---

    def fetch(self, ref: Ref) -> Object:
        """An object that is there.

        Raises:
            ObjectNotFound: it is not.
        """
        if self._mapping is not None:
            handle = self._mapping.get(lambda object_id: RemoteView(self, object_id), ref)
            if handle is not None:
                return open_object(handle)
        header, payload = self._shared.transport.get_frame(m.text_of(ref), session=self.session_text)
        return opened(self, header, payload)

    def get(self, ref: Ref, *, timeout: float | None = 0) -> Object:
        """The object, copied into this process's memory; see :meth:`flightstore.abc.AbstractStore.get`.

        The copy is private: it stays what it is, and holds nothing in the store.
        """
        checked(ref)
        deadline = deadline_of(timeout)
        while True:
            try:
                return self.fetch(ref)
            except ObjectNotFound:
                if timeout == 0:
                    raise
            if not any(self._ready([ref], 1, deadline)):
                raise self._timed_out(ref, timeout) from None

    def _timed_out(self, ref: Ref, timeout: float | None) -> GetTimeout:
        what = str(ref) if isinstance(ref, ObjectID) else repr(ref)
        return GetTimeout(
            f"no object {what} appeared in {self.url} within {timeout:g} s",
            hint="check that it is put under this name, or allow more time",
        )

    def _ready(self, refs: builtins.list[Ref], needed: int, deadline: float | None) -> builtins.list[bool]:
        """Which are there, once so many are or the time is over."""
        texts = [m.text_of(checked(ref)) for ref in refs]
        while True:
            wait_s = slice_of(deadline)
            request = m.Wait(refs=texts, num_ready=needed, timeout_s=wait_s)
            ready = self._act("wait", request, m.Ready, wait_s=wait_s).ready
            if sum(ready) >= needed or (deadline is not None and time.monotonic() >= deadline):
                return ready

    def holders(self, ref: Ref) -> builtins.list[Holder]:
        """The processes on the store's machine that hold references on an object.

        Raises:
            ObjectNotFound: there is none.
        """
        found = self._act("holders", m.OneRef(ref=m.text_of(checked(ref))), m.Records)
        return [Holder(**one) for one in found.records]

    def _refs_of(self, objects: Ref | Object | Iterable[Ref | Object]) -> builtins.list[Ref]:
        """Names and ids of objects of this store and session."""
        several = [objects] if isinstance(objects, str | ObjectID | Object) else objects
        return [self._ref_of(one) for one in several]

    def _ref_of(self, one: Ref | Object) -> Ref:
        if not isinstance(one, Object):
            return checked(one)
        view = one._live.store
        if not isinstance(view, RemoteView) or view.source.home != self.home:
            raise InvalidArgument(
                f"the object {one.id} is not of the store and session at {self.url}",
                hint="put it here first: store.put(obj)",
            )
        return one.id


def slice_of(deadline: float | None) -> float:
    """How long to wait in one request."""
    if deadline is None:
        return WAIT_SLICE_S
    return min(max(deadline - time.monotonic(), 0.0), WAIT_SLICE_S)


def metadata_raw(metadata: Any) -> bytes:
    """The user's metadata as they are sent.

    Raises:
        NotStorable: msgpack cannot hold them, or they are too long.
    """
    if metadata is None:
        return b""
    try:
        encoded = msgspec.msgpack.encode(metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotStorable(
            f"metadata of type {type(metadata).__name__} cannot be stored: {error}",
            hint="use None, numbers, text, bytes, lists and dicts",
        ) from error
    if len(encoded) > _MAX_METADATA_BYTES:
        raise NotStorable(
            f"the metadata takes {len(encoded):,} bytes, at most {_MAX_METADATA_BYTES:,} are allowed",
            hint="put it as an object of its own",
        )
    return encoded
