"""Making tables of stored tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from flightstore.objects.base import Object
from flightstore.types import ObjectID, Ref

__all__ = ["AbstractComposing"]


class AbstractComposing(ABC):
    """What a store offers for composing tables, and for taking them apart."""

    @abstractmethod
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
        """A new table: that of `ref` with more columns. Only these are written, the rest is shared.

        The new object is independent of the old one, which may be deleted; what they share is freed with the
        last that uses it. A name that is overwritten meanwhile keeps its object, by id, as long as a composed
        one lists it as a member.

        Args:
            ref: A table: name, id, or object of this store.
            columns: A mapping of names to columns (Arrow arrays, pandas or polars series, NumPy arrays,
                lists; stored tables of one column, which are shared too), or a frame or stored table whose
                columns are all added. A column of a name that is there takes its place.
            name: The new object's name; the table's own name replaces it.
            object_id: As for :meth:`put`.
            metadata: As for :meth:`put`.
            timeout: As for :meth:`put`.

        Returns:
            A reference on the new object.

        Raises:
            ObjectNotFound: there is no `ref`.
            InvalidArgument: it is not a table of this store, or a column has another number of rows.
            NotStorable: Arrow cannot hold a column; names it.
            StoreFull, StoreBusy, ObjectExists: as :meth:`put`.
        """

    @abstractmethod
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
        """A new table of these columns of `ref`, in this order; no row is written. The index of a pandas
        frame stays with it. See :meth:`with_columns`.
        """

    @abstractmethod
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
        """A new table without these columns of `ref`; no row is written. See :meth:`with_columns`."""

    @abstractmethod
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
        """A new table with columns of `ref` under new names (old to new); no row is written. See
        :meth:`with_columns`.
        """

    @abstractmethod
    def concat(
        self,
        refs: Iterable[Ref | Object],
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> Object:
        """A new table of the rows of all `refs`, whose columns must be alike; no row is written. See
        :meth:`with_columns`.
        """

    @abstractmethod
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
        """New tables of parts of `ref`, all visible in one commit, or none.

        What can be shared is. By columns no row is written. By rows, the parts share all streams that lie
        within one of them: those of a table that was written in parts or concatenated. Rows of a stream that
        is cut through are written, once.

        Args:
            ref: A table: name, id, or object of this store.
            rows: Numbers of the rows at which parts begin, ascending; the first part begins at row 0. So
                there is one part more than numbers.
            columns: For each part its columns, instead.
            names: For each part its name, or None.
            metadata: As for :meth:`put`, for each.
            timeout: As for :meth:`put`.

        Returns:
            References on the parts, in order.

        Raises:
            InvalidArgument: it is no table of this store; there are no such rows or columns, not as many
                names.
            ObjectNotFound, StoreFull, StoreBusy: as :meth:`with_columns`.
        """
