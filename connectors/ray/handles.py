"""Stored objects on their way through Ray: as handles, never as their bytes.

A stored object pickles as the path and nonce of its store and its id, so Ray ships some hundred bytes, and
where it arrives it is got again: mapped, if the store is there. What `register` adds is for the other
nodes. A handle that departs then names its node too, and one that arrives where its store is not is fetched
from the gateway of that node, whose address its actor tells (deploying.py). The receiving process needs no
registration: what Ray unpickles a handle with is a function of this module.

An object that was fetched through a gateway carries the gateway's URL by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import flightstore
from flightstore import Object, ObjectID
from flightstore.connectors.ray.deploying import addresses_of
from flightstore.errors import (
    GatewayUnreachable,
    NotAStore,
    StoreAccessDenied,
    StoreClosed,
    StoreVersionMismatch,
    WrongPidNamespace,
)

__all__ = ["Handle", "arrived", "departing", "is_local", "register_handles"]

_KINDS = ("table:Table", "tensor:Tensor", "blob:Blob", "pyobject:PyObject")
_NOT_HERE = (NotAStore, StoreClosed, StoreAccessDenied, StoreVersionMismatch, WrongPidNamespace)


class Handle(NamedTuple):
    """A stored object on its way."""

    get: Callable[..., Object]
    """What gets it where its store is at hand."""
    arguments: tuple[Any, ...]
    node: str
    """The Ray node that its store is on; empty if it came from a gateway."""
    session: int
    id: bytes


def register_handles() -> None:
    """Have Ray serialise stored objects, in this process, by `departing` and `arrived`."""
    import ray

    for where in _KINDS:
        module, _, name = where.partition(":")
        kind = getattr(import_module(f"flightstore.objects.{module}"), name)
        ray.util.register_serializer(kind, serializer=departing, deserializer=arrived)


def departing(obj: Object) -> Handle:
    """What travels instead of an object."""
    import ray

    get, arguments = obj.__reduce__()
    if not is_local(obj):
        return Handle(get, arguments, "", 0, bytes(obj.id))
    return Handle(get, arguments, ray.get_runtime_context().get_node_id(), arguments[2], bytes(obj.id))


def is_local(obj: Object) -> bool:
    """Whether an object is in a store of this machine, which its pickle names by its directory."""
    return "://" not in str(obj.__reduce__()[1][0])


def arrived(handle: Handle) -> Object:
    """The object of a handle: mapped where its store is, else fetched from the gateway of its node.

    Raises:
        ObjectNotFound: it was deleted meanwhile.
        GatewayUnreachable: its store is not here, and no gateway of its node serves it.
    """
    register_handles()  # what goes on from here names its node, too
    try:
        return handle.get(*handle.arguments)
    except _NOT_HERE as error:
        if not handle.node:
            raise
        return _fetched(handle, error)


def _fetched(handle: Handle, why: Exception) -> Object:
    path, object_id = handle.arguments[0], ObjectID(handle.id)
    found = addresses_of(handle.node)
    if found is None or found["store"] != path:
        what = f"that node's gateway serves {found['store']}" if found else "that node has no gateway"
        raise GatewayUnreachable(
            f"the object {object_id} is in the store {path} of node {handle.node}, and {what}",
            hint="call flightstore.connectors.ray.deploy() with the store before",
        ) from why
    try:
        return _got(found, handle.session, object_id)
    except GatewayUnreachable:
        again = addresses_of(handle.node, found["pid"])  # starts another gateway where one has died
        if again is None or again["pid"] == found["pid"]:
            raise
        return _got(again, handle.session, object_id)


def _got(addresses: Mapping[str, Any], session: int, object_id: ObjectID) -> Object:
    with flightstore.connect(addresses["http"], session=session or None) as store:
        return store.get(object_id)
