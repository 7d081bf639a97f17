"""The steps of the pipeline. Each takes and gives tables by name, and knows nothing of where they lie.

A step runs in a process of a pool; what it needs beside its arguments is `place`, set when that begins.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as parquet
from places import Place

REGIONS = ("north", "south", "east", "west")
REPORT = """
select region, month, count(*) as orders, sum(total)::bigint as cents, sum(expected)::bigint as expected,
       count(*) filter (total > 2 * expected) as surprising
from steps group by region, month order by region, month
"""

place: Place


def begin(chosen: Place) -> None:
    """Make a process ready."""
    global place
    place = chosen


def warm(number: int) -> None:
    """Each way of handing over once, so that libraries are loaded and connections made before it counts."""
    name = f"warm/{number}"
    place.put(name, pl.DataFrame({"total": [1, 2], "text": ["a", "b"]}))
    place.put_with(name, {"new": np.arange(2)}, f"{name}/2")
    place.frames([name])
    place.pandas(name)
    place.sql("select count(*) from steps", [name], ["total"])
    spent()


def ingest(number: int, path: Path) -> float:
    """One file of orders comes in."""
    place.put(f"raw/{number}", parquet.read_table(path))
    return spent()


def partition(number: int, partitions: int) -> float:
    """Its rows are divided by customer, so that a partition has all of a customer's orders."""
    rows = place.frames([f"raw/{number}"])
    keys = rows.with_columns(key=pl.col("customer") % partitions)
    for (key,), part in keys.partition_by(
        "key", as_dict=True, include_key=False, maintain_order=True
    ).items():
        place.put(f"part/{key}/{number}", part)
    return spent()


def enrich(key: int, files: int) -> float:
    """polars: totals, months, and the region of each customer."""
    rows = place.frames([f"part/{key}/{number}" for number in range(files)])
    customers = pl.DataFrame({"customer": rows["customer"].unique(maintain_order=True)}).with_columns(
        region=pl.col("customer").map_elements(region_of, return_dtype=pl.String)
    )
    enriched = rows.join(customers, on="customer", how="left", maintain_order="left").with_columns(
        total=pl.col("cents") * pl.col("quantity"),
        month=pl.col("day").dt.strftime("%Y-%m"),
        before=pl.col("cents").shift(1).over("customer").fill_null(0),
    )
    place.put(f"enriched/{key}", enriched)
    return spent()


def region_of(customer: int) -> str:
    """Where a customer lives."""
    return REGIONS[hashlib.blake2b(str(customer).encode()).digest()[0] % len(REGIONS)]


def model(key: int) -> float:
    """pandas and NumPy: what an order's total is expected to be, by least squares over its partition."""
    frame = place.pandas(f"enriched/{key}")
    features = np.column_stack([np.ones(len(frame)), frame["quantity"], frame["before"]])
    weights, *_ = np.linalg.lstsq(features, frame["total"].to_numpy(np.float64), rcond=None)
    expected = np.rint(features @ weights).astype(np.int64)
    place.put_with(f"enriched/{key}", {"expected": expected}, f"scored/{key}")
    return spent()


def report(partitions: int, path: Path) -> float:
    """DuckDB: the report, out as Parquet."""
    names = [f"scored/{key}" for key in range(partitions)]
    found = place.sql(REPORT, names, ("region", "month", "total", "expected"))
    parquet.write_table(found, path)
    return spent()


def spent() -> float:
    """Seconds that handing over took since this was asked."""
    seconds, place.busy_s = place.busy_s, 0.0
    return seconds
