"""Keepers: the actors that hold Ray's memory for as long as objects of a store are borrowed from it.

Two for each node and store. A keeper holds *buffers of the deserialised value*: with no more than an
ObjectRef held, Ray spills the object and uses its memory for others. Its process is a client of the store,
and stands in each loan as one that keeps it; when all of them are dead the store says ObjectLost.

What is held, and until when:

- `hold` comes first, before there is a loan: the buffers are held for the one who asks, by his process id and
  its start, until he says `settled` or is dead. So nothing is let go of between asking and borrowing, and
  nobody who dies in between leaves something behind.
- From then on until no loan of the store that names this keeper covers the place.

Both are looked at together, under a lock, after each event of a deletion and once a second. What was deleted
is reclaimed when its last reader has gone, by anybody's next write; a keeper sees to it that there is one. A
keeper that holds nothing for a while ends, and so frees its name; one that was asked meanwhile answers with
its death, and the asker makes another.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, NamedTuple

import flightstore
from flightstore.connectors.ray.closing import release_first
from flightstore.connectors.ray.memory import (
    Place,
    buffers_of,
    descriptor_of,
    place_of,
    start_of,
)
from flightstore.errors import EventsMissed, FlightStoreError, StoreClosed

__all__ = ["Held", "Keeper", "Leaving", "Ticket"]

LOOK_S = 1.0
"""How often a keeper looks at the loans without being told to."""
RECOVER_S = 5.0
"""How often it reclaims, while it holds something."""
IDLE_S = 30.0
"""How long it stays when it holds nothing."""
LEAVING_S = 10.0
"""How long it waits to be ended."""


class Ticket(NamedTuple):
    """For whom something is held before there is a loan."""

    number: bytes
    pid: int
    started: int

    @classmethod
    def new(cls) -> Ticket:
        """One of this process's, that nobody else has."""
        return cls(os.urandom(16), os.getpid(), start_of(os.getpid()) or 0)

    @property
    def is_alive(self) -> bool:
        """Whether the process still is."""
        return start_of(self.pid) == self.started


class Leaving(Exception):
    """This keeper held nothing for a while and is about to end."""


class Held(NamedTuple):
    """What a keeper answers."""

    client_id: int
    place: Place
    path: str


class _Holding:
    """The buffers of one place, and for whom."""

    def __init__(self, path: str, place: Place) -> None:
        self.path = path
        self.place = place
        self.buffers: list[Any] = []
        self.tickets: set[Ticket] = set()

    def is_within(self, loan: Any) -> bool:
        """Whether a loan covers some of it."""
        start = self.place.offset
        return bool(
            loan.path == self.path
            and loan.offset < start + self.place.length
            and start < loan.offset + loan.length
        )


class Keeper:
    """The class of the actors. Its methods run one after the other; a thread looks at the loans."""

    def __init__(self, store: str, idle_s: float = IDLE_S) -> None:
        self._path = store
        self._idle_s = idle_s
        self._first_released: int | None = None
        self._store = self._connected()
        self._lock = threading.Lock()
        self._holdings: list[_Holding] = []
        self._leaving = False
        self._idle_since = time.monotonic()
        threading.Thread(target=self._watch, name="flightstore-keeper", daemon=True).start()

    def hold(self, refs: list[Any], ticket: Ticket) -> Held:
        """Hold the value of ``refs[0]`` where it lies on this node.

        Raises:
            NotMappable: it does not lie where others could map it.
            Leaving: ask another.
        """
        import ray

        buffers = buffers_of(ray.get(refs[0]))
        place = place_of(buffers)
        path = descriptor_of(place)
        with self._lock:
            if self._leaving:
                raise Leaving
            self._connect_again()
            holding = next((one for one in self._holdings if one.place.is_at(place)), None)
            if holding is None:
                holding = _Holding(path, place)
                self._holdings.append(holding)
            holding.buffers = buffers  # after it is in the list: an interrupt leaves nothing unaccounted
            holding.tickets.add(ticket)
            return Held(self._store.client_id, place, path)

    def settled(self, number: bytes) -> None:
        """Whoever asked is done: there is a loan by now, or there will be none."""
        with self._lock:
            for holding in self._holdings:
                holding.tickets = {one for one in holding.tickets if one.number != number}

    def status(self) -> dict[str, Any]:
        """Its store and process, and how many places and bytes it holds."""
        with self._lock:
            return {
                "store": self._path,
                "pid": os.getpid(),
                "places": len(self._holdings),
                "nbytes": sum(one.place.length for one in self._holdings),
            }

    def _connect_again(self) -> None:
        """Where the store was destroyed and made anew, to the new one."""
        try:
            self._store.stats()
        except StoreClosed:
            self._holdings.clear()
            self._store.close()
            self._store = self._connected()

    def _connected(self) -> flightstore.Store:
        """The store, with this process as a client whose lock goes before Ray hears of its death."""
        if self._first_released is not None:
            os.close(self._first_released)
            self._first_released = None
        store = flightstore.connect(self._path, create=False)
        self._first_released = release_first(f"{store.path}/clients/{store.client_id:016x}")
        return store

    # --- the thread ---

    def _watch(self) -> None:
        subscription: Any = None
        recovered = 0.0
        while True:
            try:
                if subscription is None:
                    subscription = self._store.subscribe(kinds=["deleted"])
                deleted = subscription.poll(LOOK_S) is not None
                while subscription.poll(0) is not None:
                    pass
            except EventsMissed:
                deleted = True
            except (FlightStoreError, OSError):  # destroyed, mostly; what is held goes with the next look
                subscription, deleted = None, False
                time.sleep(LOOK_S)
            now = time.monotonic()
            due = deleted or now - recovered >= RECOVER_S
            if self._look(reclaim=due):
                self._idle_since = now
            elif now - self._idle_since >= self._idle_s:
                self._leave()
            if due:
                recovered = now

    def _look(self, *, reclaim: bool) -> int:
        """Let go of what nobody needs; how many places are still held."""
        with self._lock:
            if not self._holdings:
                return 0
            for holding in self._holdings:
                # Before the loans are read: who is dead by now made his loan before that, if at all.
                holding.tickets = {one for one in holding.tickets if one.is_alive}
            try:
                if reclaim:
                    self._store.recover()
                mine = self._store.client_id
                loans = [loan for loan in self._store.loans() if mine in loan.keepers]
            except StoreClosed:
                loans = []
            except (FlightStoreError, OSError):
                return len(self._holdings)  # busy, or short of something: look again
            kept = []
            for holding in self._holdings:
                if holding.tickets or any(holding.is_within(loan) for loan in loans):
                    kept.append(holding)
            self._holdings = kept
            return len(kept)

    def _leave(self) -> None:
        """End, if nothing was asked for meanwhile. From here on whoever asks is sent away."""
        import ray

        with self._lock:
            self._leaving = not self._holdings
        if self._leaving:
            try:
                # Not exit_actor: it is for methods, and a method that an actor calls itself holds its end up.
                ray.kill(ray.get_runtime_context().current_actor)
                time.sleep(LEAVING_S)
            finally:
                os._exit(0)  # should Ray not have done it
