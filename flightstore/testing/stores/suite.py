"""All tests of a store in one class. What each file tests, its class says."""

from __future__ import annotations

from flightstore.testing.stores.batches import Batches
from flightstore.testing.stores.building import Building
from flightstore.testing.stores.composing import Composing
from flightstore.testing.stores.events import Events
from flightstore.testing.stores.keeping import Keeping
from flightstore.testing.stores.looking import Looking
from flightstore.testing.stores.naming import Naming
from flightstore.testing.stores.processes import Processes
from flightstore.testing.stores.putting import Putting
from flightstore.testing.stores.sessions import Sessions
from flightstore.testing.stores.waiting import Waiting

__all__ = ["StoreSuite"]


class StoreSuite(
    Putting,
    Naming,
    Looking,
    Building,
    Composing,
    Waiting,
    Processes,
    Sessions,
    Batches,
    Events,
    Keeping,
):
    """Everything that the contract promises, for what a backend declares; see `Backend`."""
