"""Clients that are slow, stalled, too many, or gone: objects stay what they are, and others are served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway import flight as server_module
from flightstore.gateway import flight_calls, stalled
from flightstore.gateway.connections import Connections
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.limits import Limits
from flightstore.gateway.service import Service

from .conftest import Everybody
from .rawflight import Raw, batches_of

pytestmark = pytest.mark.req("GW-6")

IDLE_S = 0.5
LATE_S = 30
"""However busy the machine is, and long before clients are given up by default."""
SCHEMA = pa.schema([("a", pa.int64())])
Serve = Callable[..., FlightServer]


@pytest.fixture
def serve(service: Service) -> Iterator[Serve]:
    """Starts servers with limits of one's own."""
    started: list[FlightServer] = []

    def start(location: str = "grpc://127.0.0.1:0", **limits: Any) -> FlightServer:
        started.append(FlightServer(service, Everybody(), location, limits=Limits(**limits)))
        return started[-1]

    yield start
    for server in started:
        assert server.stop(10)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so that cannot be waited for otherwise."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Clock:
    """What servers take for the time: it stands, however long everybody takes, until it is put forward."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = time.monotonic()
        for module in (server_module, flight_calls, stalled):
            patch.setattr(module, "time", self)

    def monotonic(self) -> float:
        """As of the module time."""
        return self._now

    def forward(self, server: FlightServer, seconds: float) -> None:
        """Let some time pass, and the server look at its clients."""
        self._now += seconds
        eventually(lambda: self._now in looks(server)[:-1], "it does not look at its clients")

    def forward_until(self, server: FlightServer, condition: Callable[[], object]) -> None:
        """Let time pass until something is so."""

        def forward() -> object:
            self.forward(server, IDLE_S)
            return condition()

        eventually(forward, "they are not broken off")


def looks(server: FlightServer) -> list[float]:
    """When, by its clock, a server began to look at its clients; from the first call of this on."""
    watch = server._watch
    found: list[float] = watch.__dict__.setdefault("looks", [])
    if "_look" not in watch.__dict__:
        look = watch._look

        def noted() -> None:
            found.append(stalled.time.monotonic())
            look()

        watch._look = noted  # type: ignore[method-assign]
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def numbers(nbytes: int, seed: int = 0) -> pa.Table:
    return pa.table({"a": np.random.default_rng(seed).integers(0, 1 << 60, nbytes // 8)})


def stalled_reader(raw: Raw, store: fs.Store) -> Any:
    """A DoGet of 16 MiB whose first message has been read, and no more."""
    if not store.contains("large"):
        store.put(numbers(16 << 20), "large")
    stream = raw.get(b"large")
    next(stream)
    return stream


@pytest.mark.req("GW-2")
def test_a_slow_reader_gets_what_the_object_was(store: fs.Store, serve: Serve) -> None:
    """The object is deleted, and everything else overwritten, while all but 64 KiB are still to be sent."""
    server = serve()
    table = numbers(4 << 20)
    store.put(table, "slow")
    with Raw(server.port) as raw:
        stream = raw.get(b"slow")
        messages = [next(stream)]
        eventually(lambda: store.holders("slow"), "the server holds no reference")
        store.delete("slow")
        fill = [store.put(numbers(4 << 20, seed=1)) for _ in range(14)]
        with pytest.raises(fs.StoreFull):
            store.put(numbers(8 << 20))
        for message in stream:
            messages.append(message)
            store.delete(fill.pop())
            fill.append(store.put(numbers(4 << 20, seed=2)))
        assert batches_of(messages) == table
    store.put(numbers(4 << 20, seed=3), timeout=60)  # its memory is free again


def test_a_stalled_reader_is_broken_off(store: fs.Store, serve: Serve, clock: Clock) -> None:
    server = serve(idle_timeout_s=IDLE_S)
    with Raw(server.port) as raw:
        stream = stalled_reader(raw, store)
        clock.forward(server, 0)
        assert server.calls.running()
        clock.forward_until(server, lambda: not server.calls.running())
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        eventually(lambda: not store.holders("large"), "it still holds the object")


def test_a_slow_reader_is_not_broken_off(store: fs.Store, serve: Serve, clock: Clock) -> None:
    server = serve(idle_timeout_s=IDLE_S)

    def has_seen_progress() -> bool:
        """Or all is sent."""
        seen = [when for _, when in server._watch._acked.values()]
        return clock.monotonic() in seen or not server.calls.running()

    with Raw(server.port) as raw:
        stream = stalled_reader(raw, store)
        count = 0
        for _ in stream:
            eventually(has_seen_progress, "the server does not see that it takes something")
            clock.forward(server, IDLE_S * 0.9)
            count += 1
        assert count == 9


@pytest.mark.parametrize("begun", [False, True])
def test_a_stalled_upload_is_broken_off(store: fs.Store, serve: Serve, clock: Clock, begun: bool) -> None:
    """Whether it has sent its first message, for which gRPC's thread waits before anything of ours runs."""
    server = serve(idle_timeout_s=IDLE_S)
    with Raw(server.port) as raw:
        upload = raw.upload()
        if begun:
            upload.begin("x", SCHEMA)
        eventually(lambda: server.calls.running(), "it never ran")
        clock.forward_until(server, lambda: not server.calls.running())
        assert upload.error().code() is grpc.StatusCode.UNAVAILABLE
    assert store.list() == []


