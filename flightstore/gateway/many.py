"""Several objects at a time, as wire.many has them, and what is staged for it.

A staged object is an upload that was received and checked, and is not sealed: pending, seen by nobody,
counted against its session. It waits for the ``put_many`` that names it, which seals all in one commit; what
is not named within STAGED_S is given up, and so is everything when the gateway ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from flightstore.catalog.records import FLAG_EVICTABLE
from flightstore.errors import InvalidArgument, ObjectNotFound
from flightstore.gateway.leases import Leases
from flightstore.gateway.outgoing import header_of, loan_check
from flightstore.lifecycle.building import seal_together
from flightstore.lifecycle.sealing import NewObject, new_object
from flightstore.objects.base import Payload
from flightstore.objects.foreign import check_origin, check_payload
from flightstore.objects.registry import copy_of_stored
from flightstore.store.attached import check_new, deadline_of
from flightstore.store.local import Store
from flightstore.types import ObjectID
from flightstore.wire import messages as m
from flightstore.wire.frames import FrameHeader
from flightstore.wire.many import INLINE_BYTES, MAX_INLINE_BYTES, GetMany, Many, OneOfMany, PutMany

if TYPE_CHECKING:
    from flightstore.gateway.incoming import FrameUpload

__all__ = ["STAGED_S", "Staged", "get_many"]

STAGED_S = 300.0


class Staged:
    """The uploads that wait to be sealed together."""

    def __init__(self) -> None:
        self._uploads: Leases[FrameUpload] = Leases()

    def finish(self, store: Store, header: FrameHeader, upload: FrameUpload) -> m.Info:
        """End an upload: seal it or, if its header says so, keep it until `put_many` names it.

        Raises:
            As FrameUpload.finish; ObjectExists.
        """
        if not header.staged:
            made = upload.finish()
            try:
                return m.info_of(store.stat(made))
            except ObjectNotFound:  # somebody was faster: it was there all the same
                return m.Info(id=str(made), name=header.name, nbytes=header.size_bytes)
        upload.check()
        self._uploads.add(upload, STAGED_S, name=_name(store, str(upload.id)))
        return m.Info(id=str(upload.id), name=header.name, state="staged", nbytes=header.size_bytes)

    def put_many(self, store: Store, request: PutMany, wait_s: float) -> None:
        """Make objects visible, all in one commit.

        Raises:
            ObjectNotFound: one is not staged, or not any more.
            InvalidArgument: a payload is not what its header says.
            StoreFull, ObjectExists, ...: nothing was stored; what was staged still is.
        """
        if sum(len(one.payload or b"") for one in request.objects) > MAX_INLINE_BYTES:
            raise InvalidArgument(f"more than {MAX_INLINE_BYTES:,} bytes in one request", hint="stage some")
        small = [_new(store, one) for one in request.objects if one.payload is not None]
        names = [_name(store, str(one.header.id)) for one in request.objects if one.payload is None]
        uploads = [self._uploads.held(name) for name in names]
        if None in uploads:
            raise ObjectNotFound("an object of these is not staged any more", hint="put them all again")
        builders = [upload.builder for upload in uploads if upload is not None]
        seal_together(store._conn, builders, small, deadline_of(wait_s))
        for name in names:
            self._uploads.drop(name)

    def give_up(self, store: Store, refs: list[str]) -> int:
        """Give up what was staged; how many were."""
        found = 0
        for ref in refs:
            name = _name(store, ref)
            upload = self._uploads.held(name)
            if upload is not None:
                self._uploads.drop(name)
                upload.abort()
                found += 1
        return found

    def close(self) -> None:
        """Give up everything."""
        self._uploads.close()


def _name(store: Store, ref: str) -> str:
    return f"{store._session}/{ObjectID.from_text(ref)}"


def _new(store: Store, one: OneOfMany) -> NewObject:
    header, raw = one.header, one.payload or b""
    object_id = ObjectID.from_text(header.id) if header.id is not None else None
    check_new(header.name, object_id)
    check_origin(header.origin)
    if len(raw) != header.size_bytes:
        raise InvalidArgument(f"a payload of {len(raw):,} bytes, its header says {header.size_bytes:,}")
    target = pa.allocate_buffer(len(raw))
    memoryview(target).cast("B")[:] = raw
    check_payload(header.kind, header.layout, target, header.num_rows)
    pieces = ((0, target),) if raw else ()
    payload = Payload(
        header.kind, header.layout, len(raw), pieces, header.num_rows, target, origin=header.origin
    )
    new = new_object(store._session, payload, header.name, object_id, m.unpack(header.metadata_raw))
    new.batch = header.batch
    new.flags = FLAG_EVICTABLE if header.evictable else 0
    return new


def get_many(store: Store, request: GetMany) -> Many:
    """Objects as they are at one moment: headers, and payloads that are small enough.

    Raises:
        ObjectNotFound: one is not there.
    """
    wanted = min(request.inline_bytes, INLINE_BYTES)
    room = MAX_INLINE_BYTES
    found = []
    for held in store.get_many([m.parse_ref(ref) for ref in request.refs]):
        with held:
            if wanted < 0 or held._live.record.nbytes > min(wanted, room):
                found.append(OneOfMany(header=header_of(held)))
                continue
            payload = copy_of_stored(held)
            raw = bytearray(payload.size_bytes)
            for offset, piece in payload.pieces:
                view = memoryview(piece).cast("B")
                raw[offset : offset + view.nbytes] = view
            if (check := loan_check(held)) is not None:
                check()
            found.append(OneOfMany(header=header_of(held, payload), payload=bytes(raw)))
            room -= len(raw)
    return Many(objects=found)
