"""Dask: stored tables and tensors as lazy collections, and collections computed into the store.

:func:`to_dask` hands every partition a handle and a range of rows, never bytes: the task gets the object in
the process in which it runs, where it is mapped. :func:`from_dask` has the tasks put their partitions
themselves, and makes one object of these: a table that shares the memory of its parts, a tensor that is
gathered from them. Tasks run wherever Dask's scheduler puts them; their processes must see the store's
directory.

The parts are put in a batch that ends with the call, so that nothing is left of one that fails.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle as pickles
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from flightstore.connectors import Connector
from flightstore.connectors._parts import scratch_batch
from flightstore.errors import BatchEnded, InvalidArgument, NotConvertible, NotStorable
from flightstore.objects.base import Object
from flightstore.objects.extras import require
from flightstore.types import ObjectID

if TYPE_CHECKING:
    from flightstore.abc import AbstractBatch, AbstractStore

__all__ = ["CONNECTOR", "build", "from_dask", "to_dask"]

PARTITION_BYTES = 128 << 20
"""Size of a partition where the caller names none."""
_here: dict[bytes, AbstractBatch] = {}
"""Batches of this process that are being filled, by their pickles: its own tasks need not join them."""


def to_dask(
    obj: Object,
    *,
    npartitions: int | None = None,
    rows_per_partition: int | None = None,
    chunks: Any = None,
    strict: bool = True,
) -> Any:
    """A stored table as a Dask data frame, or series, of what ``to_pandas`` gives; a tensor as a Dask array.

    dtypes are exact, and the same in all partitions; divisions are known where the index is a range. The
    object stays leased as long as the collection lives in this process. A task that runs in another one gets
    it there by its id: if it was deleted by then, with ObjectNotFound.

    Args:
        obj: A stored table or tensor.
        npartitions: How many partitions a table has; all but the last of one length.
        rows_per_partition: How many rows a partition has, instead. Default: some 128 MiB.
        chunks: Of a tensor, as ``dask.array.from_array`` takes them; "auto" if None.
        strict: As ``to_pandas``.

    Raises:
        MissingExtra: Dask is not installed.
        NotConvertible: pandas cannot hold a column, or Dask not such a frame; names it.
        InvalidArgument: arguments that do not go together.
    """
    require("dask", "to_dask()")
    if obj.kind == "tensor":
        if npartitions is not None or rows_per_partition is not None:
            raise InvalidArgument("a tensor is divided by chunks=", hint="to_dask(obj, chunks=...)")
        arrays = require("dask.array", "to_dask() of a tensor")
        name = f"flightstore-{bytes(obj.id).hex()}"
        return arrays.from_array(_Elements(obj), chunks=chunks or "auto", name=name, fancy=False)
    if chunks is not None:
        raise InvalidArgument("a table is divided by npartitions= or rows_per_partition=, not by chunks=")
    require("dask.dataframe", "to_dask() of a table")
    from flightstore.connectors._dask_frames import frame_of

    return frame_of(obj, _rows_of_partition(obj, npartitions, rows_per_partition), strict)


def _rows_of_partition(obj: Any, npartitions: int | None, rows: int | None) -> int:
    total = getattr(obj, "num_rows", None)
    if total is None:
        raise NotConvertible(f"{obj!r} is a {obj.kind}, neither table nor tensor", hint="obj.value()")
    if npartitions is not None and rows is not None:
        raise InvalidArgument("npartitions and rows_per_partition say the same thing twice: give one")
    for given in (npartitions, rows):
        if given is not None and given < 1:
            raise InvalidArgument(f"{given} partitions, or rows in one, is less than 1")
    if npartitions is None and rows is None:
        npartitions = -(-obj.nbytes // PARTITION_BYTES)
    return rows or max(-(-total // max(npartitions or 1, 1)), 1)


class _Elements:
    """A stored tensor as Dask slices it; pickles as the object does."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.shape, self.dtype, self.ndim = obj.shape, obj.dtype, len(obj.shape)

    def __getitem__(self, index: Any) -> Any:
        return self.obj.to_numpy()[index]


