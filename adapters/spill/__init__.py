"""Spill storages that other libraries reach: whatever fsspec knows, and what Arrow brings along.

`open_storage` is asked for every URL whose scheme nobody else has. fsspec comes first, since more systems are
behind it; where it, or what it needs for that scheme, is not installed, Arrow's own file systems are tried.
``fsspec+...`` and ``arrow+...`` URLs mean one of the two.
"""

from __future__ import annotations

from flightstore.abc.storage import SpillStorage, masked_url
from flightstore.adapters.spill.arrow import ArrowStorage
from flightstore.adapters.spill.fsspec import FsspecStorage
from flightstore.errors import InvalidArgument, MissingExtra

__all__ = ["ArrowStorage", "FsspecStorage", "open_storage"]


def open_storage(url: str) -> SpillStorage:
    """The storage behind a URL.

    Raises:
        MissingExtra: what its scheme needs is not installed.
        InvalidArgument: nobody knows its scheme, or what stands behind it makes no sense.
    """
    refusals: list[MissingExtra | InvalidArgument] = []
    for factory in (FsspecStorage, ArrowStorage):
        try:
            return factory(url)
        except (MissingExtra, InvalidArgument) as error:
            refusals.append(error)
    for refusal in refusals:
        if isinstance(refusal, MissingExtra):
            raise refusal
    raise InvalidArgument(
        f"no spill storage takes {masked_url(url)}: {'; '.join(refusal.message for refusal in refusals)}",
        hint="give a directory, a URL that fsspec or Arrow knows, or register its scheme: "
        "flightstore.register_spill_storage",
    )
