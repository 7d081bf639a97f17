"""LMDB by hand: what a careful user would write instead of flightstore.

An environment on the memory file system with writemap and without sync; raw bytes for bytes and arrays, Arrow
IPC for tables. It looks after no reader: a value got inside a transaction is copied out of it, unless it is
bulky: then the transaction stays open for as long as the value is wanted, and nothing is copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
from codec import Codec, Message
from harness import MIB
from values import kind_of

from stores.base import Backend, Factory, Side


class LmdbSide(Side):
    """An environment."""

    def __init__(self, path: Path, map_bytes: int, codec: Codec, zero_copy: bool) -> None:
        """Open, and make where missing; `zero_copy` leaves each get's transaction open with its value."""
        path.mkdir(exist_ok=True)
        self.env = lmdb.open(str(path), map_size=map_bytes, writemap=True, sync=False)
        self.codec = codec
        self._zero_copy = zero_copy

    def prepare(self, value: Any) -> Any:
        return self.codec.prepare(value)

    def put(self, name: str, value: Any) -> None:
        data = self.codec.encode(value)
        with self.env.begin(write=True) as txn:
            txn.put(name.encode(), data)

    def get(self, token: Any) -> Any:
        if self._zero_copy:
            held = self.env.begin(buffers=True)
            return Held(held, self.codec.decode(held.get(token.encode())))
        with self.env.begin() as txn:
            data = txn.get(token.encode())
        return self.codec.decode(data)

    def unwrap(self, value: Any) -> Any:
        return value.value if isinstance(value, Held) else value

    def delete(self, name: str) -> None:
        with self.env.begin(write=True) as txn:
            txn.delete(name.encode())

    def close(self) -> None:
        self.env.close()


class Held:
    """A value, and the read transaction whose end would invalidate it."""

    def __init__(self, txn: Any, value: Any) -> None:
        self.txn = txn
        self.value = value

    def __del__(self) -> None:
        self.value = None
        self.txn.abort()


class Lmdb(Backend):
    """An environment for each workload. The schema of a small table is known to both ends."""

    label = "LMDB"
    libraries = ("lmdb",)

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        return (LmdbSide, self.scratch / name, room_bytes * 3 // 2 + 64 * MIB, codec, bulk)

    def metadata_bytes(self, side: Side, payload_bytes: int) -> int:
        """The pages in use, without the payload in them."""
        assert isinstance(side, LmdbSide)
        found: Any = side.env.stat()
        pages = sum(int(found[f"{kind}_pages"]) for kind in ("branch", "leaf", "overflow"))
        return pages * int(found["psize"]) - payload_bytes

    def codec(self, value: Any, bulk: bool) -> Codec:
        known = not bulk and kind_of(value) == "table"
        return Message("table", schema=value.schema) if known else super().codec(value, bulk)


class LmdbStream(Lmdb):
    """The same with the schema in every value, as a store of tables of any schema has to keep it."""

    label = "LMDB, IPC stream"
    only = frozenset({"row16", "row1"})

    def codec(self, value: Any, bulk: bool) -> Codec:
        return Codec.of(value)
