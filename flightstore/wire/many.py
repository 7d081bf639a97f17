"""Several objects in one request: small payloads travel inside it, so that one round trip does.

- ``put_many``: all become visible in one commit, or none. An object without a payload here was *staged*
  before: its frame was put with ``staged`` in its header, and nobody sees it until this names its id.
- ``get_many``: objects as they were at one moment. Payloads up to a size come with the answer; the others are
  fetched by id.
"""

from __future__ import annotations

import msgspec

from flightstore.wire.frames import FrameHeader

__all__ = ["INLINE_BYTES", "GetMany", "Many", "OneOfMany", "PutMany"]

INLINE_BYTES = 64 << 10
"""Payloads up to this size may travel inside."""
MAX_INLINE_BYTES = 8 << 20
"""All payloads inside one request or reply."""


class OneOfMany(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One object."""

    header: FrameHeader
    payload: bytes | None = None
    """None: it was staged; in an answer: fetch it by its id."""


class PutMany(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Objects to be stored in one commit. Each header has an id of the client's choice."""

    objects: list[OneOfMany]
    timeout_s: float = 0


class GetMany(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Objects to be got as they are at one moment."""

    refs: list[str]
    inline_bytes: int = INLINE_BYTES
    """Payloads up to this size are wanted with the answer; -1 for none."""


class Many(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The objects asked for, in order."""

    objects: list[OneOfMany]
