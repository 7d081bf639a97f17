"""Ray Data: a stored table from a dataset, a chunk for each block, and the other way round.

May import Ray Data: this module is loaded when a dataset is at hand, or asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flightstore.connectors.ray.borrowing import take
from flightstore.connectors.ray.handles import is_local
from flightstore.errors import NotConvertible

if TYPE_CHECKING:
    from flightstore import Object, Store

__all__ = ["StoredTable", "give_dataset", "take_dataset"]


def take_dataset(dataset: Any, store: Store, name: str | None, copy: bool | None) -> Object:
    """A stored table of a dataset; see :func:`flightstore.connectors.ray.from_ray_dataset`.

    The blocks' own objects go with a batch, so they go too if this process is killed in between.
    """
    refs = dataset.to_arrow_refs()
    if not refs:
        raise NotConvertible("the dataset has no blocks, and so no schema", hint="put an empty table instead")
    with store.batch() as batch:
        parts = [take(ref, store, None, copy, None) for ref in refs]
        if any(part.kind != "table" for part in parts):
            raise NotConvertible(f"the dataset's blocks are stored as {parts[0].kind}, not as tables")
        filled = [part for part in parts if _rows(part)] or parts[:1]  # empty ones may lack the schema
        origins = [part.metadata["ray"] for part in filled]
        copied = [origin for origin in origins if not origin["borrowed"]]
        metadata = {"ray": {**(copied[0] if copied else origins[0]), "blocks": len(refs)}}
        result = store.concat(filled, name, metadata=metadata)
        batch.keep(result)
    return result


def _rows(part: Any) -> int:
    return int(part.num_rows)


class StoredTable(Datasource):  # type: ignore[misc]
    """What Ray Data reads a stored table by: one task for each chunk, which maps it or fetches it."""

    def __init__(self, obj: Object) -> None:
        super().__init__()
        self._obj = obj  # holds it as long as the dataset is held here
        table = _arrow(obj)
        self._schema = table.schema
        self.chunks: list[tuple[int, int, int]] = list(_chunks(table))
        """Row it begins at, rows, bytes; of each chunk."""

    def get_name(self) -> str:
        """As Ray shows it."""
        return "Flightstore"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all blocks."""
        return sum(nbytes for _, _, nbytes in self.chunks)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[Any]:
        """A task for each chunk, whatever parallelism is wished for."""
        return [
            ReadTask(
                functools.partial(_read, self._obj, start, rows),
                BlockMetadata(num_rows=rows, size_bytes=nbytes, exec_stats=None),
                schema=self._schema,
                per_task_row_limit=per_task_row_limit,
            )
            for start, rows, nbytes in self.chunks
        ]


def give_dataset(obj: Object) -> Any:
    """A dataset of a stored table; see :func:`flightstore.connectors.ray.to_ray_dataset`."""
    source = StoredTable(obj)
    options: dict[str, Any] = {}
    if is_local(obj):
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=True)
    return ray.data.read_datasource(source, override_num_blocks=len(source.chunks), ray_remote_args=options)


def _chunks(table: pa.Table) -> Iterator[tuple[int, int, int]]:
    start = 0
    batches = [batch for batch in table.to_batches() if batch.num_rows]
    if not batches:
        yield 0, table.num_rows, 0
    for batch in batches:
        yield start, batch.num_rows, batch.nbytes
        start += batch.num_rows


def _read(obj: Object, start: int, rows: int) -> list[pa.Table]:
    """In the task: one block, which is the store's memory if the store is here."""
    return [_arrow(obj).slice(start, rows)]


def _arrow(obj: Object) -> pa.Table:
    convert = getattr(obj, "to_arrow", None)
    if obj.kind != "table" or convert is None:
        raise NotConvertible(
            f"the object {obj.id} is a {obj.kind}, no table", hint="to_ray(obj) hands it over"
        )
    table = convert()
    return table if isinstance(table, pa.Table) else pa.table(obj)
