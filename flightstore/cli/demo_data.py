"""The demo's data: orders of a made-up shop, the same for the same number of rows, on every machine.

Calls numpy and pyarrow only.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SEED", "orders"]

SEED = 20_240_229
"""Seed of the generator."""

_CATEGORIES = (
    "books", "music", "garden", "kitchen", "toys", "sport", "clothing", "shoes", "computers", "phones",
    "grocery", "health", "pets", "office", "tools",
)  # fmt: skip
_COUNTRIES = ("DE", "FR", "US", "GB", "NL", "CH", "SE", "PL", "IT", "ES", "AT", "DK")
_CURRENCY = {"US": "USD", "GB": "GBP", "CH": "CHF", "SE": "SEK", "PL": "PLN", "DK": "DKK"}
_NOTES = (
    "leave with the neighbour", "gift: please wrap", "ring twice", "deliver after 18:00", "second attempt",
    "call before delivery", "fragile", "address changed by phone", "invoice to the company",
)  # fmt: skip
_START_US = 1_672_531_200_000_000
_SPAN_US = 730 * 86_400 * 1_000_000


def orders(rows: int) -> Any:
    """An Arrow table of `rows` orders; the same numbers on every call."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(SEED)
    country = random.choice(len(_COUNTRIES), rows, p=_falling(len(_COUNTRIES)))
    category = random.choice(len(_CATEGORIES), rows, p=_falling(len(_CATEGORIES)))
    price = np.round(np.exp(random.normal(3.0, 0.9, rows)) + 0.99, 2)
    note = random.integers(0, len(_NOTES) * 12, rows)
    moments = np.sort(random.integers(0, _SPAN_US, rows)) + _START_US
    columns = {
        "order_id": pa.array(np.arange(1_000_000, 1_000_000 + rows, dtype=np.int64)),
        "customer_id": pa.array((random.pareto(1.2, rows) * 5000).astype(np.int64) % 400_000),
        "ordered_at": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "category": _words(category, _CATEGORIES),
        "quantity": pa.array(np.minimum(random.geometric(0.45, rows), 40).astype(np.int32)),
        "unit_price": pa.array(price),
        "discount": pa.array(random.choice([0.0, 0.05, 0.1, 0.2], rows, p=[0.7, 0.15, 0.1, 0.05])),
        "currency": _words(country, [_CURRENCY.get(code, "EUR") for code in _COUNTRIES]),
        "country": _words(country, _COUNTRIES),
        "note": _words(note, _NOTES),
    }
    return pa.table(columns)


def _falling(count: int) -> Any:
    """Probabilities that fall like 1/n, as popularity does."""
    import numpy as np

    weights = 1 / np.arange(1, count + 1)
    return weights / weights.sum()


def _words(codes: Any, words: Any) -> Any:
    """A string column: the word of each code, null for codes beyond the words."""
    import numpy as np
    import pyarrow as pa

    indices = pa.array(codes.astype(np.int32), mask=codes >= len(words))
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(words))).cast(pa.string())
