"""`flightstore serve` from its start to its end, whatever clients do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway import process
from flightstore.gateway.settings import resolve

from .serving import BUSY_S, ROOT, Served, act, client, get

Serve = Callable[..., Served]
CLIENTS = 50
LOOPBACK = ("--flight", "127.0.0.1:0", "--http", "127.0.0.1:0")


@pytest.fixture
def serve(store_dir: Path) -> Iterator[Serve]:
    """Start gateways over the test's store; killed at the end of the test if they still run."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> Served:
            served = Served(store_dir, *arguments, **options)
            stack.callback(served.close)
            return served

        yield start


@pytest.fixture
def place(store_dir: Path) -> Path:
    """A folder for sockets, whose path is short."""
    return store_dir.parent


def put(location: str, name: str, rows: int) -> None:
    with client(location) as connected:
        table = pa.table({"n": range(rows)})
        writer, _ = connected.do_put(flight.FlightDescriptor.for_path(name), table.schema)
        with writer:
            writer.write_table(table)


def count(location: str, name: str) -> int:
    with client(location) as connected:
        return connected.do_get(flight.Ticket(name.encode())).read_all().num_rows


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextlib.contextmanager
def stalled(addresses: dict[str, Any], how: str, name: str) -> Iterator[None]:
    """A reader who takes a little of an object and then nothing more."""
    if how == "flight":
        with client(addresses["flight"]) as connected:
            reader = connected.do_get(flight.Ticket(name.encode()))
            assert reader.read_chunk().data.num_rows
            yield
            with contextlib.suppress(flight.FlightError, pa.ArrowException):
                reader.cancel()
        return
    host, port = addresses["http"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /objects/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100)
        yield


@pytest.mark.req("GW-8")
def test_it_says_when_it_is_ready_and_leaves_nothing(serve: Serve, place: Path, store_dir: Path) -> None:
    logging = ("--log-format", "json", "--log-level", "debug")
    served = serve(*LOOPBACK, "--unix", str(place / "s"), *logging, patient=True)
    addresses = served.ready()
    assert addresses["ready"] is True
    assert addresses["pid"] == served.process.pid
    assert addresses["store"] == str(store_dir)
    put(addresses["flight"], "numbers", 10)
    assert count(addresses["unix"], "numbers") == 10
    for url in (addresses["http"], addresses["unix_http"]):
        status, body = get(url, "/objects/numbers")
        assert (status, pa.ipc.open_stream(body).read_all().num_rows) == (200, 10)
    # Everybody is told of the HTTP server that he can reach.
    with client(addresses["flight"]) as connected:
        assert act(connected, "hello", {})["http"] == addresses["http"]
    with client(addresses["unix"]) as connected:
        assert act(connected, "hello", {})["http"] == addresses["unix_http"]
    assert served.end() == 0
    lines = [json.loads(line) for line in served.text().splitlines()]
    assert {line["level"] for line in lines} == {"debug", "info"}
    assert [line["message"] for line in lines][-2:] == ["stopping", "stopped"]
    assert any(line["message"].startswith("flight") and line["code"] == "OK" for line in lines)
    assert sorted(os.listdir(place)) == ["store"]
    with fs.connect(store_dir, create=False) as store:
        assert store.get("numbers").num_rows == 10


MAPPING = """
import sys
from flightstore.objects.registry import open_object
from flightstore.remote.mediated import Mapping

class NoStore:
    def holders_of(self, serial): return []
    def departing(self, object_id): raise NotImplementedError

held = open_object(Mapping(sys.argv[1]).get(lambda object_id: NoStore(), "numbers"))
print(held.to_arrow().num_rows, flush=True)
sys.stdin.read()
print(held.to_arrow().column("n")[-1], flush=True)
"""


