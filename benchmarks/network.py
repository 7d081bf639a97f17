"""The gateway on loopback, beside a bare Flight server, raw sockets and iperf3.

    python benchmarks/network.py [--json FILE] [--quick]

The bare server is pyarrow's own, holding the table in memory in batches of 2 MiB, with nothing around it:
what its client gets of it is what Flight can do here. The raw socket is `sendfile`, or `send`, from a memory
file on one side and `recv_into` on the other: what the kernel can do. Ours are a `flightstore serve` in a
process of its own, and the clients that people use: pyarrow's Flight client, any HTTP client, our own.
"""

from __future__ import annotations

import http.client
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pyarrow as pa
import pyarrow.flight as flight
from command import console_for, options, write_json
from harness import (
    GIB,
    MIB,
    OURS,
    Row,
    Target,
    gib_per_s,
    interleave,
    make_row,
    median_us,
    say,
    scratch_directory,
    seconds,
)
from processes import Helper
from report import describe_machine, load_average, print_table, to_json
from values import table

import flightstore

BARE, RAW, DIRECT, FLIGHT = "bare Flight", "raw socket", "direct", "Flight"
SENDFILE, SEND = "sendfile", "send"
BATCH_BYTES = 2 * MIB
STREAMS = 4


class Bare(flight.FlightServerBase):  # type: ignore[misc]
    """A Flight server that holds tables in memory."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.tables: dict[bytes, pa.Table] = {}

    def address(self) -> str:
        """Where it listens."""
        return f"grpc://127.0.0.1:{self.port}"

    def hold(self, name: str, size_bytes: int) -> None:
        """Make a table and hold it, and as many shares of it as there are streams."""
        whole = table(size_bytes)
        rows = BATCH_BYTES * whole.num_rows // max(size_bytes, 1) or 1
        made = pa.Table.from_batches(whole.to_batches(max_chunksize=rows))
        self.tables[name.encode()] = made
        share = -(-made.num_rows // STREAMS)
        for number in range(STREAMS):
            self.tables[f"{name}/{number}".encode()] = made.slice(number * share, share)

    def close(self) -> None:
        """Stop."""
        self.shutdown()

    def do_get(self, context: Any, ticket: Any) -> Any:
        """The table of that name."""
        return flight.RecordBatchStream(self.tables[ticket.ticket])

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Hold what comes."""
        self.tables[descriptor.path[0]] = reader.read_all()


