"""What is put here and got over Flight equals what is put over Flight and got here, for every type."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.reslicing import resliced
from flightstore.gateway.service import Service
from flightstore.objects.ipc import expressible
from flightstore.testing.types.suite import TypeSuite

from .conftest import Everybody

pytestmark = pytest.mark.req("GW-7")


def as_columns(value: Any) -> Any:
    """The value as it can be sent: chunks for an array, a table for a batch."""
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    return pa.chunked_array([value], value.type) if isinstance(value, pa.Array) else value


class OverFlight(TypeSuite):
    """Arrow values go as tables; what is none goes as a frame."""

    max_examples = 30
    refusal: ClassVar[Any] = (fs.NotStorable, pa.ArrowException, flight.FlightError)

    store: fs.Store
    client: Any

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def gateway(request: pytest.FixtureRequest) -> Iterator[None]:
        """A store and a server over it, for all tests of the class."""
        with tempfile.TemporaryDirectory(prefix="flightstore-test-", dir="/dev/shm") as parent:
            store = fs.connect(f"{parent}/store", capacity="64MiB")
            service = Service(store)
            server = FlightServer(service, Everybody(), "grpc://127.0.0.1:0")
            with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
                request.cls.store, request.cls.client = store, client
                yield
            assert server.stop(10)
            service.close()
            store.destroy()

    def check(self, name: str, value: Any) -> None:
        super().check(name, as_columns(value))

    def transfer(self, value: Any) -> Any:
        try:
            if isinstance(value, np.ndarray):
                return self.as_frame(value)
            if isinstance(value, pa.ChunkedArray):
                return self.table(pa.table({"c": value}))["c"]
            return self.table(value)
        finally:
            self.store.delete([info.id for info in self.store.list()])

    def table(self, table: pa.Table) -> pa.Table:
        """A table, moved."""
        raise NotImplementedError

    def as_frame(self, value: Any) -> Any:
        """Any value, moved as our own client does it."""
        self.store.put(value, "value")
        ticket = flight.Ticket(b'{"name": "value", "payload": true}')
        frame = self.client.do_get(ticket).read_all()
        self.store.delete("value")
        self.upload(frame, {"payload": True})
        return self.store.get("value").value()

    def upload(self, table: pa.Table, command: dict[str, Any]) -> fs.ObjectID:
        """Put over Flight."""
        descriptor = flight.FlightDescriptor.for_command(json.dumps(command).encode())
        writer, reader = self.client.do_put(descriptor, table.schema)
        with writer:
            writer.write_table(table)
            writer.done_writing()
            reply = reader.read()
        return fs.ObjectID.from_text(json.loads(reply.to_pybytes())["id"])


class TestPutHereGetOverFlight(OverFlight):
    """DoGet."""

    def table(self, table: pa.Table) -> pa.Table:
        made = self.store.put(table, pickle=False)
        return self.client.do_get(flight.Ticket(str(made).encode())).read_all()


class TestPutOverFlightGetHere(OverFlight):
    """DoPut."""

    def table(self, table: pa.Table) -> pa.Table:
        expressible(table.schema)  # Arrow's client sends what it has no words for as something else
        return self.store.get(self.upload(table, {})).to_arrow()


class TestFrames(OverFlight):
    """The same as frames, both ways."""

    def check(self, name: str, value: Any) -> None:
        self.check_same(value, self.transfer(value))

    def transfer(self, value: Any) -> Any:
        try:
            return self.as_frame(value)
        finally:
            self.store.delete([info.id for info in self.store.list()])


class TestSlices(TypeSuite):
    """Cut to a few bytes."""

    max_examples = 30

    def check(self, name: str, value: Any) -> None:
        value = as_columns(value)
        self.check_same(value, self.transfer(value))

    def transfer(self, value: Any) -> Any:
        if isinstance(value, pa.ChunkedArray):
            return self.cut(pa.table({"c": value}))["c"]
        return self.cut(value) if isinstance(value, pa.Table) else value

    def cut(self, table: pa.Table) -> pa.Table:
        """In a hundred slices or so."""
        return resliced(table, max(300, table.get_total_buffer_size() // 100))
