"""Which spill storage a URL means. May call nothing but the contract.

A registry of factories by the URL's scheme, as for connectors: flightstore's own are loaded with the first
URL of theirs; others are announced as entry points of the group ``flightstore.spill_storages``, named like
the scheme, or registered in each process. A scheme ``a+b`` is that of whoever has the whole, else of ``a``,
which does something with what ``b`` means. What nobody has goes to fsspec, and then to Arrow.

Storages are kept for each process: one made before a fork is not used after it, since what it holds
(connections, threads) is the parent's.
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import quote

from flightstore.abc.storage import SpillStorage, SpillStorageFactory, check_spill_name, masked_url
from flightstore.errors import InvalidArgument

__all__ = ["location_of", "register_spill_storage", "split_location", "storage_for"]

ENTRY_POINTS = "flightstore.spill_storages"

_ANY = "flightstore.adapters.spill:open_storage"
_factories: dict[str, SpillStorageFactory | str] = {
    "file": "flightstore.lifecycle.storage_local:LocalStorage",
    "fsspec": "flightstore.adapters.spill.fsspec:FsspecStorage",
    "arrow": "flightstore.adapters.spill.arrow:ArrowStorage",
    "faulty": "flightstore.testing.faultystorage:FaultyStorage",
}
"""By scheme: a factory, or where it is."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*(?:\+[A-Za-z0-9.-]+)*)(?:::|://)")
_made: dict[str, SpillStorage] = {}
"""This process's, by URL. Only ever grows, by the few places that a process spills to."""
_inherited: list[SpillStorage] = []
"""The parent's, kept so that nothing of theirs is closed here."""


def storage_for(url: str | os.PathLike[str]) -> SpillStorage:
    """The storage that a URL means; the same object for every call in one process.

    Raises:
        InvalidArgument: it is no URL, or nobody knows its scheme.
        MissingExtra: what its scheme needs is not installed.
    """
    url = os.fspath(url)
    if not isinstance(url, str) or not url:
        raise InvalidArgument(f"{url!r} is not the URL of a spill storage", hint="give a path, or a URL")
    if not scheme_of(url):
        url = "file://" + quote(os.path.abspath(url))
    found = _made.get(url)
    if found is None:
        made = _factory_for(scheme_of(url))(url)
        found = _made[url] = _made.setdefault(made.url, made)
    return found


def _forget_the_parents() -> None:
    _inherited.extend(_made.values())
    _made.clear()


os.register_at_fork(after_in_child=_forget_the_parents)


def register_spill_storage(scheme: str, factory: SpillStorageFactory) -> None:
    """Let URLs of `scheme` be spill storages that `factory` makes, in this process; replaces an earlier one.

    Every process that reads what was spilled there needs it, too: announce it as an entry point of the group
    ``flightstore.spill_storages``, named like the scheme, and nobody need call this.

    Args:
        scheme: What stands before ``://``; for ``s`` also all ``s+anything`` that nobody else has.
        factory: Called with the whole URL.

    Raises:
        InvalidArgument: `scheme` is none.
    """
    if not scheme or scheme_of(f"{scheme}://") != scheme:
        raise InvalidArgument(f"{scheme!r} is not the scheme of a URL", hint="letters, digits, '+', '.', '-'")
    _factories[scheme] = factory
    _made.clear()


def scheme_of(url: str) -> str:
    """What stands before ``://`` (or ``::``, in a chain of fsspec's); empty for a plain path."""
    match = _SCHEME.match(url)
    return match[1] if match else ""


def location_of(storage: SpillStorage, name: str) -> str:
    """One text for a file of a storage: what the catalog keeps. See :func:`split_location`."""
    return f"{storage.url}#{check_spill_name(name)}"


def split_location(location: str) -> tuple[SpillStorage, str]:
    """The storage and the name that :func:`location_of` made a text of.

    Raises:
        InvalidArgument, MissingExtra: as :func:`storage_for`.
    """
    url, mark, name = location.rpartition("#")
    if not mark:
        raise InvalidArgument(f"{masked_url(location)!r} is not the place of a spilled file")
    return storage_for(url), check_spill_name(name)


def _factory_for(scheme: str) -> SpillStorageFactory:
    for known in (scheme, scheme.partition("+")[0]):
        found = _factories.get(known)
        if found is None and known in _announced():
            found = _announced()[known].load()
            _factories[known] = found
        if found is not None:
            return _load(found) if isinstance(found, str) else found
    return _load(_ANY)


def _load(place: str) -> SpillStorageFactory:
    module, _, name = place.partition(":")
    factory: SpillStorageFactory = getattr(import_module(module), name)
    return factory


@cache
def _announced() -> dict[str, EntryPoint]:
    """Storages of other distributions, by scheme; read once per process."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
