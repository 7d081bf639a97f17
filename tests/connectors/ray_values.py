"""Values that the tests of the Ray connector put there, and find here. Does without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

__all__ = ["same", "until", "value_of"]


def value_of(kind: str, nbytes: int) -> Any:
    """A value of about that size, known to both ends."""
    rows = nbytes // 16
    numbers = np.arange(rows)
    if kind == "array":
        return np.arange(nbytes // 8).reshape(-1, 2)
    if kind == "series":
        return pd.Series(np.arange(nbytes // 8), name="series")
    columns = {"n": numbers, "half": numbers / 2}
    if kind == "pandas":
        return pd.DataFrame(columns)
    if kind == "pandas with text":
        return pd.DataFrame({**columns, "word": pd.Series(["a", "b"] * (rows // 2), dtype="str")})
    if kind == "polars":
        return pl.DataFrame(columns)
    if kind == "object":
        return {"an": ["ordinary", "object"], "of": nbytes}
    if kind == "bytes":
        return bytes(nbytes)
    return pa.table(columns)


def same(kind: str, nbytes: int, found: Any) -> bool:
    """Whether that is the value."""
    wanted = value_of(kind, nbytes)
    if kind == "array":
        return bool(np.array_equal(found, wanted))
    if kind in ("table", "pandas", "pandas with text", "polars", "series"):
        return bool(found.equals(wanted))
    return bool(found == wanted)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What the condition gives, once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{condition} does not become true")
