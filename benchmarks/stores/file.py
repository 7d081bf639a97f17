"""An Arrow IPC file on the memory file system: written beside, renamed into place, mapped to read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from codec import Codec

from stores.base import Backend, Factory, Side, disk_bytes


class FileSide(Side):
    """A directory of files."""

    def __init__(self, path: Path, codec: Codec) -> None:
        path.mkdir(exist_ok=True)
        self.path, self.codec = str(path), codec

    def put(self, name: str, value: Any) -> None:
        target = f"{self.path}/{name}"
        beside = f"{target}.{os.getpid()}"
        if self.codec.kind == "bytes":
            with open(beside, "wb") as plain:
                plain.write(value)
        elif self.codec.kind == "array":
            with pa.OSFile(beside, "wb") as sink:
                sink.write(value)
        else:
            table = self.codec.form(value)
            with pa.OSFile(beside, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        os.rename(beside, target)

    def get(self, token: Any) -> Any:
        path = f"{self.path}/{token}"
        if self.codec.kind == "bytes":
            with open(path, "rb") as plain:
                return plain.read()
        mapped = pa.memory_map(path)
        if self.codec.raw:
            return self.codec.decode(mapped.read_buffer())
        return self.codec.from_table(pa.ipc.open_file(mapped).read_all())

    def delete(self, name: str) -> None:
        os.unlink(f"{self.path}/{name}")

    def close(self) -> None:
        return


class File(Backend):
    """A directory for each workload."""

    label = "file"

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        return (FileSide, self.scratch / name, codec)

    def metadata_bytes(self, side: Side, payload_bytes: int) -> int:
        """What the files take beyond it; the kernel's inodes come on top."""
        assert isinstance(side, FileSide)
        return disk_bytes(Path(side.path)) - payload_bytes
