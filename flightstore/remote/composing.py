"""The part of a remote store that makes tables of stored tables, where they are: only new columns are sent.

They are put as a table without a name, in a batch of their own, whose time is limited: whoever dies between
the steps leaves nothing for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flightstore.abc.composing import AbstractComposing
from flightstore.errors import InvalidArgument, NotOffered
from flightstore.objects.base import KIND_COMPOSED, KIND_TABLE, Object, Payload
from flightstore.objects.registry import kind_name
from flightstore.remote.attached import Attached, metadata_raw
from flightstore.remote.fetched import RemoteView, opened_later
from flightstore.remote.repeating import until_there_is_room
from flightstore.store.attached import check_new, deadline_of
from flightstore.types import ObjectID, Ref
from flightstore.wire import messages as m
from flightstore.wire.frames import FrameHeader
from flightstore.wire.many import GetMany, Many

if TYPE_CHECKING:
    from flightstore.remote.store import RemoteStore

__all__ = ["Composing"]

_HELPER_S = 60.0
_HELPER_BYTES_PER_S = 1 << 20


class Composing(Attached, AbstractComposing):
    """with_columns, select, drop, rename, concat, split."""

    def with_columns(
        self,
        ref: Ref | Object,
        columns: Any,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        request = self._request("with_columns", [ref], name, object_id, metadata)
        deadline = deadline_of(timeout)
        if isinstance(columns, Object) and self._is_ours(columns):
            request.refs.append(str(columns.id))
            return self._compose(request, deadline)
        payload = self._new_columns(request.refs[0], columns)
        return self._with_helper(request, payload, deadline)

    def select(
        self,
        ref: Ref | Object,
        columns: Iterable[str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        request = self._request("select", [ref], name, object_id, metadata)
        request.columns = _names(columns)
        return self._compose(request, deadline_of(timeout))

    def drop(
        self,
        ref: Ref | Object,
        columns: Iterable[str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        request = self._request("drop", [ref], name, object_id, metadata)
        request.columns = _names(columns)
        return self._compose(request, deadline_of(timeout))

    def rename(
        self,
        ref: Ref | Object,
        names: Mapping[str, str],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        request = self._request("rename", [ref], name, object_id, metadata)
        request.names = dict(names)
        return self._compose(request, deadline_of(timeout))

    def split(
        self,
        ref: Ref | Object,
        *,
        rows: Iterable[int] | None = None,
        columns: Iterable[Iterable[str]] | None = None,
        names: Iterable[str | None] | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> list[Object]:
        """Not offered: parts of a table are made where it is.

        Raises:
            NotOffered: always.
        """
        raise NotOffered(
            f"tables at {self.url} cannot be split from here", hint="get it, and put the parts: put_many()"
        )

    def concat(
        self,
        refs: Iterable[Ref | Object],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        return self._compose(self._request("concat", refs, name, object_id, metadata), deadline_of(timeout))

    # --- inside ---

    def _request(
        self,
        operation: str,
        refs: Iterable[Ref | Object],
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
    ) -> m.Compose:
        check_new(name, object_id)
        return m.Compose(
            operation=operation,
            refs=[m.text_of(self._ref_of(ref)) for ref in refs],
            name=name,
            id=str(object_id if object_id is not None else ObjectID.random()),
            metadata_raw=metadata_raw(metadata),
            batch=self._current,
        )

    def _compose(self, request: m.Compose, deadline: float | None) -> Object:
        def attempt(wait_s: float) -> m.Info:
            request.timeout_s = wait_s
            return self._act("compose", request, m.Info, wait_s=wait_s)

        made = until_there_is_room(attempt, deadline)
        return opened_later(self, ObjectID.from_text(made.id))

    def _is_ours(self, obj: Object) -> bool:
        view = obj._live.store
        return isinstance(view, RemoteView) and view.source.home == self.home

    def _new_columns(self, ref: str, columns: Any) -> Payload:
        from flightstore.objects.columns import new_columns

        request = GetMany(refs=[ref], inline_bytes=-1)
        base = self._act("get_many", request, Many).objects[0].header
        what = f"the object {base.name!r}" if base.name else f"the object {base.id}"
        if base.kind not in (KIND_TABLE, KIND_COMPOSED):
            raise InvalidArgument(f"{what} is a {kind_name(base.kind)}, not a table")
        return new_columns(columns, base.origin, base.num_rows or 0, what)

    def _with_helper(self, request: m.Compose, payload: Payload, deadline: float | None) -> Object:
        timeout_s = _HELPER_S + payload.size_bytes / _HELPER_BYTES_PER_S
        batch = self._act("batch", m.NewBatch(name="new columns", timeout_s=timeout_s), m.BatchReply)
        try:
            header: FrameHeader = self._of_store._header(payload, None, None, None)
            header.batch = batch.number
            helper = self._of_store._put_payload(header, payload, deadline, ours=True)
            request.refs.append(str(helper))
            return self._compose(request, deadline)
        finally:
            self._act("end_batch", m.OneBatch(batch=batch.number), m.Done)

    @property
    def _of_store(self) -> RemoteStore:
        from flightstore.remote.store import RemoteStore

        assert isinstance(self, RemoteStore)
        return self


def _names(columns: Iterable[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)