@pytest.mark.req("GW-4")
def test_processes_that_are_no_clients_map_and_keep_what_they_read(
    serve: Serve, place: Path, store_dir: Path
) -> None:
    served = serve("--unix", str(place / "s"))
    addresses = served.ready()
    put(addresses["unix"], "numbers", 100_000)
    path = addresses["unix_map"].removeprefix("unix://")
    command = [sys.executable, "-c", MAPPING, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as reader:
        assert reader.stdout
        assert reader.stdout.readline() == b"100000\n"
        assert served.end() == 0
        with fs.connect(store_dir) as store:
            store.delete("numbers")
            store.recover()
            store.put(bytes(20 << 20), name="churn")
            out, _ = reader.communicate(b"", timeout=BUSY_S)
            assert out == b"99999\n"
            store.recover()
            assert store.fsck() == []


@pytest.mark.req("GW-8")
def test_the_end_is_bounded_to_five_seconds() -> None:
    """By the sum of all that it waits for; the tests below see that it waits for nothing else."""
    assert process.GRACE_S + process.BREAKING_S + process.CLOSING_S < 5
    assert process.Gateway.stop.__defaults__ == (process.GRACE_S,)


@pytest.mark.req("GW-8")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["flight", "http"])
def test_a_stalled_reader_does_not_keep_it(serve: Serve, place: Path, how: str, number: int) -> None:
    """Five seconds at most; the best of several, for a busy machine may not run the gateway meanwhile."""
    assert any(seconds_to_end(serve, place, how, number) < 5 for _ in range(4))
    assert sorted(os.listdir(place)) == ["store"]


def seconds_to_end(serve: Serve, place: Path, how: str, number: int) -> float:
    """How long a gateway goes on after a signal while a reader takes nothing."""
    served = serve(*LOOPBACK, "--unix", str(place / "s"))
    addresses = served.ready()
    put(addresses["flight"], "big", 3_000_000)
    with stalled(addresses, how, "big"):
        began = time.monotonic()
        assert served.end(number) == 0
        took = time.monotonic() - began
    assert "Traceback" not in served.text()
    return took


@pytest.mark.req("GW-8")
def test_a_stalled_upload_does_not_keep_it_and_leaves_nothing(serve: Serve, store_dir: Path) -> None:
    served = serve(*LOOPBACK)
    addresses = served.ready()
    table = pa.table({"n": range(1_000_000)})
    with client(addresses["flight"]) as connected:
        writer, _ = connected.do_put(flight.FlightDescriptor.for_path("half"), table.schema)
        for _ in range(3):  # some are on the way, or gathered
            writer.write_table(table)
        wait_for(lambda: act(connected, "stats", {})["record"]["pending"])
        host, port = addresses["http"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = "PUT /objects/half HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode() + bytes(1000))
            assert served.end() == 0
        with contextlib.suppress(flight.FlightError, pa.ArrowException):
            writer.close()
    with fs.connect(store_dir) as store:
        assert store.list() == []
        store.recover()
        assert store.stats().used_bytes == 0
        assert store.fsck() == []


STOPPED = """
import os, signal, sys, flightstore
with flightstore.connect(sys.argv[1]) as store:
    store._conn.exclusive(lambda: os.kill(os.getpid(), signal.SIGSTOP))
"""


@pytest.mark.req("GW-8")
def test_a_store_that_does_not_answer_does_not_keep_it(serve: Serve, store_dir: Path, place: Path) -> None:
    """Another client holds the writers' lock, and was stopped."""
    served = serve(*LOOPBACK, "--unix", str(place / "s"))
    addresses = served.ready()
    with subprocess.Popen([sys.executable, "-c", STOPPED, str(store_dir)], cwd=ROOT) as stopped:
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
        with client(addresses["flight"]) as connected:
            table = pa.table({"n": range(10)})
            writer, _ = connected.do_put(flight.FlightDescriptor.for_path("x"), table.schema)
            writer.write_table(table)
            writer.done_writing()
            assert served.end() == 0
            with pytest.raises((flight.FlightError, pa.ArrowException)):
                writer.close()
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(BUSY_S) == 0
    assert sorted(os.listdir(place)) == ["store"]


@pytest.mark.req("GW-8")
def test_idle_clients_do_not_delay_the_end(serve: Serve) -> None:
    served = serve(*LOOPBACK, patient=True)
    addresses = served.ready()
    host, port = addresses["http"].removeprefix("http://").split(":")
    idle = contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=BUSY_S))
    with client(addresses["flight"]) as connected, idle as keeping:
        act(connected, "hello", {})
        keeping.request("GET", "/health")
        assert keeping.getresponse().read()
        assert served.end() == 0  # long before the time is over that running requests have


@pytest.mark.req("GW-8")
def test_running_requests_may_end(serve: Serve, store_dir: Path) -> None:
    served = serve(*LOOPBACK, patient=True)
    addresses = served.ready()
    table = pa.table({"n": range(1000)})
    with client(addresses["flight"]) as connected:
        writer, reader = connected.do_put(flight.FlightDescriptor.for_path("late"), table.schema)
        with writer:
            writer.write_with_metadata(table.to_batches()[0], b"begun")
            assert reader.read() == pa.py_buffer(b"begun")
            served.process.send_signal(signal.SIGTERM)
            served.wait_for_log("stopping")
            writer.write_table(table)
    assert served.ended() == 0
    with fs.connect(store_dir) as store:
        assert store.get("late").num_rows == 2000


