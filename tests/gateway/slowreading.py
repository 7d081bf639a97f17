"""Readers in processes of their own, here and at the other end of a cable; and memory that is used again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flightstore.errors import StoreFull
from flightstore.store.local import Store

__all__ = ["Way", "hear", "here", "is_free", "overwrite", "say", "until", "way_by"]


@contextlib.contextmanager
def here(script: str, *arguments: object, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A script beside this file, running."""
    program = str(Path(__file__).with_name(script))
    command = [*before, sys.executable, program, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Way(NamedTuple):
    """How readers reach a server of this machine."""

    address: str
    """Where the server is to listen."""
    before: tuple[str, ...] = ()
    """What a reader's command begins with."""


@contextlib.contextmanager
def way_by(name: str) -> Iterator[Way]:
    """``loopback``, or ``veth``: readers are in a network namespace, at the other end of a cable."""
    if name == "loopback":
        yield Way("127.0.0.1")
        return
    holder = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        hear(holder)  # its namespace is there
        with _cable(holder) as address:
            yield Way(address, ("nsenter", "--net", f"--target={holder.pid}"))
    finally:
        holder.kill()
        holder.communicate()


@contextlib.contextmanager
def _cable(process: subprocess.Popen[str]) -> Iterator[str]:
    """A pair of network interfaces between here and the network namespace of a process, which goes with it.

    Yields:
        The address here.
    """
    name, number = f"fs{process.pid}", process.pid % 16384
    ours, theirs = (
        f"10.{213 + number // 8192}.{number % 8192 // 32}.{number % 32 * 8 + at}" for at in (1, 2)
    )

    def run(*command: str) -> None:
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    inside = ("nsenter", "--net", f"--target={process.pid}")
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "inside", "netns", str(process.pid))
    try:
        run("ip", "addr", "add", f"{ours}/30", "dev", name)
        run("ip", "link", "set", name, "up")
        run(*inside, "ip", "addr", "add", f"{theirs}/30", "dev", "inside")
        run(*inside, "ip", "link", "set", "inside", "up")
        yield ours
    finally:
        run("ip", "link", "del", name)


def say(process: subprocess.Popen[str]) -> None:
    """Tell a reader to go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> list[str]:
    """What a reader says."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether something that cannot be waited for otherwise is so within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_free(store: Store) -> bool:
    """Whether nothing that was deleted is held any more."""
    return store.stats().dying == 0 or bool(store.recover().freed_objects)


def overwrite(store: Store, piece: int) -> None:
    """Use all the memory there is for something else."""
    filler = np.full(piece, 0xEE, np.uint8)
    with contextlib.suppress(StoreFull):
        while True:
            store.put(filler)
