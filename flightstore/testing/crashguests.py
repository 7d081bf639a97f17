"""Rows of the crash table for references that are held for guests (lifecycle.guests).

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest.
"""

from __future__ import annotations

from flightstore.lifecycle.guests import Guest
from flightstore.store import Store
from flightstore.testing.crashtable import Act, register_act

__all__: list[str] = []


def _serve_a_guest(store: Store) -> None:
    guest = Guest(store._conn)
    first = guest.hold(store.get("large"))
    guest.hold(store.get("small"))
    guest.drop(first)
    guest.end()


def _leave_a_guest(store: Store) -> None:
    guest = Guest(store._conn)
    guest.hold(store.get("large"))
    guest.leave()


register_act(Act("guest-served", _serve_a_guest))
register_act(Act("guest-left", _leave_a_guest))
