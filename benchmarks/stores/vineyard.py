"""Vineyard (v6d): a server, a socket, objects as trees of metadata over blobs in shared memory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import vineyard
from codec import Codec
from values import COLUMNS

from stores.base import Backend, Factory, Side
from stores.servers import start, stop


class VineyardSide(Side):
    """A client. Objects are known by their ids; bytes are plain blobs."""

    def __init__(self, socket: str, codec: Codec) -> None:
        self.codec = codec
        self._client = vineyard.connect(socket)
        self._ids: dict[str, Any] = {}

    def put(self, name: str, value: Any) -> None:
        old = self._ids.pop(name, None)
        if old is not None:
            self._client.delete([old])
        if self.codec.kind == "bytes":
            blob = self._client.create_blob(len(value))
            blob.copy(0, value)
            self._ids[name] = blob.seal(self._client).id
        else:
            self._ids[name] = self._client.put(value)

    def token(self, name: str) -> str:
        return repr(self._ids[name])

    def get(self, token: str) -> Any:
        object_id = vineyard.ObjectID(token)
        if self.codec.kind == "bytes":
            return memoryview(self._client.get_blob(object_id))
        return self._client.get(object_id)

    def delete(self, name: str) -> None:
        self._client.delete([self._ids.pop(name)])

    def add_column(self, name: str, new: str, column: str, array: Any, value: Any) -> None:
        """Composed by hand from the public metadata calls, the stored columns referred to as members."""
        base = self._client.get_meta(self._ids[name])
        schema = value.schema.append(pa.field(column, pa.float64()))
        batch = base.get_member("partitions_-0").meta
        record = self._record(batch, schema, self._client.put(pa.array(array)))
        meta = vineyard.ObjectMeta()
        meta["typename"] = "vineyard::Table"
        meta["num_rows_"], meta["num_columns_"] = value.num_rows, COLUMNS + 1
        meta["batch_num_"] = meta["partitions_-size"] = 1
        meta.add_member("schema_", self._client.put(schema))
        meta.add_member("partitions_-0", record)
        meta["nbytes"] = 0
        self._ids[new] = self._client.create_metadata(meta).id

    def _record(self, batch: Any, schema: Any, added: Any) -> Any:
        meta = vineyard.ObjectMeta()
        meta["typename"] = "vineyard::RecordBatch"
        meta["row_num_"] = batch["row_num_"]
        meta["column_num_"] = meta["__columns_-size"] = COLUMNS + 1
        meta.add_member("schema_", self._client.put(schema))
        for number in range(COLUMNS):
            meta.add_member(f"__columns_-{number}", batch.get_member(f"__columns_-{number}"))
        meta.add_member(f"__columns_-{COLUMNS}", added)
        meta["nbytes"] = 0
        return self._client.create_metadata(meta)

    def used_bytes(self) -> int:
        return int(self._client.status.memory_usage)

    def close(self) -> None:
        self._client.close()


class Vineyard(Backend):
    """One server for all workloads, without its remote half and with metadata of its own."""

    label = "Vineyard"
    libraries = ("vineyard", "pandas")

    def __init__(self, scratch: Path, work: Path, room_bytes: int) -> None:
        super().__init__(scratch, work, room_bytes)
        # Else the logs stay behind in the temporary directory. The case is the library's.
        os.environ["GLOG_log_dir"] = str(work)  # noqa: SIM112
        self._server = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(vineyard.__file__).parent / "bdist" / "vineyardd"
        socket = self.work / "vineyard"
        options = ["--meta", "local", "--rpc=false", "--socket", socket, "--size", self.room_bytes]
        return start([program, *options], socket)

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        return (VineyardSide, str(self.work / "vineyard"), codec)

    def restart(self) -> None:
        stop(self._server)
        self._server = self._start()

    def server_pids(self) -> list[int]:
        return [self._server.pid]

    def close(self) -> None:
        stop(self._server)
