"""The part of the facade that makes tables of stored tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flightstore.abc.composing import AbstractComposing
from flightstore.errors import InvalidArgument
from flightstore.lifecycle import sealing
from flightstore.lifecycle.sealing import NewObject, new_object
from flightstore.objects.base import Object
from flightstore.store.attached import Attached, check_new, deadline_of
from flightstore.store.view import View
from flightstore.types import ObjectID, Ref

__all__ = ["Composing", "names_for"]


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
        table = self._held(ref)
        return self._compose(composing().with_columns(table, columns), name, object_id, metadata, timeout)

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
        table = self._held(ref)
        return self._compose(composing().select(table, columns), name, object_id, metadata, timeout)

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
        table = self._held(ref)
        return self._compose(composing().drop(table, columns), name, object_id, metadata, timeout)

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
        table = self._held(ref)
        return self._compose(composing().rename(table, names), name, object_id, metadata, timeout)

    def concat(
        self,
        refs: Iterable[Ref | Object],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        tables = [self._held(ref) for ref in refs]
        return self._compose(composing().concat(tables), name, object_id, metadata, timeout, tables)

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
        from flightstore.objects import cutting

        conn = self._conn
        table = self._held(ref)
        if (rows is None) == (columns is None):
            raise InvalidArgument("say where to split: rows=, or columns=")
        if rows is not None:
            compositions = cutting.cut_rows(table, rows)
        else:
            assert columns is not None
            compositions = cutting.cut_columns(table, columns)
        called = names_for(names, len(compositions))
        made = [
            self._new_of(composition, name, None, metadata)
            for composition, name in zip(compositions, called, strict=True)
        ]
        if made:
            sealing.put(conn, made, deadline_of(timeout))
        return [self._opened(new) for new in made]

    def _held(self, ref: Ref | Object) -> Object:
        """A reference on an object of this store, which keeps its memory while something is made of it."""
        if not isinstance(ref, Object):
            return self.get(ref)
        view = ref._live.store
        if not isinstance(view, View) or view._conn is not self._conn:
            raise InvalidArgument(
                f"the object {ref.id} is in another store, and its memory cannot be shared with {self.path}",
                hint="put it here first: store.put(obj)",
            )
        return ref

    def _compose(
        self,
        composition: Any,
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
        timeout: float | None,
        keepalive: Any = None,
    ) -> Object:
        """Store what was composed; `keepalive` holds what it shares until it is sealed."""
        new = self._new_of(composition, name, object_id, metadata)
        sealing.put(self._conn, (new,), deadline_of(timeout))
        return self._opened(new)

    def _new_of(
        self, composition: Any, name: str | None, object_id: ObjectID | None, metadata: Any
    ) -> NewObject:
        check_new(name, object_id)
        new = new_object(self._session, composition.payload, name, object_id, metadata)
        new.nbytes, new.shared, new.members = composition.nbytes, composition.shared, composition.members
        new.batch, new.hold = self._current, True
        return new

    def _opened(self, new: NewObject) -> Object:
        assert new.held is not None
        return self._open(self._conn, (new.id, *new.held))


def names_for(names: Iterable[str | None] | None, count: int) -> list[str | None]:
    """The names of so many new objects.

    Raises:
        InvalidArgument: there are not as many, or two are the same.
    """
    called: list[str | None] = list(names) if names is not None else [None] * count
    given = [name for name in called if name is not None]
    if len(called) != count or len(set(given)) < len(given):
        raise InvalidArgument(
            f"{len(called)} names were given for {count} objects"
            + (", some twice" if len(set(given)) < len(given) else "")
        )
    return called


def composing() -> Any:
    """The functions that compose tables: loaded with the first call, since they need Arrow."""
    from flightstore.objects import columns

    return columns
