"""Ranges and entity tags (RFC 9110), as far as one immutable body at a time needs them."""

from __future__ import annotations

import re

from aiohttp import web

__all__ = ["etag_matches", "part_asked"]

_RANGE = re.compile(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE)


def etag_matches(header: str | None, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags names this one.

    Args:
        header: If-None-Match or If-Range; None for not there.
        etag: The current one, a strong one.
        weak: Whether a weak one counts as the same.
    """
    if header is None:
        return False
    if header.strip() == "*":
        return weak
    tags = [tag.strip() for tag in header.split(",")]
    return etag in tags or (weak and f"W/{etag}" in tags)


def part_asked(request: web.BaseRequest, etag: str, size: int) -> tuple[int, int, int]:
    """Start, end and status of what a request is to be answered with.

    A Range that is malformed, or of several parts, counts as not there, as the RFC has it; so does one whose
    If-Range does not fit.
    """
    header = request.headers.get("Range")
    if header is None or request.method != "GET":
        return 0, size, 200
    condition = request.headers.get("If-Range")
    if condition is not None and not etag_matches(condition, etag, weak=False):
        return 0, size, 200
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return 0, size, 200
    first, last = found.groups()
    if not first:
        if not last:
            return 0, size, 200
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return 0, size, 200
    if start >= stop:
        return 0, 0, 416
    return start, stop, 206
