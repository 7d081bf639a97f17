"""Asking the keepers of this node (keepers.py) to hold a value while a loan is made of it."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from flightstore.connectors.ray.keepers import Keeper, Leaving, Ticket
from flightstore.connectors.ray.memory import NotMappable, Place
from flightstore.errors import FlightStoreError

__all__ = ["NAMESPACE", "Keeping", "keep"]

NAMESPACE = "flightstore"
"""The actors' namespace in Ray."""
KEEPERS = 2
"""For each node and store: one may die, and nothing changes."""
PATIENCE_S = 30.0
"""How long to ask for a keeper while its predecessor is ending, and its name is not free."""


class Keeping:
    """The keepers of this node, asked to hold a value until :meth:`settle` says that its loan is made."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors
        self._ticket = Ticket.new()
        self.client_ids: tuple[int, ...] = ()
        """The keepers, as clients of the store."""

    def hold(self, ref: Any, place: Place, path: str) -> None:
        """Have each of them hold the value; raises as Ray does."""
        import ray

        held = ray.get([actor.hold.remote([ref], self._ticket) for actor in self._actors])
        if not all(answer.place.is_at(place) for answer in held):
            raise NotMappable("Ray moved the value while it was being borrowed")
        if any(answer.path != path for answer in held):
            raise NotMappable("this process sees other processes than the keepers do")
        self.client_ids = tuple(answer.client_id for answer in held)

    def settle(self) -> None:
        """There is a loan by now, or there will be none. Idempotent; waits for nobody."""
        for actor in self._actors:
            actor.settled.remote(self._ticket.number)


def keep(ref: Any, store: str, place: Place, path: str) -> Keeping:
    """Have the keepers of this node hold a value that lies here at `place`, in the file that opens at `path`.

    Raises:
        NotMappable: they cannot, or not at that place; says why.
        FlightStoreError: a keeper cannot use the store.
    """
    import ray

    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        keeping = Keeping(_keepers(store))
        try:
            keeping.hold(ref, place, path)
            return keeping
        except BaseException as error:
            keeping.settle()
            if not isinstance(error, ray.exceptions.RayActorError | Leaving):
                raise _cause(error) from None
        time.sleep(0.1)  # one has just ended, or is about to: until its name is free
    raise NotMappable("the keepers die as soon as they are asked")


def _cause(error: BaseException) -> BaseException:
    """What stood in the way, if a keeper said it: Ray wraps what an actor raises."""
    import ray

    if not isinstance(error, ray.exceptions.RayTaskError):
        return error
    cause: BaseException = error.cause
    if isinstance(cause, NotMappable | FlightStoreError):
        return cause
    return NotMappable(f"a keeper failed: {cause}")


def _keepers(store: str) -> list[Any]:
    """The keepers of a store on this node, made if there are none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    digest = hashlib.blake2b(store.encode(), digest_size=8).hexdigest()
    return [
        ray.remote(Keeper)
        .options(
            name=f"keeper-{node}-{digest}-{number}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(store)
        for number in range(KEEPERS)
    ]
