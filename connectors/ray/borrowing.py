"""From a Ray object to a stored one: borrowed where it lies, or copied once.

A value is borrowed in four steps, each of which leaves nothing behind if it is the last: get it, which brings
it to this node; find where it lies (memory.py); have two keepers hold it (keeping.py); have the store refer
to it there. Whatever stands in the way is the reason why it is copied instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flightstore
from flightstore import Object, ObjectID, Store
from flightstore.connectors.ray.keeping import keep
from flightstore.connectors.ray.memory import NotMappable, buffers_of, descriptor_of, place_of

__all__ = ["SMALL_BYTES", "connected", "take"]

SMALL_BYTES = 1 << 16
"""Below this a copy costs less than two actors that keep the memory; so small values are borrowed only where
no copy is allowed."""


@contextmanager
def connected(store: Store | None) -> Iterator[Store]:
    """The store that was given, or the user's default one for as long as the block lasts."""
    if store is not None:
        yield store
        return
    with flightstore.connect() as default:
        yield default


def take(ref: Any, store: Store, name: str | None, copy: bool | None, timeout: float | None) -> Object:
    """The value of a reference as an object of the store; see :func:`flightstore.connectors.ray.from_ray`."""
    import ray

    value = ray.get(ref, timeout=timeout)
    reason = "a copy was asked for"
    if not copy:
        try:
            return _borrow(ref, value, store, name, 1 if copy is False else SMALL_BYTES)
        except (NotMappable, flightstore.NotBorrowable) as error:
            reason = str(error)
            if copy is False:
                raise flightstore.NotBorrowable(
                    f"a {type(value).__name__} of Ray's cannot be borrowed: {reason}",
                    hint="copy=None copies it once where it cannot be borrowed",
                ) from error
    metadata = {"ray": {"borrowed": False, "reason": reason}}
    return _got(store, store.put(value, name, metadata=metadata))


def _borrow(ref: Any, value: Any, store: Store, name: str | None, at_least: int) -> Object:
    """An object that refers to Ray's memory.

    Raises:
        NotMappable, NotBorrowable: it cannot be; says why.
    """
    if not store.mapped:
        raise NotMappable("the store is reached through a gateway")
    place = place_of(buffers_of(value))
    if place.length < at_least:
        raise NotMappable(f"it is small: {place.length:,} bytes cost less to copy than to keep")
    path = descriptor_of(place)
    keeping = keep(ref, store.path, place, path)
    try:
        loan = flightstore.Loan(
            path=path,
            offset=place.offset,
            length=place.length,
            address=place.address,
            keepers=keeping.client_ids,
            checked=False,
        )
        metadata = {"ray": {"borrowed": True}}
        return _got(store, store.put_borrowed(value, loan, name, metadata=metadata))
    finally:
        keeping.settle()


def _got(store: Store, object_id: ObjectID) -> Object:
    """A reference on what was just put."""
    return store.get(object_id)
