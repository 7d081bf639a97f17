"""What every call does to the store, whatever it came by: one method for each action.

The servers (flight.py, http.py) find out who calls, take the request apart, and translate errors; they touch
no store. Every method here may be called from any thread, and blocks it for as long as the store does;
waiting for something to happen is cut to MAX_WAIT_S.

A gateway serves one store. Each session that somebody uses has one handle here, joined when it is first
asked for and kept until the gateway ends, so that a session's owner may die and its users go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

import flightstore
from flightstore.errors import EventsMissed, InvalidArgument, NotOffered
from flightstore.gateway.access import ADMIN, READ, WRITE, Caller
from flightstore.gateway.leases import Leases
from flightstore.gateway.many import Staged, get_many
from flightstore.objects.base import Object
from flightstore.store import current
from flightstore.store.local import Store
from flightstore.types import Event, ObjectID, Ref
from flightstore.wire import messages as m
from flightstore.wire.many import GetMany, Many, PutMany

__all__ = ["ACTIONS", "MAX_WAIT_S", "Service"]

MAX_WAIT_S = 30.0
"""No request waits longer for something to happen in the store, or for room."""


class _Action(NamedTuple):
    """One thing that a client may ask for by name."""

    request: type[msgspec.Struct]
    right: str
    function: Callable[..., msgspec.Struct]
    text: str


class _Scope(NamedTuple):
    """A batch that new objects go with, for the time of one request."""

    home: tuple[bytes, int]
    number: int


class Service:
    """The store as callers have it."""

    def __init__(self, store: Store, *, http_url: str | None = None) -> None:
        self.store = store
        self.http_url = http_url
        """Where the HTTP server is to be found, once there is one."""
        self.leases: Leases[Object] = Leases()
        self.staged = Staged()
        self._sessions: dict[str, Store] = {}
        self._lock = threading.Lock()

    # --- who, where ---

    def store_for(self, caller: Caller, session: str | None) -> Store:
        """The store, or the session of it, that a call is about.

        Args:
            caller: Who calls.
            session: Name or number of the session; None or empty for where the caller is at home.

        Raises:
            NotAllowed: the caller may not use that session.
            SessionNotFound: there is none of that number.
        """
        name = self._allowed(caller, session)
        if name is None:
            return self.store
        with self._lock:
            handle = self._sessions.get(name)
            if handle is not None and name.isdecimal():
                return handle  # over or not: it says so itself
            if handle is None or self._is_over(handle):
                number = int(name) if name.isdecimal() else None
                if number is None and caller.sessions is None and not self._is_there(name):
                    caller.require(WRITE, f"beginning the session {name!r}")
                handle = self.store.session(number if number is not None else name)
                self._sessions[name] = handle
            return handle

    def _allowed(self, caller: Caller, asked: str | None) -> str | None:
        """As Caller.session_for; the number of a session that is open here counts as its name."""
        handle = self._sessions.get(asked) if asked is not None and asked.isdecimal() else None
        if handle is not None and caller.sessions is not None:
            caller.session_for(getattr(handle, "session_name", None) or asked)
            return asked
        return caller.session_for(asked)

    def _is_there(self, name: str) -> bool:
        return any(one.name == name and one.state == "active" for one in self.store.sessions())

    def _is_over(self, handle: Store) -> bool:
        return all(one.id != handle._session or one.state != "active" for one in self.store.sessions())

    @contextlib.contextmanager
    def in_batch(self, store: Store, number: int) -> Iterator[None]:
        """What is made in the block goes with that batch; 0 for none."""
        if not number:
            yield
            return
        scope = _Scope((store._conn.control.identity.nonce, store._session), number)
        current.enter(scope)
        try:
            yield
        finally:
            current.leave(scope)

    def close(self) -> None:
        """Let go of everything that is held for clients."""
        self.leases.close()
        self.staged.close()
        with self._lock:
            for handle in self._sessions.values():
                handle.close()
            self._sessions.clear()

    # --- actions ---

    def act(self, caller: Caller, session: str | None, action: str, body: bytes | memoryview) -> bytes:
        """Carry out an action; returns the reply as JSON.

        Raises:
            NotOffered: there is no such action.
            InvalidArgument: the request is not what the action takes.
            NotAllowed: the caller has no right to it.
            FlightStoreError: what the store says.
        """
        found = ACTIONS.get(action)
        if found is None:
            raise NotOffered(f"there is no action {action!r}", hint="ListActions tells which there are")
        caller.require(found.right, f"the action {action}")
        request = m.decode(body, found.request)
        return m.encode(found.function(self, caller, self.store_for(caller, session), request))

    def _hello(self, caller: Caller, store: Store, request: m.Empty) -> m.Hello:
        name = getattr(store, "session_name", None)
        return m.Hello(
            protocol=m.PROTOCOL_VERSION,
            version=flightstore.__version__,
            path=store.path,
            nonce=store._conn.control.identity.nonce.hex(),
            capacity_bytes=store.capacity_bytes,
            http=self.http_url,
            session=store._session,
            session_name=name,
            rights=caller.rights,
        )

    def _stat(self, caller: Caller, store: Store, request: m.OneRef) -> m.Info:
        return m.info_of(store.stat(m.parse_ref(request.ref)))

    def _contains(self, caller: Caller, store: Store, request: m.OneRef) -> m.Found:
        return m.Found(found=store.contains(m.parse_ref(request.ref)))

    def _list(self, caller: Caller, store: Store, request: m.ListObjects) -> m.Objects:
        return m.Objects(objects=[m.info_of(one) for one in store.list(request.pattern)])

    def _wait(self, caller: Caller, store: Store, request: m.Wait) -> m.Ready:
        refs = _refs(request.refs)
        ready, _ = store.wait(refs, num_ready=request.num_ready, timeout=_slice(request.timeout_s))
        there = set(ready)
        return m.Ready(ready=[ref in there for ref in refs])

    def _holders(self, caller: Caller, store: Store, request: m.OneRef) -> m.Records:
        return m.Records(records=_plain(store.holders(m.parse_ref(request.ref))))

    def _stats(self, caller: Caller, store: Store, request: m.Empty) -> m.Record:
        return m.Record(record=dataclasses.asdict(store.stats()))

    def _recover(self, caller: Caller, store: Store, request: m.Empty) -> m.Record:
        return m.Record(record=dataclasses.asdict(store.recover()))

    def _delete(self, caller: Caller, store: Store, request: m.Delete) -> m.Count:
        return m.Count(count=store.delete(_refs(request.refs), if_unused=request.if_unused))

    def _pin(self, caller: Caller, store: Store, request: m.Refs) -> m.Count:
        return m.Count(count=store.pin(_refs(request.refs)))

    def _unpin(self, caller: Caller, store: Store, request: m.Refs) -> m.Count:
        return m.Count(count=store.unpin(_refs(request.refs)))

    def _free(self, caller: Caller, store: Store, request: m.Refs) -> m.Count:
        return m.Count(count=store.free(_refs(request.refs)))

    def _evict(self, caller: Caller, store: Store, request: m.Evict) -> m.Bytes:
        return m.Bytes(nbytes=store.evict(request.nbytes, recursive=request.recursive))

    def _spill(self, caller: Caller, store: Store, request: m.Spill) -> m.Bytes:
        return m.Bytes(nbytes=store.spill(None if request.refs is None else _refs(request.refs)))

    def _compose(self, caller: Caller, store: Store, request: m.Compose) -> m.Info:
        options: dict[str, Any] = {
            "object_id": None if request.id is None else ObjectID.from_text(request.id),
            "metadata": m.unpack(request.metadata_raw) if request.metadata_raw else request.metadata,
            "timeout": _slice(request.timeout_s),
        }
        with self.in_batch(store, request.batch):
            made = _composed(store, request, _refs(request.refs), options)
            return m.info_of(store.stat(made.id))

    # --- several at a time ---

    def _get_many(self, caller: Caller, store: Store, request: GetMany) -> Many:
        return get_many(store, request)

    def _put_many(self, caller: Caller, store: Store, request: PutMany) -> m.Done:
        self.staged.put_many(store, request, _slice(request.timeout_s))
        return m.Done()

    def _unstage(self, caller: Caller, store: Store, request: m.Refs) -> m.Count:
        return m.Count(count=self.staged.give_up(store, request.refs))

    # --- sessions ---

    def _session(self, caller: Caller, store: Store, request: m.NewSession) -> m.SessionReply:
        if caller.sessions is not None and (request.name or str(request.number or "")) not in caller.sessions:
            caller.session_for(request.name or str(request.number))
        attach = request.attach or None
        wanted = request.number if request.number is not None else request.name
        made = self.store.session(wanted, quota=request.quota_bytes, attach=attach)
        with self._lock:
            self._sessions[str(made.number)] = made
        return m.SessionReply(number=made.number, name=made.session_name)

    def _sessions_list(self, caller: Caller, store: Store, request: m.Empty) -> m.Records:
        known = self.store.sessions()
        if caller.sessions is not None:
            known = [one for one in known if one.name in caller.sessions or str(one.id) in caller.sessions]
        return m.Records(records=_plain(known))

    def _end_session(self, caller: Caller, store: Store, request: m.Empty) -> m.Done:
        end = getattr(store, "end", None)
        if end is None:
            raise InvalidArgument("the store itself is no session", hint="say which session is meant")
        end()
        return m.Done()

    # --- batches ---

    def _batch(self, caller: Caller, store: Store, request: m.NewBatch) -> m.BatchReply:
        if request.parent:
            with store.join_batch(request.parent).activate():
                made = store.batch(request.name, timeout=request.timeout_s, cleanup=request.cleanup)
        else:
            made = store.batch(request.name, timeout=request.timeout_s, cleanup=request.cleanup)
        return m.BatchReply(number=made.number, token=made.token)

    def _join_batch(self, caller: Caller, store: Store, request: m.OneBatch) -> m.BatchReply:
        joined = store.join_batch(request.batch)
        return m.BatchReply(number=joined.number, token=joined.token)

    def _batch_status(self, caller: Caller, store: Store, request: m.OneBatch) -> m.Record:
        number = store._number_of(request.batch)
        for one in store.batches():
            if one.id == number:
                return m.Record(record=_plain([one])[0])
        return m.Record(record={"id": number, "state": "ended"})

    def _batches(self, caller: Caller, store: Store, request: m.Empty) -> m.Records:
        return m.Records(records=_plain(store.batches()))

    def _end_batch(self, caller: Caller, store: Store, request: m.OneBatch) -> m.Done:
        store.end_batch(request.batch)
        return m.Done()

    def _destroy_batch(self, caller: Caller, store: Store, request: m.OneBatch) -> m.Done:
        store.destroy_batch(request.batch)
        return m.Done()

    def _leave_batch(self, caller: Caller, store: Store, request: m.OneBatch) -> m.Done:
        from flightstore.lifecycle import batches

        batches.leave(store._conn, store._session, store._number_of(request.batch))
        return m.Done()

    def _keep(self, caller: Caller, store: Store, request: m.KeepObjects) -> m.Done:
        from flightstore.lifecycle import batch_objects

        batch_objects.keep(store._conn, store._session, request.batch, _refs(request.refs))
        return m.Done()

    def _transfer(self, caller: Caller, store: Store, request: m.Transfer) -> m.Done:
        store.transfer_ownership(_refs(request.refs), request.batch)
        return m.Done()

    # --- events ---

    def _events(self, caller: Caller, store: Store, request: m.FollowEvents) -> m.Events:
        pattern: Ref | None = None if request.pattern is None else m.parse_ref(request.pattern)
        with store.subscribe(pattern, since=request.since, kinds=request.kinds) as following:
            found: list[Event] = []
            try:
                wait: float = _slice(request.timeout_s)
                while len(found) < max(request.limit, 1) and (event := following.poll(wait)) is not None:
                    found.append(event)
                    wait = 0
            except EventsMissed as missed:
                if not found:
                    return m.Events(events=[], position=following.position, missed=missed.missed)
            return m.Events(events=_plain(found), position=following.position)

    # --- leases ---

    def _lease(self, caller: Caller, store: Store, request: m.LeaseObject) -> m.Leased:
        ref = m.parse_ref(request.ref)
        held = store.get(ref)
        lease, expires_s = self.leases.add(held, request.seconds)
        segments = segments_of(store, held)
        info = m.info_of(store.stat(held.id))
        return m.Leased(lease=lease, expires_s=expires_s, info=info, segments=segments)

    def _renew(self, caller: Caller, store: Store, request: m.OneLease) -> m.Done:
        self.leases.renew(request.lease, request.seconds)
        return m.Done()

    def _release(self, caller: Caller, store: Store, request: m.OneLease) -> m.Done:
        self.leases.drop(request.lease)
        return m.Done()


def segments_of(store: Store, held: Object) -> list[m.Segment]:
    """Where a table that is one Arrow stream lies in the arena; none for all else."""
    from flightstore.catalog.records import ARENA_FILE
    from flightstore.objects.base import KIND_TABLE
    from flightstore.objects.ipc import decode_layout

    record = held._live.record
    if record.kind != KIND_TABLE or len(record.extents) != 1 or record.extents[0].file != ARENA_FILE:
        return []
    length = decode_layout(record.layout).stream_bytes
    return [m.Segment(path=f"{store.path}/arena", offset=record.extents[0].offset, length=length)]


def _composed(store: Store, request: m.Compose, refs: list[Ref], options: dict[str, Any]) -> Object:
    operation, name = request.operation, request.name
    if operation == "concat":
        return store.concat(refs, name, **options)
    if operation == "with_columns" and len(refs) == 2:
        with store.get(refs[1]) as columns:
            return store.with_columns(refs[0], columns, name, **options)
    if len(refs) != 1 or operation not in ("select", "drop", "rename"):
        raise InvalidArgument(
            f"compose: {operation!r} of {len(refs)} tables",
            hint="with_columns takes two, select, drop and rename one, concat any number",
        )
    if operation == "select":
        return store.select(refs[0], request.columns, name, **options)
    if operation == "drop":
        return store.drop(refs[0], request.columns, name, **options)
    return store.rename(refs[0], request.names, name, **options)


def _refs(texts: list[str]) -> list[Ref]:
    return [m.parse_ref(text) for text in texts]


def _slice(seconds: float) -> float:
    if not seconds >= 0:
        raise InvalidArgument(f"a timeout of {seconds} s: give seconds, 0 not to wait")
    return min(seconds, MAX_WAIT_S)


def _plain(records: Any) -> list[dict[str, Any]]:
    """Records of flightstore.types as JSON can say them."""
    plain = []
    for record in records:
        fields = dataclasses.asdict(record)
        if isinstance(fields.get("id"), bytes):
            fields["id"] = str(ObjectID(fields["id"]))
        plain.append(fields)
    return plain


ACTIONS: dict[str, _Action] = {
    "hello": _Action(m.Empty, READ, Service._hello, "what this gateway is, and who you are to it"),
    "stat": _Action(m.OneRef, READ, Service._stat, "what is known about one object"),
    "contains": _Action(m.OneRef, READ, Service._contains, "whether there is an object"),
    "list": _Action(m.ListObjects, READ, Service._list, "the objects, by a shell pattern of their names"),
    "wait": _Action(m.Wait, READ, Service._wait, "wait until objects are there"),
    "holders": _Action(m.OneRef, READ, Service._holders, "the processes that hold an object"),
    "stats": _Action(m.Empty, READ, Service._stats, "usage of the whole store"),
    "get_many": _Action(GetMany, READ, Service._get_many, "several objects as they are at one moment"),
    "put_many": _Action(PutMany, WRITE, Service._put_many, "store several objects in one commit"),
    "unstage": _Action(m.Refs, WRITE, Service._unstage, "give up what was staged for put_many"),
    "delete": _Action(m.Delete, WRITE, Service._delete, "delete objects"),
    "pin": _Action(m.Refs, WRITE, Service._pin, "keep objects in memory"),
    "unpin": _Action(m.Refs, WRITE, Service._unpin, "take one pin off each"),
    "free": _Action(m.Refs, WRITE, Service._free, "say that objects are not needed any more"),
    "compose": _Action(m.Compose, WRITE, Service._compose, "a table of stored ones; no row is written"),
    "evict": _Action(m.Evict, ADMIN, Service._evict, "drop what may be dropped"),
    "spill": _Action(m.Spill, ADMIN, Service._spill, "move objects to the spill storage"),
    "recover": _Action(m.Empty, ADMIN, Service._recover, "reclaim what dead clients left"),
    "session": _Action(m.NewSession, WRITE, Service._session, "begin a session, or join one"),
    "sessions": _Action(m.Empty, READ, Service._sessions_list, "the sessions that you may use"),
    "end_session": _Action(m.Empty, WRITE, Service._end_session, "end the session of this call"),
    "batch": _Action(m.NewBatch, WRITE, Service._batch, "begin a batch"),
    "join_batch": _Action(m.OneBatch, WRITE, Service._join_batch, "make a batch the gateway's, too"),
    "batch_status": _Action(m.OneBatch, READ, Service._batch_status, "what is known about one batch"),
    "batches": _Action(m.Empty, READ, Service._batches, "the batches of the session"),
    "end_batch": _Action(m.OneBatch, WRITE, Service._end_batch, "end a batch"),
    "destroy_batch": _Action(m.OneBatch, WRITE, Service._destroy_batch, "end it with all it made"),
    "leave_batch": _Action(m.OneBatch, WRITE, Service._leave_batch, "the batch is the gateway's no more"),
    "keep": _Action(m.KeepObjects, WRITE, Service._keep, "let objects outlive a batch"),
    "transfer": _Action(m.Transfer, WRITE, Service._transfer, "let objects go with another batch"),
    "events": _Action(m.FollowEvents, READ, Service._events, "what happened in the store"),
    "lease": _Action(m.LeaseObject, READ, Service._lease, "keep an object while you read it in place"),
    "renew": _Action(m.OneLease, READ, Service._renew, "keep it longer"),
    "release": _Action(m.OneLease, READ, Service._release, "keep it no longer"),
}
"""All actions by name."""
