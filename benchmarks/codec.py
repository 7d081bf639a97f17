"""Values <-> bytes, for the stores that hold bytes: an Arrow IPC stream for everything that is a table.

A value's schema travels in its stream, except in `Message`, where both ends know it. What comes out refers to
the memory it was read from wherever Arrow can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from values import kind_of

LARGE_BYTES = 1 << 20
"""From here on bytes are laid out in a buffer of the right size: one that grows would copy them again."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How one kind of value becomes bytes and back."""

    kind: str
    """``bytes``, ``array``, ``table``, ``pandas`` or ``polars``."""
    dtype: str = ""
    """Of an array: known to both ends."""

    @classmethod
    def of(cls, value: Any) -> Codec:
        """The codec for values like this one."""
        return cls(kind_of(value), value.dtype.str if isinstance(value, np.ndarray) else "")

    @property
    def raw(self) -> bool:
        """Whether a value's bytes are stored as they are."""
        return self.kind in ("bytes", "array")

    def prepare(self, value: Any) -> Any:
        """The form of a value that the other methods take; made before the clock starts."""
        return value

    def form(self, value: Any) -> Any:
        """What is written: the value itself, or the Arrow table that stands for it."""
        if self.kind == "pandas":
            return pa.Table.from_pandas(value)
        return value.to_arrow() if self.kind == "polars" else value

    def size(self, form: Any) -> int:
        """How many bytes :meth:`write` writes."""
        if self.raw:
            return memoryview(form).nbytes
        counter = pa.MockOutputStream()
        _write_stream(counter, form)
        return int(counter.size())

    def write(self, form: Any, sink: Any) -> None:
        """Write to an Arrow output stream."""
        if self.raw:
            sink.write(form)
        else:
            _write_stream(sink, form)

    def encode(self, value: Any) -> Any:
        """The value's bytes, in private memory; bytes and arrays as they are."""
        form = self.form(value)
        if self.raw:
            return form
        if form.nbytes < LARGE_BYTES:
            sink = pa.BufferOutputStream()
            self.write(form, sink)
            return sink.getvalue()
        buffer = pa.allocate_buffer(self.size(form))
        self.write(form, pa.FixedSizeBufferWriter(buffer))
        return buffer

    def decode(self, data: Any) -> Any:
        """A usable value over bytes-like `data`."""
        if self.kind == "bytes":
            return data
        if self.kind == "array":
            return np.frombuffer(data, dtype=self.dtype)
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            return self.from_table(reader.read_all())

    def from_table(self, table: Any) -> Any:
        """The frame that an Arrow table stands for, sharing its memory where the library can."""
        if self.kind == "pandas":
            return table.to_pandas(split_blocks=True)
        if self.kind == "polars":
            import polars as pl

            return pl.from_arrow(table, rechunk=False)
        return table


@dataclass(frozen=True, slots=True)
class Message(Codec):
    """A table of one batch as a bare IPC message, its schema known to both ends: the least Arrow can do."""

    schema: Any = None

    def prepare(self, value: Any) -> Any:
        return value.to_batches()[0]

    def encode(self, value: Any) -> Any:
        return value.serialize()

    def decode(self, data: Any) -> Any:
        return pa.ipc.read_record_batch(pa.py_buffer(data), self.schema)


def _write_stream(sink: Any, table: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