@pytest.mark.req("GW-8")
def test_a_second_signal_ends_it_at_once(serve: Serve, place: Path) -> None:
    """And not when the time is over that the stalled reader has."""
    served = serve(*LOOPBACK, "--unix", str(place / "s"), patient=True)
    addresses = served.ready()
    put(addresses["flight"], "big", 3_000_000)
    with stalled(addresses, "flight", "big"):
        served.process.send_signal(signal.SIGTERM)
        served.wait_for_log("stopping")
        assert served.end(signal.SIGINT) == 130
    assert sorted(os.listdir(place)) == ["store"]


@pytest.mark.req("GW-8")
@pytest.mark.slow
def test_fifty_clients_go_on_after_a_kill_and_a_restart(serve: Serve, store_dir: Path, place: Path) -> None:
    first = serve(*LOOPBACK, "--unix", str(place / "s"))
    addresses = first.ready()
    locations = [addresses["flight"], addresses["unix"]] * (CLIENTS // 2)
    again = threading.Event()
    stop = threading.Event()
    sealed: list[str] = []
    failures: list[BaseException] = []
    broken = threading.Semaphore(0)

    def work(number: int) -> None:
        try:
            with client(locations[number]) as connected:
                for step in range(10_000):
                    while True:
                        try:
                            store_one(connected, f"{number}-{step}")
                            break
                        except (
                            flight.FlightUnavailableError,
                            flight.FlightInternalError,
                            flight.FlightCancelledError,
                        ):
                            if stop.is_set():
                                return
                            broken.release()
                            again.wait(BUSY_S)
                    if stop.is_set() and step > 3:
                        return
        except BaseException as error:
            failures.append(error)

    def store_one(connected: Any, name: str) -> None:
        table = pa.table({"n": range(100)})
        options = flight.FlightCallOptions(timeout=BUSY_S)
        writer, results = connected.do_put(flight.FlightDescriptor.for_path(name), table.schema, options)
        with writer:
            writer.write_table(table)
            writer.done_writing()
            assert results.read() is not None
        sealed.append(name)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(locations))]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(sealed) >= 4 * CLIENTS or failures)
        first.process.kill()
        first.process.wait()
        before = len(sealed)
        for _ in threads:
            assert broken.acquire(timeout=BUSY_S)
        ports = ("--flight", addresses["flight"], "--http", addresses["http"])
        second = serve(*ports, "--unix", str(place / "s"))
        assert second.ready()["flight"] == addresses["flight"]
        again.set()
        wait_for(lambda: len(sealed) >= before + 4 * CLIENTS or failures)
    finally:
        again.set()
        stop.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert second.end() == 0
    with fs.connect(store_dir) as store:
        assert all(store.get(name).num_rows == 100 for name in sealed)
        store.recover()
        assert store.fsck() == []


