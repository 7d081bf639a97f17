"""Arrow arrays inside of metadata, which is text: what has no column of its own to lie in."""

from __future__ import annotations

import base64
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["dense", "embed", "embed_batch", "embedded", "embedded_batch"]


def embed_batch(batch: pa.RecordBatch) -> str:
    """A record batch as text."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode("ascii")


def embedded_batch(text: str) -> pa.RecordBatch:
    """The record batch that `embed_batch` wrote; in private memory."""
    with pa.ipc.open_stream(base64.b64decode(text)) as reader:
        return reader.read_next_batch()


def embed(array: pa.Array) -> str:
    """An array as text."""
    return embed_batch(pa.record_batch([array], names=["values"]))


def embedded(text: str) -> Any:
    """The array that `embed` wrote."""
    return embedded_batch(text).column(0)


def dense(array: pa.Array) -> pa.Array:
    """An array of a type that may be a dictionary's values: dictionaries and runs written out."""
    while True:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif pa.types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        else:
            return array