def test_an_upload_that_waits_for_the_store_is_not_broken_off(
    store: fs.Store, serve: Serve, clock: Clock
) -> None:
    server = serve(idle_timeout_s=IDLE_S)
    fill = store.put(numbers(48 << 20))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        command = json.dumps({"name": "late", "timeout_s": 30}).encode()
        table = numbers(32 << 20)
        writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), table.schema)
        writer.write_table(table)
        writer.done_writing()
        # It has come, so that it is for the store to make room.
        eventually(lambda: any(call.bytes_in for call in server.calls.running()), "the table does not come")
        clock.forward(server, 3 * IDLE_S)
        store.delete(fill)
        assert json.loads(reader.read().to_pybytes())["num_rows"] == table.num_rows
        writer.close()


def test_uploads_beyond_the_limit_are_refused(store: fs.Store, serve: Serve) -> None:
    server = serve(max_uploads=2)
    with Raw(server.port) as raw, flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        uploads = [raw.upload() for _ in range(2)]
        eventually(lambda: len(server.calls.running()) == 2, "they never ran")
        began = time.monotonic()
        refused = raw.upload().error()
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.details().startswith("this gateway serves 2 uploads already")
        assert time.monotonic() - began < LATE_S
        store.put(numbers(800), "x")
        assert client.do_get(flight.Ticket(b"x")).read_all().num_rows == 100
        uploads[0].call.cancel()
        eventually(lambda: len(server.calls.running()) == 1, "it still runs")
        writer, reader = client.do_put(flight.FlightDescriptor.for_path("y"), SCHEMA)
        writer.done_writing()
        assert reader.read() is not None
        writer.close()
        uploads[1].call.cancel()
    assert sorted(info.name or "" for info in store.list()) == ["x", "y"]


def test_followers_are_no_uploads(store: fs.Store, serve: Serve, clock: Clock) -> None:
    """And may wait for as long as they like."""
    server = serve(max_uploads=1, idle_timeout_s=IDLE_S)
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        descriptor = flight.FlightDescriptor.for_command(b'{"follow": {}}')
        following = [client.do_exchange(descriptor) for _ in range(3)]
        for _, reader in following:
            assert json.loads(reader.read_chunk().app_metadata.to_pybytes())["events"] == []
        clock.forward(server, 2 * IDLE_S)
        writer, replies = client.do_put(flight.FlightDescriptor.for_path("y"), SCHEMA)
        writer.done_writing()
        assert replies.read() is not None
        writer.close()
        for _, reader in following:
            [event] = json.loads(reader.read_chunk().app_metadata.to_pybytes())["events"]
            assert event["name"] == "y"
            reader.cancel()


