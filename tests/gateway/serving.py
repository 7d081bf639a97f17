"""`flightstore serve` as tests run it: a real process, known by the line that it prints when it is ready."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import flight

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable, "-W", "error")
COMMAND = ("-m", "flightstore.cli", "serve")
PATIENT = """
from flightstore.gateway import health, process

process.Gateway.stop.__defaults__ = (120.0,)
process.BREAKING_S = process.CLOSING_S = health.READY_S = 60.0

from flightstore.cli.main import main

main()
"""
"""The same command, with times that do not run out on a busy machine."""
BUSY_S = 60
"""For what takes no time of its own, on a machine where any process may stand still for seconds."""
ENDED_S = 45
"""For an end that takes five seconds at most of itself (see `process`). One that waited for clients would
take the idle timeout, which is a minute.
"""


class Served:
    """One gateway process; `patient`: with two minutes for the requests that run when it ends, and so on."""

    def __init__(
        self, store: Path, *arguments: str, umask: int = -1, patient: bool = False, **environment: str
    ) -> None:
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLIGHTSTORE_")},
            "FLIGHTSTORE_CAPACITY": "64MiB",
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(store.parent / "no-config"),
            **environment,
        }
        command = ("-c", PATIENT, "serve") if patient else COMMAND
        self.process = subprocess.Popen(
            [*PYTHON, *command, str(store), "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            umask=umask,
        )
        self.log: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._grown:
                self.log.append(line.decode())
                self._grown.notify_all()

    def ready(self) -> dict[str, Any]:
        """What it says once it listens."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.text()
        self.addresses: dict[str, Any] = json.loads(line)
        return self.addresses

    def wait_for_log(self, text: str) -> None:
        """Wait until it has logged this."""
        with self._grown:
            found = self._grown.wait_for(lambda: any(text in line for line in self.log), BUSY_S)
        assert found, "".join(self.log)

    def text(self) -> str:
        """All that it logged; waits for its end."""
        self._reader.join(BUSY_S)
        return "".join(self.log)

    def ended(self, within_s: float = BUSY_S) -> int:
        """Its exit code."""
        return self.process.wait(within_s)

    def end(self, number: int = signal.SIGTERM, within_s: float = ENDED_S) -> int:
        """Send a signal; the exit code, in time."""
        self.process.send_signal(number)
        return self.ended(within_s)

    def close(self) -> None:
        """Leave no process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


@contextlib.contextmanager
def client(location: str, **options: Any) -> Iterator[Any]:
    """A stock Flight client."""
    with flight.connect(location, **options) as connected:
        yield connected


def bearer(token: str, session: str | None = None) -> Any:
    """Options of Flight calls with this token."""
    headers = [(b"authorization", f"Bearer {token}".encode())]
    if session is not None:
        headers.append((b"x-flightstore-session", session.encode()))
    return flight.FlightCallOptions(headers=headers, timeout=BUSY_S)


def act(connected: Any, action: str, request: dict[str, Any], options: Any = None) -> Any:
    """The reply to an action."""
    made = flight.Action(action, json.dumps(request).encode())
    options = options or flight.FlightCallOptions(timeout=BUSY_S)
    (result,) = connected.do_action(made, options)
    return json.loads(result.body.to_pybytes())


def get(url: str, path: str, *, context: ssl.SSLContext | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of GET."""
    return request("GET", url, path, context=context, **headers)


def request(
    method: str,
    url: str,
    path: str,
    body: bytes | None = None,
    *,
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> tuple[int, bytes]:
    """Status and body of a request, by TCP, TLS or a unix socket."""
    scheme, _, where = url.partition("://")
    connection: http.client.HTTPConnection
    if scheme == "https":
        connection = http.client.HTTPSConnection(where, context=context, timeout=BUSY_S)
    else:
        connection = http.client.HTTPConnection(where if scheme == "http" else "localhost", timeout=BUSY_S)
    with contextlib.closing(connection):
        if scheme == "http+unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(where)
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
