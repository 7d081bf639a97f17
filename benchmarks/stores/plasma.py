"""Plasma, Arrow's object store until pyarrow 11: a server, a socket, IPC streams in shared memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
from codec import Codec

from stores.base import Backend, Factory, Side
from stores.servers import start, stop

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated since pyarrow 10
    from pyarrow import plasma


class PlasmaSide(Side):
    """A client. An object id is never used twice: it is made of the name and of how often it was put."""

    def __init__(self, socket: str, store: str, codec: Codec) -> None:
        self.codec = codec
        self._store = store
        self._client = plasma.connect(socket)
        self._versions: dict[str, int] = {}

    def put(self, name: str, value: Any) -> None:
        if name in self._versions:
            self._client.delete([self._id(self.token(name))])
        self._versions[name] = self._versions.get(name, 0) + 1
        object_id = self._id(self.token(name))
        form = self.codec.form(value)
        sink = pa.FixedSizeBufferWriter(self._client.create(object_id, self.codec.size(form)))
        self.codec.write(form, sink)
        self._client.seal(object_id)

    def token(self, name: str) -> str:
        return f"{self._store}/{name}/{self._versions.get(name, 0)}"

    def get(self, token: str) -> Any:
        data = self._client.get_buffers([self._id(token)])[0]
        return memoryview(data) if self.codec.kind == "bytes" else self.codec.decode(data)

    def delete(self, name: str) -> None:
        self._client.delete([self._id(self.token(name))])

    def close(self) -> None:
        self._client.disconnect()

    @staticmethod
    def _id(token: str) -> Any:
        return plasma.ObjectID(hashlib.sha1(token.encode()).digest())


class Plasma(Backend):
    """One server for all workloads."""

    label = "Plasma"

    def __init__(self, scratch: Path, work: Path, room_bytes: int) -> None:
        super().__init__(scratch, work, room_bytes)
        self._server = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(sys.executable).with_name("plasma_store")
        socket = self.work / "plasma"
        return start(
            [program, "-m", str(self.room_bytes), "-s", str(socket), "-d", str(self.scratch)], socket
        )

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        return (PlasmaSide, str(self.work / "plasma"), name, codec)

    def restart(self) -> None:
        stop(self._server)
        self._server = self._start()

    def server_pids(self) -> list[int]:
        return [self._server.pid]

    def close(self) -> None:
        stop(self._server)