def test_calls_beyond_the_limit_are_refused(store: fs.Store, serve: Serve) -> None:
    server = serve(max_connections=3)
    with Raw(server.port) as raw:
        streams = [stalled_reader(raw, store) for _ in range(3)]
        refused = raw.error_of("ListFlights", b"")
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.details().startswith("this gateway serves 3 calls already")
        streams[0].cancel()
        eventually(lambda: len(server.calls.running()) == 2, "it still runs")
        assert list(raw.stream("ListActions", b""))


def test_connections_beyond_the_limit_are_broken_off(serve: Serve) -> None:
    server = serve(max_connections=3, idle_timeout_s=IDLE_S)
    clients = [Raw(server.port) for _ in range(6)]
    for client in clients:
        grpc.channel_ready_future(client.channel).result(60)
    eventually(lambda: len(list(Connections(server.port, None))) <= 3, "they are all there")
    for client in clients:
        client.channel.close()


@pytest.mark.req("GW-8")
@pytest.mark.parametrize("unix", [False, True])
def test_the_end_is_bounded(
    store: fs.Store, serve: Serve, tmp_path: Path, unix: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LAST_S", 4.0)  # breaking off may take that on a busy machine
    server = serve(f"grpc+unix://{tmp_path}/socket" if unix else "grpc://127.0.0.1:0")
    with Raw(f"unix:{tmp_path}/socket" if unix else server.port) as raw:
        stalled = stalled_reader(raw, store)
        upload = raw.upload()
        upload.begin("x", SCHEMA)
        eventually(lambda: len(server.calls.running()) == 2, "they never ran")
        began = time.monotonic()
        assert server.stop(8)
        assert time.monotonic() - began < LATE_S
        assert store.holders("large") == []
        stalled.cancel()
    assert [info.name for info in store.list()] == ["large"]


UPLOADER = """
import sys, time
import pyarrow as pa
from pyarrow import flight
client = flight.connect(sys.argv[1])
table = pa.table({"a": range(1 << 17)})
writer, _ = client.do_put(flight.FlightDescriptor.for_path("broken"), table.schema)
for _ in range(8):
    writer.write_table(table)
print("sent", flush=True)
time.sleep(60)
"""


@pytest.mark.req("GW-2")
@pytest.mark.parametrize("how", ["killed", "cancelled", "deadline"])
def test_an_upload_that_breaks_leaves_nothing(store: fs.Store, serve: Serve, how: str) -> None:
    server = serve()
    address = f"grpc://127.0.0.1:{server.port}"
    used = store.stats().used_bytes
    if how == "killed":
        with subprocess.Popen([sys.executable, "-c", UPLOADER, address], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"sent\n"
            os.kill(process.pid, signal.SIGKILL)
    elif how == "cancelled":
        with Raw(server.port) as raw:
            upload = raw.upload()
            upload.begin("broken", SCHEMA)
            eventually(lambda: any(call.peer for call in server.calls.running()), "it never ran")
            upload.call.cancel()
    else:
        with flight.connect(address) as client:
            descriptor = flight.FlightDescriptor.for_path("broken")
            options = flight.FlightCallOptions(timeout=0.3)

            def upload() -> None:
                writer, reader = client.do_put(descriptor, SCHEMA, options)
                writer.write_table(numbers(8000).cast(SCHEMA))
                assert reader.read() is None
                writer.close()

            with pytest.raises(flight.FlightTimedOutError):  # whatever it is that comes too late
                upload()
    eventually(lambda: not server.calls.running(), "it still runs")
    assert store.list() == []
    assert store.stats().used_bytes == used


def test_a_broken_upload_is_never_taken_for_a_whole_one(store: fs.Store, serve: Serve) -> None:
    """Arrow reports both ends alike."""
    server = serve()
    with Raw(server.port) as raw:
        for number in range(200):
            upload = raw.upload()
            upload.begin("broken", SCHEMA)
            if number % 2:
                eventually(lambda: any(call.peer for call in server.calls.running()), "it never ran")
            upload.call.cancel()
            upload.send(b"")
    eventually(lambda: not server.calls.running(), "some still run")
    assert store.list() == []
