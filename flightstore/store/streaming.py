"""The part of the facade that takes tables of unknown length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flightstore.abc.streaming import AbstractStreaming
from flightstore.errors import InvalidArgument
from flightstore.store.attached import Attached, check_new, deadline_of
from flightstore.types import ObjectID

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.lifecycle.streaming import TableWriter

__all__ = ["Streaming", "check_schema", "checked_group"]


class Streaming(Attached, AbstractStreaming):
    """create_stream, seal_many."""

    def create_stream(
        self,
        schema: pa.Schema,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
        group_bytes: int | None = None,
    ) -> TableWriter:
        from flightstore.lifecycle.streaming import GROUP_BYTES, TableWriter

        conn = self._conn
        check_new(name, object_id)
        check_schema(schema)
        deadline_of(timeout)
        return TableWriter(
            conn,
            self._session,
            schema,
            name,
            object_id,
            metadata,
            timeout,
            batch=self._current,
            group_bytes=checked_group(group_bytes, GROUP_BYTES),
        )

    def seal_many(self, writers: Iterable[Any], *, timeout: float | None = 0) -> list[ObjectID]:
        from flightstore.lifecycle.streaming import TableWriter, seal_together

        conn, listed, deadline = self._conn, list(writers), deadline_of(timeout)
        for writer in listed:
            if not isinstance(writer, TableWriter) or not writer.belongs_to(conn, self._session):
                raise InvalidArgument(
                    "only tables that are being written to this store and session can be sealed together",
                    hint="create_stream() of this handle makes them",
                )
        if listed:
            seal_together(conn, listed, deadline)
        return [writer.id for writer in listed]


def checked_group(group_bytes: Any, default: int) -> int:
    """How much to gather.

    Raises:
        InvalidArgument: it is no number of bytes.
    """
    if group_bytes is None:
        return default
    if not isinstance(group_bytes, int) or isinstance(group_bytes, bool) or group_bytes < 1:
        raise InvalidArgument(f"group_bytes is {group_bytes!r}: give a number of bytes")
    return group_bytes


def check_schema(schema: Any) -> None:
    """Refuse what is no Arrow schema."""
    import pyarrow as pa

    if not isinstance(schema, pa.Schema):
        raise InvalidArgument(f"a schema is a pyarrow.Schema, got {type(schema).__name__}")