class RawServer:
    """Sends a memory file with sendfile to whoever connects, and takes what is sent to it."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.file = os.memfd_create("raw")
        os.ftruncate(self.file, size_bytes)
        os.posix_fallocate(self.file, 0, size_bytes)
        self.mapped = memoryview(mmap.mmap(self.file, size_bytes))
        self.sink = memoryview(bytearray(size_bytes))
        self.listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def address(self) -> tuple[str, int]:
        """Where it listens."""
        address: tuple[str, int] = self.listening.getsockname()
        return address

    def close(self) -> None:
        """The process ends."""

    def _serve(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            with connection:
                wanted = connection.recv(16)
                nbytes = int(wanted[1:])
                if wanted[:1] == b"g":
                    at = 0
                    while at < nbytes:
                        at += os.sendfile(connection.fileno(), self.file, at, nbytes - at)
                elif wanted[:1] == b"s":
                    connection.sendall(self.mapped[:nbytes])
                else:
                    view = self.sink[:nbytes]
                    while view:
                        view = view[connection.recv_into(view) :]
                    connection.sendall(b".")


class Clients:
    """All contenders: one repetition each."""

    def __init__(self, urls: Mapping[str, Any], bare: Helper, raw: Helper, size: int, count: int) -> None:
        self.urls, self.size, self.count = urls, size, count
        self.flight = flight.connect(urls["flight"])
        self.bare = flight.connect(bare.call("address"))
        self.raw_address = tuple(raw.call("address"))
        self.store = flightstore.connect(urls["flight"], map=False)
        self.flight_store = flightstore.connect(urls["flight"], map=False, transport="flight")
        self.mapped = flightstore.connect(urls["flight"])
        self.table = table(size)
        rows = BATCH_BYTES * self.table.num_rows // size
        self.batches = pa.Table.from_batches(self.table.to_batches(max_chunksize=rows))
        self.buffer = memoryview(bytearray(size + MIB))

    # --- large ---

    def _rate(self, operation: Callable[[], object]) -> float:
        return gib_per_s(self.size, seconds(operation))

    def our_gets(self) -> Mapping[str, float]:
        """The clients of others, getting."""
        return {
            "flight get": self._rate(lambda: self._flight_get(self.flight, [b"big"])),
            "http get": self._rate(lambda: self._http_get("/objects/big")),
        }

    def bare_get(self) -> Mapping[str, float]:
        """pyarrow's client, getting from the bare server."""
        return {"get": self._rate(lambda: self._flight_get(self.bare, [b"big"]))}

    def raw_gets(self) -> Mapping[str, float]:
        """The kernel alone, one way."""
        return {
            "sendfile": self._rate(lambda: self._raw_get("g")),
            "send": self._rate(lambda: self._raw_get("s")),
        }

    def ours(self) -> Mapping[str, float]:
        """Our own client, and through the gateway the clients of others."""
        got = {
            "get": self._rate(lambda: self.store.get("big").value()),
            "put": self._rate(lambda: self.store.put(self.table, "put")),
            "flight put": self._rate(lambda: self._flight_put(self.flight)),
            "flight get 4": self._rate(lambda: self._flight_get(self.flight, self._shares())),
            "get 4": self._rate(self._get_shares),
        }
        self.store.delete("put")
        return got

    def bare_server(self) -> Mapping[str, float]:
        """pyarrow's client at the bare server."""
        shares = [f"big/{number}".encode() for number in range(STREAMS)]
        return {
            "get": self._rate(lambda: self._flight_get(self.bare, [b"big"])),
            "put": self._rate(lambda: self._flight_put(self.bare)),
            "get 4": self._rate(lambda: self._flight_get(self.bare, shares)),
        }

    def raw(self) -> Mapping[str, float]:
        """The kernel alone."""
        return {**self.raw_gets(), "put": self._rate(self._raw_put)}

    def _http_get(self, path: str) -> None:
        parts = urlsplit(self.urls["http"])
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        view = self.buffer
        while (got := response.readinto(view)) > 0:
            view = view[got:]
        connection.close()
        pa.ipc.open_stream(self.buffer).read_next_batch()

    def _shares(self) -> list[bytes]:
        return [
            json.dumps({"name": "big", "partition": number, "partitions": STREAMS}).encode()
            for number in range(STREAMS)
        ]

    def _flight_get(self, client: Any, tickets: list[bytes]) -> None:
        def get(ticket: bytes) -> pa.Table:
            return client.do_get(flight.Ticket(ticket)).read_all()

        if len(tickets) == 1:
            get(tickets[0])
            return
        with ThreadPoolExecutor(len(tickets)) as pool:
            list(pool.map(get, tickets))

    def _flight_put(self, client: Any) -> None:
        writer, reader = client.do_put(flight.FlightDescriptor.for_path("put"), self.batches.schema)
        writer.write_table(self.batches)
        writer.done_writing()
        reader.read()
        writer.close()

    def _get_shares(self) -> None:
        with ThreadPoolExecutor(STREAMS) as pool:
            list(pool.map(lambda number: self.store.get(f"big/{number}").value(), range(STREAMS)))

    def _raw_get(self, how: str) -> None:
        with socket.create_connection(self.raw_address) as connection:
            connection.sendall(f"{how}{self.size}".ljust(16).encode())
            view = self.buffer[: self.size]
            while view:
                view = view[connection.recv_into(view) :]

    def _raw_put(self) -> None:
        with socket.create_connection(self.raw_address) as connection:
            connection.sendall(f"p{self.size}".ljust(16).encode())
            connection.sendall(self.buffer[: self.size])
            connection.recv(1)

    # --- small ---

    def small(self) -> Mapping[str, float]:
        """One table of a kilobyte after the other."""
        times = range(self.count)
        return {
            "get": median_us(lambda _: self.store.get("small").value(), times),
            "put": median_us(lambda number: self.store.put(self.tiny, f"s{number % 8}"), times),
            "contains": median_us(lambda _: self.store.contains("small"), times),
            "flight get": median_us(lambda _: self._flight_get(self.flight, [b"small"]), times),
            "mapped get": median_us(lambda _: self.mapped.get("big"), times),
        }

    def small_flight(self) -> Mapping[str, float]:
        """Our own client without HTTP."""
        times = range(self.count)
        return {
            "get": median_us(lambda _: self.flight_store.get("small").value(), times),
            "put": median_us(lambda number: self.flight_store.put(self.tiny, f"s{number % 8}"), times),
            "contains": median_us(lambda _: self.flight_store.contains("small"), times),
        }

    def small_bare(self) -> Mapping[str, float]:
        """The same at the bare server."""
        return {"get": median_us(lambda _: self._flight_get(self.bare, [b"small"]), range(self.count))}

    def direct(self) -> Mapping[str, float]:
        """A client of the store itself."""
        with flightstore.connect(self.urls["store"]) as store:
            return {"mapped get": median_us(lambda _: store.get("big"), range(self.count))}

    tiny = table(1024)


@contextmanager
def gateway(store: Path) -> Iterator[Mapping[str, Any]]:
    """A gateway of its own, and where it listens."""
    command = [sys.executable, "-m", "flightstore.cli", "serve", str(store), "--json"]
    command += ["--flight", "grpc://127.0.0.1:0", "--http", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield {**json.loads(process.stdout.readline()), "store": str(store)}
    finally:
        process.terminate()
        process.wait(10)


def iperf_gib_per_s(streams: int, *, quick: bool) -> float | None:
    """What iperf3 makes of loopback; None without it."""
    if shutil.which("iperf3") is None:
        return None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "--forceflush", "-B", "127.0.0.1", "-p", port],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        while "listening" not in (line := server.stdout.readline()):
            if not line:
                return None
        command = ["iperf3", "-c", "127.0.0.1", "-p", port, "-J", "-P", str(streams)]
        command += ["-t", "1" if quick else "4"]
        report = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        return float(report["end"]["sum_received"]["bits_per_second"]) / 8 / GIB
    finally:
        server.terminate()
        server.wait()