@pytest.mark.req("GW-5")
def test_the_sockets_are_their_owners_from_their_first_moment(serve: Serve, place: Path) -> None:
    paths = [place / f"s{suffix}" for suffix in ("", ".http", ".map")]
    seen: set[tuple[Path, int]] = set()
    done = threading.Event()

    def look() -> None:
        last = False
        while not last:
            last = done.is_set()
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    seen.add((path, stat.S_IMODE(path.lstat().st_mode)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        served = serve("--unix", str(paths[0]), umask=0)
        served.ready()
    finally:
        done.set()
        looking.join()
    assert seen == {(path, 0o600) for path in paths}


def test_a_dead_gateways_socket_is_replaced_and_a_living_ones_refused(serve: Serve, place: Path) -> None:
    path = place / "s"
    first = serve("--unix", str(path))
    first.ready()
    second = serve("--unix", str(path))
    assert second.ended() == 1
    assert f"{path}: a process listens at this socket already" in second.text()
    put(first.addresses["unix"], "still", 5)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert path.is_socket()
    third = serve("--unix", str(path))
    assert count(third.ready()["unix"], "still") == 5
    assert third.end() == 0
    assert not path.exists()


def test_what_is_no_socket_is_left_alone(serve: Serve, place: Path, store_dir: Path) -> None:
    path = place / "s"
    path.write_text("precious")
    served = serve("--unix", str(path))
    assert served.ended() == 1
    assert "is no socket" in served.text()
    assert path.read_text() == "precious"
    assert not store_dir.exists()


def test_a_folder_where_others_may_write_is_refused(serve: Serve, place: Path) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    served = serve("--unix", str(shared / "s"))
    assert served.ended() == 1
    assert "others may replace" in served.text()
    assert os.listdir(shared) == []


@pytest.mark.parametrize("kind", ["flight", "http", "health"])
def test_a_port_in_use_is_named_and_nothing_is_left(
    serve: Serve, place: Path, store_dir: Path, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        served = serve("--unix", str(place / "s"), f"--{kind}", address)
        assert served.ended() == 1
    error = json.loads(served.text())
    assert address in error["message"]
    assert "in use" in error["message"]
    assert not store_dir.exists()
    assert os.listdir(place) == []


@pytest.mark.parametrize("kind", ["flight", "http", "health"])
def test_a_port_that_is_taken_meanwhile(
    place: Path, store_dir: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "no-config"))
        monkeypatch.setattr(process, "check_free", lambda _host, wanted: wanted)
        flags = {"store": str(store_dir), "unix": str(place / "s"), kind: f"127.0.0.1:{port}"}
        settings, _ = resolve({**flags, "capacity": "64MiB"}, environ={})
        with pytest.raises(OSError, match=str(port)), process.Gateway(settings):
            pass
    assert os.listdir(place) == ["store"]
    with fs.connect(store_dir) as store:
        assert store.fsck() == []


@pytest.mark.req("GW-5")
@pytest.mark.parametrize("kind", ["flight", "http"])
def test_beyond_loopback_it_does_not_start(serve: Serve, store_dir: Path, kind: str) -> None:
    served = serve(f"--{kind}", "0.0.0.0:0")
    assert served.ended() == 1
    error = json.loads(served.text())
    assert error["error"] == "NotAllowed"
    for remedy in ("--tls-cert", "--tokens", "--insecure"):
        assert remedy in error["message"] + error["hint"]
    assert not store_dir.exists()


@pytest.mark.req("GW-5")
def test_insecure_listens_all_the_same(serve: Serve) -> None:
    served = serve("--flight", "0.0.0.0:0", "--http", "0.0.0.0:0", "--insecure", "--advertise", "127.0.0.1")
    addresses = served.ready()
    port = addresses["flight"].rpartition(":")[2]
    put(f"grpc://127.0.0.1:{port}", "x", 5)
    with client(f"grpc://127.0.0.1:{port}") as connected:
        told = act(connected, "hello", {})["http"]
        info = connected.get_flight_info(flight.FlightDescriptor.for_path("x"))
    assert told == addresses["http"].replace("0.0.0.0", "127.0.0.1")
    assert info.endpoints[0].locations[0].uri.decode() == f"grpc+tcp://127.0.0.1:{port}"
    assert get(told, "/objects/x")[0] == 200
    assert served.end() == 0
    assert served.text().count("insecure: open beyond this machine") == 2


@pytest.mark.req("GW-8")
def test_health_says_whether_the_store_answers(serve: Serve, store_dir: Path) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    served = serve(*LOOPBACK, "--health", "0", patient=True)
    target = served.ready()["health"].partition("://")[2]
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def status(service: str) -> str:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=BUSY_S)
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        until = time.monotonic() + 2.5  # the store is asked once a second
        while time.monotonic() < until:
            assert [status(name) for name in ("", "readiness", "liveness")] == ["SERVING"] * 3
            time.sleep(0.1)
        with pytest.raises(grpc.RpcError) as unknown:
            status("other")
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        with fs.connect(store_dir) as store:
            store.destroy()
        watching = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=BUSY_S)
        last = next(one for one in watching if one.status != health_pb2.HealthCheckResponse.SERVING)
        assert last.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert status("liveness") == "NOT_SERVING"
    assert served.end() == 0


def test_systemd_is_told(serve: Serve, place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(place / "notify"))
        told.settimeout(BUSY_S)
        served = serve("--flight", "127.0.0.1:0", NOTIFY_SOCKET=str(place / "notify"))
        assert told.recv(100) == b"READY=1"
        assert served.end() == 0
        assert told.recv(100) == b"STOPPING=1"


def test_quiet_says_nothing(serve: Serve) -> None:
    served = serve("--flight", "127.0.0.1:0", "--quiet", patient=True)
    served.ready()
    assert served.end() == 0
    assert served.text() == ""
