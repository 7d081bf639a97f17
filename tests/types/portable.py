"""Values as bytes for another process, not through a store: exactly, which pickle is not.

pickle forgets some of Arrow's types (whether keys are sorted, names of items) and of NumPy's byte orders.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["pack", "unpack"]

COLUMN = "x"


def pack(value: Any) -> bytes:
    """An Arrow value or a NumPy array as bytes."""
    if isinstance(value, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        form = "array" if isinstance(value, pa.Array) else type(value).__name__
        return pickle.dumps((form, stream(value)))
    if value.dtype.hasobject or value.dtype.kind == "T":
        return pickle.dumps(("", value))
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return pickle.dumps(("elements", (value.shape, value.dtype, value.tobytes(order), order)))


def stream(value: Any) -> bytes:
    """Arrow's own stream of a value, arrays as the only column of a batch or table."""
    if isinstance(value, pa.Array):
        value = pa.record_batch([value], names=[COLUMN])
    elif isinstance(value, pa.ChunkedArray):
        value = pa.table({COLUMN: value})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, value.schema) as writer:
        writer.write(value)
    return sink.getvalue().to_pybytes()


def unpack(data: bytes) -> Any:
    """The value, in memory of its own."""
    form, content = pickle.loads(data)
    if not form:
        return content
    if form == "elements":
        shape, dtype, elements, order = content
        return np.ndarray(shape, dtype, elements, order=order)
    with pa.ipc.open_stream(content) as reader:
        if form in ("RecordBatch", "array"):
            batch = reader.read_next_batch()
            return batch if form == "RecordBatch" else batch.column(0)
        table = reader.read_all()
    return table if form == "Table" else table.column(0)
