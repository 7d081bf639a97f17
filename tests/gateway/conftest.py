"""A store, and a Flight server over it on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import flight

import flightstore as fs
from flightstore.gateway.access import Caller
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.service import Service

CAPACITY = "64MiB"


class Everybody:
    """Takes everybody for this machine's own user."""

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        return Caller("local", "admin")


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    """A store of CAPACITY."""
    with fs.connect(store_dir, capacity=CAPACITY) as connected:
        yield connected
        connected.destroy()


@pytest.fixture
def service(store: fs.Store) -> Iterator[Service]:
    """The service of a gateway over the store."""
    made = Service(store)
    yield made
    made.close()


@pytest.fixture
def server(service: Service) -> Iterator[FlightServer]:
    """A Flight server for everybody."""
    made = FlightServer(service, Everybody(), "grpc://127.0.0.1:0")
    yield made
    assert made.stop(10)


@pytest.fixture
def client(server: FlightServer) -> Iterator[Any]:
    """A stock client of it."""
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as connected:
        yield connected
