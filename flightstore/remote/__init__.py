"""Stores on other machines, through their gateways: the same interface as the one here.

- connecting: from a URL to the best handle there is, which is a local one where the memory is at hand
- address, transport, http, flight: the ways to a gateway; private: where payloads are received
- attached, store, session and one file for each part of the contract: the handle
- fetched: objects that came over the network
- asynchronous: any store, for asyncio
- mediated: mapping the memory where this process cannot be a client of the store

May call the store's rooms and wire, never the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightstore.remote.asynchronous import AsyncStore
    from flightstore.remote.batches import RemoteBatch
    from flightstore.remote.session import RemoteSession
    from flightstore.remote.store import RemoteStore

__all__ = ["AsyncStore", "RemoteBatch", "RemoteSession", "RemoteStore"]

_ELSEWHERE = {
    "AsyncStore": "asynchronous",
    "RemoteBatch": "batches",
    "RemoteSession": "session",
    "RemoteStore": "store",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flightstore.remote' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"flightstore.remote.{_ELSEWHERE[name]}"), name)
    return value
