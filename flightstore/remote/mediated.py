"""Objects of a store on this machine, mapped by a process that cannot be its client: it is in another pid
namespace, or has a mount that is read-only. The gateway holds the references and sends what is needed to map;
wire.mediated has the messages.

What is read stays what it is as long as this process lives, also when the gateway dies: a file that the
gateway sent, and that is kept open and so locked here, stands for this process (lifecycle.guests).

A forked child shares that file, and whatever it inherited must stay protected for both. So at a fork every
attachment through which something is still read is *retired*, in parent and child: it gives nothing back any
more, and stays until both have ended. New objects come over a new one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable

import pyarrow as pa

from flightstore.catalog.records import ObjectRecord, decode_record
from flightstore.errors import GatewayUnreachable
from flightstore.objects.base import Handle, StoreView
from flightstore.types import ObjectID, Ref
from flightstore.wire.faults import error_of
from flightstore.wire.mediated import Answer, Greeting, Request, Welcome, received, send
from flightstore.wire.messages import text_of

__all__ = ["Mapping"]

_TIMEOUT_S = 10.0


class _Reference:
    """One reference on an object; buffers of its memory keep it."""

    __slots__ = ("__weakref__", "_attachment", "_number")

    def __init__(self, attachment: _Attachment, number: int) -> None:
        self._attachment = attachment
        self._number = number
        attachment.out.add(number)

    def __del__(self) -> None:
        self._attachment.give_back(self._number)


class _Attachment:
    """One connection, and the memory that came with it."""

    def __init__(self, path: str, greeting: Greeting) -> None:
        self.retired = False
        self.out: set[int] = set()
        """Numbers of the references that are not given back."""
        self._lock = threading.Lock()
        self._released: deque[int] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_TIMEOUT_S)
            self._socket.connect(path)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(self._socket, greeting)  # a gateway that is busy does not wait for it, and says so
            came = received(self._socket, Welcome, descriptors=2)
        except OSError as error:
            self._socket.close()
            raise GatewayUnreachable(f"no gateway answers at {path}: {error}") from error
        welcome, descriptors = came if came is not None else (Welcome(), [])
        if welcome.fault is not None or len(descriptors) != 2:
            self._socket.close()
            for descriptor in descriptors:
                os.close(descriptor)
            if welcome.fault is not None:
                raise error_of(welcome.fault)
            raise GatewayUnreachable(f"the gateway at {path} broke off")
        arena, self._stands_for_us = descriptors
        try:
            self._pages = pa.py_buffer(mmap.mmap(arena, welcome.arena_bytes, prot=mmap.PROT_READ))
        finally:
            os.close(arena)
        _attachments.add(self)

    def __del__(self) -> None:
        if hasattr(self, "_stands_for_us"):
            self._socket.close()
            os.close(self._stands_for_us)

    def get(self, ref: str, timeout_s: float) -> Answer:
        """Ask for an object.

        Raises:
            OSError: the connection is broken.
            FlightStoreError: what the gateway says.
        """
        with self._lock:
            self._socket.settimeout(_TIMEOUT_S + timeout_s)
            send(self._socket, Request(get=ref, timeout_s=timeout_s, release=self._taken()))
            came = received(self._socket, Answer)
        if came is None:
            raise ConnectionResetError("the gateway has ended")
        if came[0].fault is not None:
            raise error_of(came[0].fault)
        return came[0]

    def handle(self, view: Callable[[ObjectID], StoreView], answer: Answer) -> Handle:
        """The object of an answer, in the store's memory."""
        record: ObjectRecord = decode_record(answer.record)
        reference = _Reference(self, answer.number)
        base = (reference, self._pages)
        extents = [
            pa.foreign_buffer(self._pages.address + offset, length, base)
            for _, offset, length in record.extents
        ]
        first = extents[0] if extents else pa.py_buffer(b"")
        object_id = ObjectID.from_text(answer.id)
        return Handle(view(object_id), object_id, record, base, first, tuple(extents[1:]))

    def give_back(self, number: int) -> None:
        """For finalizers: waits for nobody. Who cannot send now leaves it to the next `get`."""
        if self.retired:
            return
        self.out.discard(number)
        self._released.append(number)
        if self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):  # it is broken: the gateway has dropped all, or is dead
                    send(self._socket, Request(release=self._taken()))
            finally:
                self._lock.release()

    def _taken(self) -> list[int]:
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._released.popleft())
        return taken


class Mapping:
    """A store's memory, through the socket at `path`. Thread-safe; goes on after a fork."""

    def __init__(self, path: str, *, authorization: str | None = None, session: str | None = None) -> None:
        self._path = path
        self._greeting = Greeting(authorization=authorization, session=session)
        self._lock = threading.Lock()
        self._attachment: _Attachment | None = _Attachment(path, self._greeting)
        _mappings.add(self)

    def get(self, view: Callable[[ObjectID], StoreView], ref: Ref, timeout_s: float = 0) -> Handle | None:
        """An object, mapped; None when its bytes do not lie in the store's memory and must be fetched.

        Args:
            view: Makes what the object of an id may ask about itself.
            ref: Its name or id.
            timeout_s: How long to wait for it, 30 at most.

        Raises:
            ObjectNotFound: there is none.
            GatewayUnreachable: the gateway does not answer.
        """
        for last in (False, True):
            attachment = self._current()
            try:
                answer = attachment.get(text_of(ref), timeout_s)
            except OSError as error:
                self._forget(attachment)  # views of before keep it, and it them
                if last:
                    raise GatewayUnreachable(f"the gateway at {self._path} broke off: {error}") from error
            else:
                return attachment.handle(view, answer) if answer.number else None
        raise AssertionError

    def close(self) -> None:
        """Ask for nothing more. What was got stays readable. Idempotent."""
        with self._lock:
            self._attachment = None

    def _current(self) -> _Attachment:
        with self._lock:
            if self._attachment is None:
                self._attachment = _Attachment(self._path, self._greeting)
            return self._attachment

    def _forget(self, attachment: _Attachment) -> None:
        with self._lock:
            if self._attachment is attachment:
                self._attachment = None


_mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()
_attachments: weakref.WeakSet[_Attachment] = weakref.WeakSet()
_retired: list[_Attachment] = []
"""Attachments of before a fork: what was read through them is protected until the process ends."""


def _before_fork() -> None:
    for mapping in list(_mappings):
        mapping._lock.acquire()
        mapping._attachment = None
    for attachment in list(_attachments):
        if attachment.out and not attachment.retired:
            attachment.retired = True
            _retired.append(attachment)


def _after_fork() -> None:
    for mapping in list(_mappings):
        if mapping._lock.locked():
            mapping._lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
