"""The part of the facade that takes tables of unknown length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flightstore.abc.streaming import AbstractStreaming
from flightstore.errors import InvalidArgument
from flightstore.store.attached import Attached, check_new, deadline_of
from flightstore.types import ObjectID

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.lifecycle.streaming import TableWriter

__all__ = ["Streaming", "check_schema"]


class Streaming(Attached, AbstractStreaming):
    """create_stream."""

    def create_stream(
        self,
        schema: pa.Schema,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> TableWriter:
        from flightstore.lifecycle.streaming import TableWriter

        conn = self._conn
        check_new(name, object_id)
        check_schema(schema)
        deadline_of(timeout)
        return TableWriter(
            conn, self._session, schema, name, object_id, metadata, timeout, batch=self._current
        )


def check_schema(schema: Any) -> None:
    """Refuse what is no Arrow schema."""
    import pyarrow as pa

    if not isinstance(schema, pa.Schema):
        raise InvalidArgument(f"a schema is a pyarrow.Schema, got {type(schema).__name__}")
