"""flightstore through its public interface."""

from __future__ import annotations

import compileall
from pathlib import Path
from typing import Any

from codec import Codec
from harness import MIB, OURS

from stores.base import Backend, Factory, Side, disk_bytes


class OurSide(Side):
    """A connection."""

    def __init__(self, path: Path, capacity_bytes: int, codec: Codec) -> None:
        import flightstore as fs

        self.codec = codec
        self.store: Any = fs.connect(path, capacity=capacity_bytes)

    def put(self, name: str, value: Any) -> None:
        self.store.put(value, name)

    def get(self, token: Any) -> Any:
        return self.store.get(token).value()

    def delete(self, name: str) -> None:
        self.store.delete(name)

    def add_column(self, name: str, new: str, column: str, array: Any, value: Any) -> None:
        self.store.with_columns(name, {column: array}, name=new)

    def used_bytes(self) -> int:
        return int(self.store.stats().used_bytes)

    def close(self) -> None:
        self.store.close()


class Ours(Backend):
    """A store for each workload."""

    label = OURS
    libraries = ("msgspec",)

    def __init__(self, scratch: Path, work: Path, room_bytes: int) -> None:
        super().__init__(scratch, work, room_bytes)
        compile_package()

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        return (OurSide, self.scratch / name, room_bytes + 256 * MIB, codec)

    def metadata_bytes(self, side: Side, payload_bytes: int) -> int:
        """The catalog's pages in use, and the clients' files."""
        assert isinstance(side, OurSide)
        stats = side.store.stats()
        return int(stats.catalog_used_bytes) + disk_bytes(Path(stats.path) / "clients")

    @classmethod
    def unable_to_add(cls) -> str | None:
        import flightstore as fs

        return None if hasattr(fs.Store, "with_columns") else "this version does not compose tables"


def compile_package() -> None:
    """Have every module's byte code at hand, as it is after an installation.

    In a clone it may not be, and where Python is told not to write any, each new process would compile anew.
    """
    import flightstore as fs

    for place in fs.__path__:
        for folder in (place, *(f"{place}/{link}" for link in ("connectors", "adapters"))):
            compileall.compile_dir(folder, quiet=2)
