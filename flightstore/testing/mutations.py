"""Bytes with something wrong in them, for tests of whoever reads what others wrote. Calls nothing else."""

from __future__ import annotations

import random
import struct

__all__ = ["mutated"]


def mutated(rng: random.Random, raw: bytearray) -> None:
    """Change bytes in place: a bit, a number where one may lie, a range; one to four times."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not raw:
            return
        at = rng.randrange(len(raw))
        how = rng.randrange(5)
        if how == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            raw[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif how == 2:
            at &= -4
            number = rng.choice((-1, 0, 1, 1 << 31, -(1 << 31), (1 << 31) - 1, 1 << 20, len(raw)))
            raw[at : at + 4] = struct.pack("<q", number)[: len(raw[at : at + 4])]
        elif how == 3:
            at &= -8
            number = rng.choice((-1, 1 << 62, -(1 << 63), (1 << 63) - 1, 1 << 32, 64, len(raw)))
            raw[at : at + 8] = struct.pack("<q", number)[: len(raw[at : at + 8])]
        else:
            length = rng.randrange(1, 65)
            other = rng.randrange(len(raw))
            raw[at : at + length] = raw[other : other + length].ljust(len(raw[at : at + length]), b"\0")