def from_dask(
    collection: Any,
    store: AbstractStore | None = None,
    name: str | None = None,
    *,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Object:
    """Compute a Dask data frame, series or array into one stored object.

    The tasks put their partitions themselves, in whatever processes Dask's current scheduler runs them; no
    process holds more than what it works on. A table is composed of its partitions, whose rows are not
    copied again; an array's blocks are copied once more, into one tensor, so that for a moment the store
    holds it twice.

    Args:
        collection: What is to be computed.
        store: A store on this machine; None for the user's default one.
        name: As for ``store.put``.
        metadata: As for ``store.put``.
        timeout: As for ``store.put``, for each part.

    Raises:
        MissingExtra: Dask is not installed.
        NotStorable: it is no such collection; or a partition cannot be stored, says why.
        As ``store.put``, and whatever its tasks raise: nothing is left in the store then.
    """
    require("dask", "from_dask()")
    kind = _kind(collection)
    if store is None:
        from flightstore import connect

        with connect() as default:
            return from_dask(collection, default, name, metadata=metadata, timeout=timeout)
    with scratch_batch(store, "partitions of a Dask collection") as batch:
        parts = _computed(collection, kind, batch, timeout)
        if kind == "array":
            return _gathered(collection, parts, store, batch, name, metadata, timeout)
        from flightstore.connectors._dask_frames import composed

        return composed(parts, store, batch, name, metadata, timeout)


def _kind(collection: Any) -> str:
    module = type(collection).__module__
    if module.startswith("dask.array.") and hasattr(collection, "chunks"):
        if any(math.isnan(length) for length in collection.shape):
            raise NotStorable(
                "the chunks of this Dask array are of unknown lengths", hint="array.compute_chunk_sizes()"
            )
        return "array"
    if module.startswith("dask.dataframe.") and hasattr(collection, "npartitions"):
        return "frame"
    raise NotStorable(
        f"from_dask() takes Dask's data frames, series and arrays, not a {type(collection).__qualname__}",
        hint="store.put(value) stores values that are in memory",
    )


def _computed(collection: Any, kind: str, batch: AbstractBatch, timeout: float | None) -> list[ObjectID]:
    """The ids of all partitions in their order, put by the tasks: one graph, that nothing is done twice."""
    travelling = (pickles.dumps(batch), os.getpid(), timeout)
    _here[travelling[0]] = batch
    try:
        return _ids(collection, kind, travelling)
    finally:
        del _here[travelling[0]]


def _ids(collection: Any, kind: str, travelling: tuple[bytes, int, float | None]) -> list[ObjectID]:
    if kind == "frame":
        from flightstore.connectors._dask_frames import ids_of

        found: Any = ids_of(collection, partial(_put_travelling, travelling))
    else:
        ones = tuple((1,) * len(lengths) for lengths in collection.chunks)
        meta = np.empty((0,) * collection.ndim, object)
        lazy = collection.map_blocks(_put_block, travelling, chunks=ones, dtype=object, meta=meta)
        found = np.ravel(lazy.compute())
    return [ObjectID(one) for one in found]


def _put_travelling(travelling: tuple[bytes, int, float | None], part: Any) -> bytes:
    return _put(part, *travelling)


def _put_block(block: Any, travelling: tuple[bytes, int, float | None]) -> Any:
    """Put one block of an array; an array with its id."""
    found = np.empty((1,) * np.ndim(block), object)
    found[(0,) * np.ndim(block)] = _put(block, *travelling)
    return found


def _put(part: Any, travelling: bytes, pid: int, timeout: float | None) -> bytes:
    """Put one partition: what a task does."""
    if os.getpid() == pid:
        return _put_in(_here[travelling], part, timeout)
    batch: AbstractBatch = pickles.loads(travelling)
    try:
        return _put_in(batch, part, timeout)
    finally:
        with contextlib.suppress(BatchEnded):  # it belongs to the process that began it, whose death ends it
            batch.leave()


def _put_in(batch: AbstractBatch, part: Any, timeout: float | None) -> bytes:
    with batch.activate():
        return bytes(batch.store.put(part, timeout=timeout))  # Dask takes an ObjectID for bytes


def _gathered(
    collection: Any,
    parts: list[ObjectID],
    store: AbstractStore,
    batch: AbstractBatch,
    name: str | None,
    metadata: Any,
    timeout: float | None,
) -> Object:
    """One tensor of an array's blocks."""
    if len(parts) == 1 or not collection.size:
        only: Any = store.get(parts[0])
        value = only.value() if collection.size else np.empty(collection.shape, collection.dtype)
        return store.get(store.put(value, name, metadata=metadata, timeout=timeout))
    ends = [np.cumsum((0, *lengths)) for lengths in collection.chunks]
    places = np.ndindex(*[len(lengths) for lengths in collection.chunks])
    shape, dtype = collection.shape, collection.dtype
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise NotStorable(f"a Dask array of dtype {dtype} holds Python objects", hint="array.astype(...)")
    with batch.activate():
        builder = store.create(size, timeout=timeout)
    with builder:
        whole = np.ndarray(shape, dtype, builder.buffer)
        for place, part in zip(places, parts, strict=True):
            where = tuple(slice(end[at], end[at + 1]) for at, end in zip(place, ends, strict=True))
            with store.get(part) as block:
                whole[where] = block.to_numpy()  # type: ignore[attr-defined]
            store.delete(part)
    built = np.ndarray(shape, dtype, store.get(builder.id).view())  # type: ignore[attr-defined]
    return store.get(store.put(built, name, metadata=metadata, timeout=timeout))


def build(value: Any, *, pickle: bool) -> Any:
    """Refused: a collection is a plan, no data."""
    refusal = NotStorable(
        f"a Dask {type(value).__name__} is a plan, no data",
        hint="flightstore.connectors.dask.from_dask(value, store), or put value.compute()",
    )
    refusal.pickle_helps = False
    raise refusal


CONNECTOR = Connector(
    name="dask",
    types=(
        "dask.array.core.Array",
        "dask.dataframe.dask_expr._collection.DataFrame",
        "dask.dataframe.dask_expr._collection.Index",
        "dask.dataframe.dask_expr._collection.Series",
    ),
    build=build,
    resolve=to_dask,
)
