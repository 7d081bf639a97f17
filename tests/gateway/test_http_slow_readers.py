"""A slow reader gets the original bytes, every one, while the object is deleted and its memory used again."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flightstore.errors import StoreFull
from flightstore.store.local import Store
from flightstore.testing.http_gateway import HttpGateway, http_gateway

MIB = 1 << 20
READER = str(Path(__file__).with_name("slow_reader.py"))

WAYS = [
    pytest.param("/objects/precious", 0, id="send"),
    pytest.param("/objects/precious", 64 << 10, id="send to a small buffer"),
    pytest.param("/frames/precious?acknowledge=1", 0, id="sendfile"),
    pytest.param("/frames/precious?acknowledge=1", 64 << 10, id="sendfile to a small buffer"),
]


@contextlib.contextmanager
def reader(*arguments: object, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    command = [*before, sys.executable, READER, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def until(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def overwrite(store: Store, piece: int) -> None:
    """Use all the memory there is for something else."""
    filler = np.full(piece, 0xEE, np.uint8)
    with contextlib.suppress(StoreFull):
        while True:
            store.put(filler)


def put_precious(store: Store, nbytes: int) -> str:
    """Store that many random bytes as a blob; returns the checksum of them."""
    checksum = hashlib.blake2b()
    random = np.random.default_rng(nbytes)
    with store.create(nbytes, "precious") as builder:
        for at in range(0, nbytes, 16 * MIB):
            part = random.bytes(min(16 * MIB, nbytes - at))
            checksum.update(part)
            builder.buffer[at : at + len(part)] = part
    return checksum.hexdigest()


def read_slowly(gateway: HttpGateway, nbytes: int, process: subprocess.Popen[str]) -> tuple[bool, str]:
    """Store an object, have it read slowly while its memory is used again, if that can be.

    Returns:
        Whether what was read is what was stored; the status of the acknowledgement.
    """
    store = gateway.store
    wanted = put_precious(store, nbytes)
    say(process)
    assert hear(process) == ["headers", "200"]
    store.delete("precious")
    # The server may have handed everything to the kernel, and let go: then the memory is used again at once.
    until(lambda: store.stats().dying == 0 or bool(store.recover().freed_objects), 0.5)
    overwrite(store, max(nbytes // 16, 64 << 10))
    say(process)
    total, checksum, status = hear(process)
    assert int(total) == nbytes
    assert until(lambda: store.stats().dying == 0 or bool(store.recover().freed_objects), 10)
    overwrite(store, 64 << 10)
    assert store.stats().free_bytes < MIB, "memory was lost"
    return checksum == wanted, status


@pytest.mark.req("GW-3")
@pytest.mark.parametrize(("path", "receive_bytes"), WAYS)
def test_4_mib_on_loopback(store_dir: Path, path: str, receive_bytes: int) -> None:
    with http_gateway(store_dir, capacity="16MiB") as gateway:
        with reader("127.0.0.1", gateway.port, path, receive_bytes, 1) as process:
            assert read_slowly(gateway, 4 * MIB, process) == (True, "204" if "frames" in path else "0")


def test_without_acknowledgement_sendfile_would_send_other_bytes(store_dir: Path) -> None:
    """What the tests above would not pass with: the reason why the reference is held until then."""
    with http_gateway(store_dir, capacity="16MiB") as gateway:
        path = "/frames/precious?acknowledge=1"
        with reader("127.0.0.1", gateway.port, path, MIB, 0) as process:
            assert read_slowly(gateway, MIB // 4, process) == (False, "404")


@contextlib.contextmanager
def cable(process: subprocess.Popen[str]) -> Iterator[str]:
    """A pair of network interfaces between here and the network namespace of a process, which goes with it.

    Yields:
        The address here.
    """
    name, number = f"fs{process.pid}", process.pid % 16384
    here, there = (f"10.{213 + number // 8192}.{number % 8192 // 32}.{number % 32 * 8 + at}" for at in (1, 2))

    def run(*command: str) -> None:
        subprocess.run(command, check=True, timeout=30, capture_output=True)

    inside = ("nsenter", "--net", f"--target={process.pid}")
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "inside", "netns", str(process.pid))
    try:
        run("ip", "addr", "add", f"{here}/30", "dev", name)
        run("ip", "link", "set", name, "up")
        run(*inside, "ip", "addr", "add", f"{there}/30", "dev", "inside")
        run(*inside, "ip", "link", "set", "inside", "up")
        yield here
    finally:
        run("ip", "link", "del", name)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.req("GW-3")
@pytest.mark.parametrize("path", ["/objects/precious", "/frames/precious?acknowledge=1"])
@pytest.mark.parametrize("way", ["loopback", pytest.param("veth", marks=pytest.mark.needs("network"))])
def test_1_gib(store_dir: Path, way: str, path: str) -> None:
    wanted = (True, "204" if "frames" in path else "0")
    with http_gateway(store_dir, capacity="1536MiB", host="0.0.0.0") as gateway:
        if way == "loopback":
            with reader("127.0.0.1", gateway.port, path, 0, 1) as process:
                assert read_slowly(gateway, 1024 * MIB, process) == wanted
            return
        with reader_in_namespace(gateway.port, path) as process:
            assert read_slowly(gateway, 1024 * MIB, process) == wanted


@contextlib.contextmanager
def reader_in_namespace(port: int, path: str) -> Iterator[subprocess.Popen[str]]:
    """A slow reader at the other end of a cable."""
    holder = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        hear(holder)  # its namespace is there
        inside = ("nsenter", "--net", f"--target={holder.pid}")
        with cable(holder) as address, reader(address, port, path, 0, 1, before=inside) as process:
            yield process
    finally:
        holder.kill()
        holder.communicate()
