"""doctor's look at spilling: is it on, does the storage answer, is there room, and do files lie about?

`examine_spilling` reads, and writes nothing; the `check_*` functions judge and are pure. Calls spilling and
reports.
"""

from __future__ import annotations

from flightstore.abc.storage import masked_url
from flightstore.catalog import keys
from flightstore.errors import FlightStoreError
from flightstore.lifecycle import reports, spilling
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.doctor import NOTE, OK, WARNING, Finding, human_size
from flightstore.lifecycle.storages import storage_for
from flightstore.types import StoreStats

__all__ = ["check_doomed", "check_spilling", "check_storage", "examine_spilling"]

_CROWDED_SHARE = 0.8
_LEAST_FREE_SHARE = 1 / 16
"""Of the store's capacity: a storage with less room is nearly full."""


def examine_spilling(conn: Connection) -> list[Finding]:
    """Check the spill storage that is configured, and files that are yet to be removed."""
    url = spilling.spill_url(conn)
    found = [check_spilling(reports.usage(conn), url)]
    if url is not None:
        free_bytes, problem = _asked(url)
        found.append(check_storage(masked_url(url), free_bytes, problem, conn.capacity_bytes))
    doomed = [location.decode() for _, location in conn.catalog.items(keys.DOOMED)]
    problems = {masked_url(one): _asked(one)[1] for one in set(doomed)}
    return [*found, check_doomed(len(doomed), {one: why for one, why in problems.items() if why})]


def _asked(url: str) -> tuple[int | None, str]:
    """What is free in a storage, as far as it knows, and why it does not answer; empty if it does."""
    try:
        storage = storage_for(url)
        storage.names("doctor")
        return storage.free_bytes(), ""
    except (OSError, FlightStoreError) as error:
        return None, str(error)


def check_spilling(stats: StoreStats, url: str | None) -> Finding:
    """Would a put find no room soon, where spilling could make some?"""
    if url is not None:
        return Finding("spilling", OK, f"to {masked_url(url)}, {human_size(stats.spilled_bytes)} are there")
    kept = stats.used_bytes - stats.evictable_bytes
    if kept <= _CROWDED_SHARE * stats.capacity_bytes:
        return Finding("spilling", OK, "off")
    message = (
        f"spilling is off: {kept / stats.capacity_bytes:.0%} of {human_size(stats.capacity_bytes)} hold "
        "objects that may not be evicted; puts will fail with StoreFull"
    )
    return Finding("spilling", NOTE, message, "flightstore spill --to DIR (a directory on a disk)")


def check_storage(url: str, free_bytes: int | None, problem: str, capacity_bytes: int) -> Finding:
    """Does the storage answer, and is there room?"""
    name = "spill storage"
    if problem:
        fix = "put that right, or flightstore spill --to another place; what is spilled there is not lost"
        return Finding(name, WARNING, f"{url} does not answer: {problem}", fix)
    if free_bytes is None:
        return Finding(name, OK, f"{url} answers")
    message = f"{url} has {human_size(free_bytes)} free"
    if free_bytes >= capacity_bytes * _LEAST_FREE_SHARE:
        return Finding(name, OK, message)
    return Finding(name, WARNING, message, "make room there, delete objects, or flightstore spill --to DIR")


def check_doomed(count: int, unanswered: dict[str, str]) -> Finding:
    """Can the files of deleted objects be removed?"""
    name = "spill files"
    if not count:
        return Finding(name, OK, "none is left over")
    if not unanswered:
        return Finding(name, OK, f"{count:,} of deleted objects: flightstore recover removes them")
    where = "; ".join(f"{url}: {problem}" for url, problem in unanswered.items())
    message = f"{count:,} of deleted objects, some of which cannot be removed: {where}"
    return Finding(name, WARNING, message, "make the storage answer, then flightstore recover")
