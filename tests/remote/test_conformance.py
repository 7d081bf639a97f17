"""A store behind a gateway passes the suite that every store must pass, by each way to it.

By a network it declares no memory of its own: what is got is a copy, so references are not counted
(REFERENCES, ZERO_COPY), and what is built is not in the store before the seal (IN_PLACE: see test_building).
What belongs to the client's process belongs to the gateway's (BATCHES and SESSIONS with PROCESSES).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import flightstore as fs
from flightstore.abc import AbstractStore
from flightstore.testing.children import Child, start, start_spawned
from flightstore.testing.stores import Capability, StoreSuite
from flightstore.testing.stores.backend import Backend
from flightstore.testing.stores.building import Building
from flightstore.testing.stores.events import Events
from flightstore.testing.stores.processes import Processes
from flightstore.testing.stores.putting import Putting
from flightstore.testing.stores.waiting import Waiting

from .host import Host, connected

NETWORK = Capability.of_the_contract() & ~(
    Capability.REFERENCES | Capability.ZERO_COPY | Capability.IN_PLACE | Capability.PROCESSES
)


class Remote(Backend):
    """Stores behind gateways, all in one other process."""

    host: ClassVar[Host]
    ways: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {"map": False}

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def _host(request: pytest.FixtureRequest, host: Host) -> None:
        request.cls.host = host

    def make_store(self, capacity_bytes: int) -> AbstractStore:
        self.url = self.host.make(capacity_bytes, self.ways)
        return fs.connect(self.url, **self.options)

    def make_spilling_store(self, capacity_bytes: int) -> AbstractStore:
        self.url = self.host.make(capacity_bytes, self.ways, spill=True)
        return fs.connect(self.url, **self.options)

    def another_client(self, store: AbstractStore) -> AbstractStore:
        return fs.connect(self.url, **self.options)

    def start_in_client(self, store: AbstractStore, function: Callable[..., Any], *args: Any) -> Child[Any]:
        begin = start_spawned if self.ways == "flight" else start
        return begin(connected, self.url, self.options, function, *args)

    def remove_store(self, store: AbstractStore) -> None:
        store.close()
        self.host.end(self.url)


@pytest.mark.req("PLG-1", "API-3", "API-5", "API-8", "API-11", "API-13")
class TestHttp(Remote, StoreSuite):
    capabilities = NETWORK
    ways = "http"


class TestUnix(Remote, Putting, Waiting, Events):
    capabilities = NETWORK
    ways = "unix"


class TestFlight(Remote, StoreSuite):
    capabilities = NETWORK
    ways = "flight"


class RemoteProcesses(Remote, Processes):
    """What several client processes do that share nothing but the store."""

    capabilities = NETWORK | Capability.PROCESSES


class TestProcessesByHttp(RemoteProcesses):
    ways = "http"


@pytest.mark.slow
class TestProcessesByFlight(RemoteProcesses):
    ways = "flight"


class TestBuilding(Remote, Building):
    """Building in private memory does all that building in place does, but what `test_building` names."""

    capabilities = NETWORK | Capability.IN_PLACE
    ways = "http"
    test_a_taken_id_is_refused = None  # type: ignore[assignment]


@pytest.mark.req("GW-4")
class TestMapped(Remote, StoreSuite):
    capabilities = Capability.of_the_contract()
    ways = "http"
    options: ClassVar[dict[str, Any]] = {}
