"""The two stores that are compared, behind one small interface: flightstore, and LMDB by hand.

`LmdbSide` is what a careful user would write instead of flightstore: an environment on the memory file
system with writemap and without sync, raw bytes for bytes and arrays, an IPC message for a table, the
schema known to both ends. It looks after no reader: a value got inside a transaction is copied out of it,
unless `zero_copy` keeps the transaction open for as long as the value is wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Codec:
    """How one kind of value lies in LMDB; `schema` is cached on both ends, `dtype` known to them."""

    kind: str
    """``bytes``, ``array`` or ``table``."""
    schema: Any = None
    dtype: str = "u1"

    def encode(self, value: Any) -> Any:
        """The bytes to store: bytes and arrays as they are, a table's one batch as an IPC message."""
        return value.serialize() if self.kind == "table" else value

    def decode(self, data: Any) -> Any:
        """A usable value over `data`, without a copy."""
        if self.kind == "table":
            return pa.ipc.read_record_batch(pa.py_buffer(data), self.schema)
        return np.frombuffer(data, dtype=self.dtype) if self.kind == "array" else data

    def same(self, left: Any, right: Any) -> bool:
        """Whether two values of this kind are equal."""
        if self.kind == "table":
            return bool(_as_table(left).equals(_as_table(right)))
        return bytes(left) == bytes(right)


def _as_table(value: Any) -> Any:
    return pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else value


class Side(ABC):
    """A store in the eyes of a benchmark."""

    @abstractmethod
    def put(self, name: str, value: Any) -> None:
        """Store `value` under `name`, replacing what was there."""

    @abstractmethod
    def get(self, name: str) -> Any:
        """A usable value that stays valid for as long as it is referred to."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove what `name` refers to."""

    @abstractmethod
    def close(self) -> None:
        """Give the store up; its files stay."""

    def prepare(self, value: Any) -> Any:
        """The form of an Arrow table that this side is handed."""
        return value


class StoreSide(Side):
    """flightstore through its public interface."""

    def __init__(self, path: Path, capacity_bytes: int | None = None) -> None:
        """Connect; `capacity_bytes` makes the store if there is none."""
        import flightstore as fs

        self.store: Any = fs.connect(path, capacity=capacity_bytes) if capacity_bytes else fs.connect(path)

    def put(self, name: str, value: Any) -> None:
        self.store.put(value, name)

    def get(self, name: str) -> Any:
        return self.store.get(name).value()

    def delete(self, name: str) -> None:
        self.store.delete(name)

    def close(self) -> None:
        self.store.close()


class LmdbSide(Side):
    """LMDB by hand."""

    def __init__(self, path: Path, map_bytes: int, codec: Codec, zero_copy: bool = False) -> None:
        """Open, and make where missing; `zero_copy` leaves each get's transaction open with its value."""
        path.mkdir(exist_ok=True)
        self.env = lmdb.open(str(path), map_size=map_bytes, writemap=True, sync=False)
        self.codec = codec
        self._zero_copy = zero_copy

    def put(self, name: str, value: Any) -> None:
        data = self.codec.encode(value)
        with self.env.begin(write=True) as txn:
            txn.put(name.encode(), data)

    def get(self, name: str) -> Any:
        if self._zero_copy:
            held = self.env.begin(buffers=True)
            return _Held(held, self.codec.decode(held.get(name.encode())))
        with self.env.begin() as txn:
            data = txn.get(name.encode())
        return self.codec.decode(data)

    def delete(self, name: str) -> None:
        with self.env.begin(write=True) as txn:
            txn.delete(name.encode())

    def close(self) -> None:
        self.env.close()

    def prepare(self, value: Any) -> Any:
        return value.to_batches()[0] if self.codec.kind == "table" else value


class _Held:
    """A value, and the read transaction whose end would invalidate it."""

    def __init__(self, txn: Any, value: Any) -> None:
        self.txn = txn
        self.value = value

    def __del__(self) -> None:
        self.value = None
        self.txn.abort()


def delete_all(side: Side, names: Iterable[str]) -> None:
    """Delete one after the other."""
    for name in names:
        side.delete(name)
