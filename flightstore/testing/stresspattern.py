"""Objects whose every byte follows from their name and version: what the stress drivers store and check.

Lives here: `content` makes one, `problem` says what is wrong with one; `block` and `blocks_problem` do the
same for columns of any size, which may be joined one to the other. Calls NumPy only.

Invariants: the first 8-byte word holds name and version in clear; it decides the length and all other words.
So a reader needs to be told nothing but the name it asked for, and bytes of another object, of another
version, or of two versions mixed are found whatever they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGE_EVERY",
    "block",
    "block_length",
    "blocks_problem",
    "content",
    "length",
    "name_of",
    "problem",
]

Words = npt.NDArray[np.uint64]

LARGE_EVERY = 64
"""Each of so many names bears large objects, stored in two steps; the others go in with one transaction."""
_LARGE_WORDS = 10_000
_SMALL_WORDS = 64
_MASK = (1 << 64) - 1
_BLOCK_SIZES = ((6, 64, 2_000), (9, 8_000, 24_000), (10, 64_000, 64_000))
"""Of ten blocks, so many (counted up) have at least, and at most so many more, words."""
_TEMPLATE: Words = np.random.default_rng(20).integers(
    1, 1 << 63, size=1 << 17, dtype=np.uint64, endpoint=False
)


def name_of(index: int) -> str:
    """The name of object number `index`."""
    return f"stress/{index}"


def _key(head: int) -> int:
    """A number that looks random (splitmix64)."""
    mixed = (head + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def length(index: int, version: int) -> int:
    """How many words the object has."""
    return _length(index, _key(index << 32 | version))


def _length(index: int, key: int) -> int:
    base = _LARGE_WORDS if index % LARGE_EVERY == 0 else _SMALL_WORDS
    return base + key % base


def content(index: int, version: int) -> Words:
    """All words of version `version` (below 2^32) of object number `index`."""
    head = index << 32 | version
    key = _key(head)
    words = _TEMPLATE[: _length(index, key)] ^ np.uint64(key)
    words[0] = head
    return words


def problem(value: Any, index: int) -> str | None:
    """What is wrong with the bytes got under the name of object number `index`; None when nothing is."""
    words = np.frombuffer(value, dtype=np.uint64)
    head = int(words[0])
    if head >> 32 != index:
        return f"object {index} begins with the head {head:#x} of another"
    key = _key(head)
    expected = _length(index, key)
    if len(words) != expected:
        return f"object {index} of head {head:#x} has {len(words)} words instead of {expected}"
    same = (words[1:] ^ _TEMPLATE[1:expected]) == np.uint64(key)
    if same.all():
        return None
    first = 1 + int(np.argmin(same))
    wrong = int(np.count_nonzero(~same))
    return f"object {index} of head {head:#x}: {wrong} of {expected} words are wrong, from number {first} on"


# --- blocks ---


def block_length(head: int) -> int:
    """How many words the block has that begins with this word."""
    key = _key(head)
    least, more = next((least, more) for share, least, more in _BLOCK_SIZES if key % 10 < share)
    return least + (key >> 8) % more


def block(head: int, column: int = 0) -> Words:
    """All words of one block of a column; blocks of one head have one length, whatever the column."""
    words = _TEMPLATE[: block_length(head)] ^ np.uint64(_key(head ^ column << 56))
    words[0] = head
    return words


def blocks_problem(value: Any, column: int = 0) -> str | None:
    """What is wrong with blocks, one behind the other; None when nothing is."""
    words = np.frombuffer(value, dtype=np.uint64)
    at = 0
    while at < len(words):
        head = int(words[at])
        expected = block_length(head)
        found = words[at : at + expected]
        if len(found) != expected:
            return f"the block {head:#x} at word {at} is cut to {len(found)} of {expected} words"
        wrong = int(
            np.count_nonzero((found[1:] ^ _TEMPLATE[1:expected]) != np.uint64(_key(head ^ column << 56)))
        )
        if wrong:
            return f"{wrong} of the {expected} words of block {head:#x}, column {column}, are wrong"
        at += expected
    return None if at else "it is empty"
