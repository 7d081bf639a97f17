"""Latency of small values: put here, get in another process, get again while the first result lives.

One repetition of a contender puts a block of new names, gets each in the other process, gets each again
there while the first results live, drops them all, puts over the names, and deletes them; a measure is the
median of its block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from baselines import Memcpy
from harness import GIB, MIB, OURS, Row, Settings, Target, interleave, make_row, median_us
from peers import Peer
from sides import Codec, LmdbSide, Side, StoreSide, delete_all

STORE_BYTES = GIB


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of small value."""

    group: str
    label: str
    value: Any
    codec: Codec
    payload: Any
    """The same bytes as an array, for memcpy."""
    block: int
    """Operations per repetition."""
    targets: Mapping[str, Target]


class Getter:
    """Lives in the other process and times gets there."""

    def __init__(self, side: Callable[..., Side], *args: Any) -> None:
        self.side = side(*args)
        self.kept: list[Any] = []

    def first(self, names: list[str]) -> float:
        """Get each name and keep the results; microseconds."""
        return median_us(self.side.get, names, self.kept)

    def again(self, names: list[str]) -> float:
        """Get each name once more, dropping the results; microseconds."""
        return median_us(self.side.get, names)

    def drop(self) -> None:
        """Let go of every result."""
        self.kept.clear()

    def check(self, name: str, value: Any, codec: Codec) -> None:
        """Fail unless what is stored equals `value`."""
        if not codec.same(self.side.get(name), value):
            raise AssertionError(f"{name} came back different")

    def close(self) -> None:
        """Give the store up."""
        self.kept.clear()
        self.side.close()


class Round:
    """One store's contender: see the head of the file."""

    def __init__(self, side: Side, getter: Peer, case: Case) -> None:
        self.side = side
        self.getter = getter
        self.value = side.prepare(case.value)
        self.names = [f"{case.group}-{number}" for number in range(case.block)]
        side.put("check", self.value)
        getter.call("check", "check", self.value, case.codec)
        side.delete("check")

    def __call__(self) -> Mapping[str, float]:
        put = median_us(self._put, self.names)
        first = self.getter.call("first", self.names)
        again = self.getter.call("again", self.names)
        self.getter.call("drop")
        overwrite = median_us(self._put, self.names)
        delete_all(self.side, self.names)
        return {"put": put, "get": first, "get again": again, "put over": overwrite}

    def _put(self, name: str) -> None:
        self.side.put(name, self.value)


def _table(columns: int) -> Any:
    """One row of orders: numbers and short texts in turn."""
    kinds: list[Callable[[int], Any]] = [
        lambda i: pa.array([i * 1001], pa.int64()),
        lambda i: pa.array([i + 0.25], pa.float64()),
        lambda i: pa.array([f"customer {i:04}"], pa.string()),
        lambda i: pa.array([i], pa.int32()),
    ]
    return pa.table({f"column_{i}": kinds[i % len(kinds)](i) for i in range(columns)})


def cases(settings: Settings) -> list[Case]:
    """The kinds of small values, with what the project promises for each."""
    block = settings.scaled(200, 20)
    text = bytes(range(256)) * 4
    array = np.arange(MIB // 8, dtype=np.float64)
    found = [
        Case(
            "bytes",
            "1 KiB bytes",
            text,
            Codec("bytes"),
            np.frombuffer(text, np.uint8),
            block,
            {"put": Target(25, True), "get": Target(10, True)},
        ),
        Case(
            "numpy",
            "1 MiB array",
            array,
            Codec("array", dtype="f8"),
            array.view("u1"),
            max(block // 4, 5),
            {},
        ),
    ]
    for columns in (16, 1):
        table = _table(columns)
        found.append(
            Case(
                f"row{columns}",
                f"1-row table, {columns} column{'s' * (columns > 1)}",
                table,
                Codec("table", table.schema),
                np.frombuffer(table.to_batches()[0].serialize(), np.uint8),
                block,
                {"put": Target(1.5, True, "LMDB"), "get": Target(1.5, True, "LMDB")},
            )
        )
    return found


def run_case(case: Case, settings: Settings) -> list[Row]:
    """Measure one kind of value on every side."""
    settings.say(case.label)
    with ExitStack() as stack:
        contenders: dict[str, Any] = {}
        if not settings.baselines_only:
            contenders[OURS] = _ours(stack, settings.scratch / f"{case.group}.store", case)
        contenders["LMDB"] = _lmdb(stack, settings.scratch / f"{case.group}.lmdb", case)
        copies = stack.enter_context(Memcpy(case.payload, slots=case.block))
        contenders["memcpy 1"] = lambda: {"copy": median_us(copies.one, range(case.block))}
        contenders["memcpy 2"] = lambda: {"copy": median_us(copies.two, range(case.block))}
        samples = interleave(contenders, settings.scaled(25, 2), warmups=settings.scaled(3, 1))
    return [
        make_row(
            case.group,
            f"{measure}: {case.label}",
            "us",
            samples,
            measure,
            {"LMDB": ("LMDB", measure), "memcpy 1": ("memcpy 1", "copy"), "memcpy 2": ("memcpy 2", "copy")},
            target=case.targets.get(measure),
        )
        for measure in ("put", "get", "get again", "put over")
    ]


def _ours(stack: ExitStack, path: Path, case: Case) -> Round:
    side = stack.enter_context(closing(StoreSide(path, STORE_BYTES)))
    stack.callback(side.store.destroy)
    return Round(side, stack.enter_context(Peer(Getter, StoreSide, path)), case)


def _lmdb(stack: ExitStack, path: Path, case: Case) -> Round:
    side = stack.enter_context(closing(LmdbSide(path, STORE_BYTES, case.codec)))
    return Round(side, stack.enter_context(Peer(Getter, LmdbSide, path, STORE_BYTES, case.codec)), case)