def measure(scratch: Path, *, quick: bool) -> list[Row]:
    """All rows."""
    size, count = (16 * MIB, 20) if quick else (GIB, 500)
    with ExitStack() as stack:
        capacity = 5 * size + 64 * MIB
        store = stack.enter_context(flightstore.connect(scratch / "store", capacity=capacity))
        store.put(table(size), "big")
        for number in range(STREAMS):
            store.put(table(size // STREAMS), f"big/{number}")
        store.put(table(1024), "small")
        bare, raw = stack.enter_context(Helper(Bare)), stack.enter_context(Helper(RawServer, size))
        bare.call("hold", "big", size)
        bare.call("hold", "small", 1024)
        urls = stack.enter_context(gateway(scratch / "store"))
        clients = Clients(urls, bare, raw, size, count)
        rounds = 2 if quick else 5
        say("gets")
        # Beside each other and nothing else, and often: what one transfer takes varies by a factor of three.
        getting = {OURS: clients.our_gets, BARE: clients.bare_get, RAW: clients.raw_gets}
        gets = [interleave(getting, rounds if quick else 5 * rounds)]
        say("large")
        large = [interleave({OURS: clients.ours, BARE: clients.bare_server, RAW: clients.raw}, rounds)]
        say("small")
        contenders = {
            OURS: clients.small,
            FLIGHT: clients.small_flight,
            BARE: clients.small_bare,
            DIRECT: clients.direct,
        }
        small = [interleave(contenders, rounds)]
        say("iperf3")
        found = {streams: iperf_gib_per_s(streams, quick=quick) for streams in (1, STREAMS)}
    note = ", ".join(f"{rate:.2f} GiB/s with {streams}" for streams, rate in found.items() if rate)
    return _rows(gets, large, small, f"iperf3: {note}" if note else "")


def _rows(gets: Any, large: Any, small: Any, iperf: str) -> list[Row]:
    def rate(
        name: str, measure: str, beside: dict[str, tuple[str, str]], target: Target | None, note: str = ""
    ) -> Row:
        runs = gets if measure in gets[0][OURS] else large
        return make_row("large", name, "GiB/s", runs, measure, beside, target=target, note=note)

    def latency(name: str, measure: str, beside: dict[str, tuple[str, str]], target: Any = None) -> Row:
        return make_row("small", name, "us", small, measure, beside, target=target)

    def least(limit: float, against: str) -> Target:
        return Target(limit, at_most=False, against=against)

    get = {BARE: (BARE, "get"), SENDFILE: (RAW, "sendfile"), SEND: (RAW, "send")}
    put = {BARE: (BARE, "put"), SEND: (RAW, "put")}
    rows = [
        rate("DoGet, pyarrow's client", "flight get", get, least(0.95, BARE), iperf),
        rate("DoGet, 4 streams", "flight get 4", {BARE: (BARE, "get 4")}, None),
        rate("DoPut, pyarrow's client", "flight put", put, least(0.95, BARE)),
        rate("HTTP GET, any client", "http get", get, least(2, BARE)),
        rate("get, our client", "get", get, least(0.9, SENDFILE)),
        rate("get, our client, 4 objects at once", "get 4", get, least(2.5, BARE)),
        rate("put, our client", "put", put, least(2.5, BARE)),
        latency("get 1 KiB, our client", "get", {FLIGHT: (FLIGHT, "get"), BARE: (BARE, "get")}),
        latency("get 1 KiB, pyarrow's client", "flight get", {BARE: (BARE, "get")}),
        latency("put 1 KiB, our client", "put", {FLIGHT: (FLIGHT, "put")}),
        latency("contains", "contains", {FLIGHT: (FLIGHT, "contains")}),
    ]
    limit = Target(2, at_most=True, against=DIRECT)
    return [
        *rows,
        latency("get 1 GiB, mapped through grpc://", "mapped get", {DIRECT: (DIRECT, "mapped get")}, limit),
    ]


@click.command()
@options
def main(json_to: str | None, quick: bool, parent: Path) -> None:
    """Measure the gateway beside a bare Flight server and raw sockets."""
    console = console_for(json_to)
    machine: dict[str, Any] = describe_machine() | {"load_average_start": load_average()}
    with scratch_directory(parent) as scratch:
        rows = measure(scratch, quick=quick)
    machine["load_average_end"] = load_average()
    print_table(rows, machine, console)
    write_json(json_to, to_json(rows, machine, {"quick": quick}))


if __name__ == "__main__":
    main()
