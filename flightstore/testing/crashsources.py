"""Rows of the crash table for files that are read into the store, and for tables that are divided.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest. What is read lies in a file that
is made once and stays as long as the process.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flightstore.connectors import sources
from flightstore.store import Store
from flightstore.testing.crashscenes import Scene
from flightstore.testing.crashtable import Act, register_act

__all__ = ["TABLE"]

TABLE = pa.table({"n": range(600), "s": [f"{row % 7:0300}" for row in range(600)]})
WHOLE = TABLE.append_column("half", pa.array([row % 2 for row in range(600)]))


@functools.cache
def _file() -> str:
    folder = tempfile.mkdtemp(prefix="flightstore-crash-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = str(Path(folder, "table.parquet"))
    pq.write_table(TABLE, path, row_group_size=200)
    return path


def _read(store: Store) -> None:
    """In this thread: what others do when a process is killed is their tests' matter."""
    sources.read(_file(), store=store, name="new", threads=1, metadata={"long": "m" * 1_000})


def _put(store: Store, scene: Scene) -> None:
    _file()
    store.put(WHOLE, "whole")
    scene.before["whole"] = WHOLE.to_pydict()


def _arrange_read(store: Store, scene: Scene) -> None:
    _file()


def _partition(store: Store) -> None:
    sources.partition("whole", by="value", columns="half", store=store, name="part")


def _split(store: Store) -> None:
    store.split("whole", rows=[100], names=["first", "second"])


_PARTS = {
    f"part/{number}": WHOLE.filter(pa.array([row % 2 == number for row in range(600)])).to_pydict()
    for number in range(2)
}
_SPLIT = {"first": WHOLE.slice(0, 100).to_pydict(), "second": WHOLE.slice(100).to_pydict()}

register_act(Act("sources-read", _read, {"new": TABLE.to_pydict()}, arrange=_arrange_read))
register_act(Act("sources-partition", _partition, _PARTS, arrange=_put))
register_act(Act("split", _split, _SPLIT, arrange=_put))
