"""What storages behind other libraries share: their errors made ours, and large files fetched in parts.

Messages never hold what is secret in a URL: the libraries' own messages may repeat it, so it is taken out of
them, and where there is something to take out, what they raised is not chained either.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, unquote

from flightstore.abc.storage import SpillStorage, masked_url
from flightstore.errors import FlightStoreError, SpillDamaged

__all__ = [
    "PART_BYTES",
    "WrongLength",
    "damaged",
    "fill",
    "os_errors",
    "parts",
    "scrubbed",
    "split_query",
    "without_slashes",
]

PART_BYTES = 16 << 20
"""Fetched by one request, and handed over for writing at once."""

_CODES: tuple[tuple[type[OSError], int], ...] = (
    (FileNotFoundError, errno.ENOENT),
    (PermissionError, errno.EACCES),
    (TimeoutError, errno.ETIMEDOUT),
    (ConnectionError, errno.ECONNREFUSED),
    (OSError, errno.EIO),
)


@contextlib.contextmanager
def os_errors(url: str, doing: str) -> Iterator[None]:
    """What a library raises in the block becomes an OSError of the fitting class, without secrets."""
    try:
        yield
    except FlightStoreError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None)
        if not isinstance(code, int):
            code = next((number for kind, number in _CODES if isinstance(error, kind)), errno.EIO)
        said = scrubbed(f"{type(error).__name__}: {error}", url)
        shown = masked_url(url)
        raise OSError(code, f"{doing} in {shown}: {said}") from (error if shown == url else None)


def scrubbed(text: str, url: str) -> str:
    """The text without what is secret in the URL."""
    place, _, query = url.partition("?")
    secrets = {value for _, value in parse_qsl(query)} | {part.partition("=")[2] for part in query.split("&")}
    secrets -= {"true", "false"}
    if masked_url(place) != place:
        user = place.partition("://")[2].rpartition("@")[0]
        secrets |= {part for whole in (user, unquote(user)) for part in (whole, *whole.split(":", 1))}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def damaged(storage: SpillStorage, name: str, found: int, expected: int) -> SpillDamaged:
    """The error that says that a file is not as long as it should be."""
    error = SpillDamaged(
        f"the spilled file {name} in {masked_url(storage.url)} has {found:,} bytes instead of {expected:,}",
        hint="somebody changed it",
    )
    error.url, error.name = masked_url(storage.url), name
    return error


def parts(pieces: Sequence[memoryview]) -> Iterator[memoryview]:
    """The bytes of all pieces, in parts that are not too large to be buffered."""
    for piece in pieces:
        if memoryview(piece).nbytes:
            view = memoryview(piece).cast("B")
            yield from (view[start : start + PART_BYTES] for start in range(0, view.nbytes, PART_BYTES))


class WrongLength(Exception):
    """What was fetched is not as long as what was asked for: the file has changed."""


def fill(target: memoryview, fetch: Callable[[int, int], Any], threads: int) -> None:
    """Fill `target` with what ``fetch(start, end)`` gives for its parts, some of them at once.

    Only the caller's thread writes to `target`: nobody does once this has returned or raised.

    Raises:
        WrongLength: a part was shorter or longer than asked for.
    """
    target = target.cast("B") if target.nbytes else memoryview(bytearray())
    ranges = [
        (start, min(start + PART_BYTES, target.nbytes)) for start in range(0, target.nbytes, PART_BYTES)
    ]
    if threads < 2 or len(ranges) < 2:
        for start, end in ranges:
            _place(target, start, end, fetch(start, end))
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="flightstore-fetch")
    try:
        waiting: deque[tuple[int, int, Future[Any]]] = deque()
        for start, end in ranges:
            waiting.append((start, end, pool.submit(fetch, start, end)))
            if len(waiting) == threads:
                first, last, future = waiting.popleft()
                _place(target, first, last, future.result())
        for first, last, future in waiting:
            _place(target, first, last, future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _place(target: memoryview, start: int, end: int, data: Any) -> None:
    view = memoryview(data)
    if view.nbytes != end - start:
        raise WrongLength(f"{view.nbytes:,} bytes from {start:,} on, {end - start:,} were asked for")
    target[start:end] = view


def split_query(url: str) -> tuple[str, dict[str, str | bool]]:
    """The URL up to its query, and the query's fields; ``true`` and ``false`` are booleans."""
    place, _, query = url.partition("?")
    words = {"true": True, "false": False}
    return place, {key: words.get(value, value) for key, value in parse_qsl(query)}


def without_slashes(url: str) -> str:
    """The URL, the path not ending with a slash: so that two spellings of a place are one."""
    place, mark, query = url.partition("?")
    while place.endswith("/") and not place.endswith("://"):
        place = place[:-1]
    return place + mark + query
