"""How much a gateway takes on, in all and for one client."""

from __future__ import annotations

from dataclasses import dataclass, fields

from flightstore.errors import InvalidArgument

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What each server refuses beyond. Sizes are bytes, times seconds.

    Raises:
        InvalidArgument: a limit that nothing could pass.
    """

    max_connections: int = 1000
    """Connections, or calls that are running, of each server at a time."""
    max_uploads: int = 32
    """Uploads that are running at a time."""
    max_object_bytes: int | None = None
    """Size of one uploaded object; None for as much as the store holds."""
    max_batch_bytes: int = 512 << 20
    """Size of one record batch of an upload, and of one request that is no upload."""
    idle_timeout_s: float = 60.0
    """How long a client may neither send nor take anything in the middle of a request, or between two."""
    request_timeout_s: float = 3600.0
    """How long one request may take in all."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not value > 0:
                raise InvalidArgument(f"{one.name} = {value}", hint="give a number above 0")
