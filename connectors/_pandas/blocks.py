"""Frames from columns: as few blocks as the columns' memory allows, and no copy of it. May call buffers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.buffers import NumPy

__all__ = ["Blocks", "assemble"]

try:
    from pandas.api.internals import create_dataframe_from_blocks
except ImportError:  # pandas before 3
    create_dataframe_from_blocks = None

MANY_BLOCKS = 100
"""From here on pandas warns of fragmented frames."""


@dataclass(slots=True)
class _Run:
    """Columns that lie in memory at a constant distance."""

    dtype: np.dtype[Any]
    start: int
    """Address of the first."""
    last: int
    """Address of the last."""
    places: list[int]
    memory: list[pa.Buffer]
    """What keeps the columns' memory alive."""
    stride: int = 0

    def takes(self, address: int, nbytes: int) -> bool:
        """Whether a column there goes on with the run."""
        step = address - self.last
        return step == self.stride if self.stride else step >= nbytes

    def block(self, rows: int) -> NumPy:
        """The columns as one array, a row for each; read-only, in their memory."""
        size = self.last - self.start + rows * self.dtype.itemsize
        whole = pa.foreign_buffer(self.start, size, base=self.memory)
        strides = (self.stride or rows * self.dtype.itemsize, self.dtype.itemsize)
        return np.ndarray((len(self.places), rows), self.dtype, whole, strides=strides)


@dataclass(slots=True)
class Blocks:
    """The columns of a frame, collected one by one."""

    rows: int
    runs: list[_Run] = field(default_factory=list)
    open: dict[np.dtype[Any], _Run] = field(default_factory=dict)
    """The run of each dtype that may go on."""
    arrays: dict[int, Any] = field(default_factory=dict)
    """Columns that are blocks of their own, by place."""

    def add_shared(self, place: int, column: pa.ChunkedArray, dtype: np.dtype[Any]) -> bool:
        """Take a column of a type that NumPy has in the same bytes; False where it has nulls, or chunks."""
        if column.num_chunks != 1 or not self.rows:
            return False
        chunk = column.chunk(0)
        if chunk.null_count:
            return False
        memory = chunk.buffers()[1]
        address = memory.address + chunk.offset * dtype.itemsize
        run = self.open.get(dtype)
        if run is not None and run.takes(address, self.rows * dtype.itemsize):
            run.stride = address - run.last
            run.last = address
            run.places.append(place)
            run.memory.append(memory)
        else:
            run = self.open[dtype] = _Run(dtype, address, address, [place], [memory])
            self.runs.append(run)
        return True

    def add(self, place: int, array: Any) -> None:
        """Take a column as an array."""
        self.arrays[place] = array

    def blocks(self) -> list[tuple[Any, NumPy]]:
        """(array, places of its columns) of each block."""
        found = [(run.block(self.rows), np.array(run.places, np.intp)) for run in self.runs]
        plain: dict[np.dtype[Any], list[int]] = {}
        for place, array in self.arrays.items():
            if isinstance(array, np.ndarray):
                plain.setdefault(array.dtype, []).append(place)
            else:
                found.append((array, np.array([place], np.intp)))
        for places in plain.values():
            found += self._stacked(places) if len(self.arrays) >= MANY_BLOCKS else self._alone(places)
        return found

    def _alone(self, places: list[int]) -> list[tuple[Any, NumPy]]:
        return [(self.arrays[place].reshape(1, -1), np.array([place], np.intp)) for place in places]

    def _stacked(self, places: list[int]) -> list[tuple[Any, NumPy]]:
        return [(np.stack([self.arrays[place] for place in places]), np.array(places, np.intp))]


def assemble(blocks: Blocks, index: pd.Index, columns: pd.Index) -> pd.DataFrame:
    """The frame of the columns collected."""
    found = blocks.blocks()
    if create_dataframe_from_blocks is not None:
        return create_dataframe_from_blocks(found, index=index, columns=columns)
    arrays: dict[int, Any] = {}
    for array, places in found:
        rows = array if isinstance(array, np.ndarray) and array.ndim == 2 else [array]
        arrays |= dict(zip(places.tolist(), rows, strict=True))
    frame = pd.DataFrame({place: arrays[place] for place in range(len(columns))}, index=index, copy=False)
    frame.columns = columns
    return frame
