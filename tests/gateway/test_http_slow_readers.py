"""A slow reader gets the original bytes, every one, while the object is deleted and its memory used again."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flightstore.store.local import Store
from flightstore.testing.http_gateway import HttpGateway, http_gateway

from .slowreading import hear, here, is_free, overwrite, say, until, way_by

MIB = 1 << 20
READER = "slow_reader.py"

WAYS = [
    pytest.param("/objects/precious", 0, id="send"),
    pytest.param("/objects/precious", 64 << 10, id="send to a small buffer"),
    pytest.param("/frames/precious?acknowledge=1", 0, id="sendfile"),
    pytest.param("/frames/precious?acknowledge=1", 64 << 10, id="sendfile to a small buffer"),
]


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


def read_slowly(
    gateway: HttpGateway, nbytes: int, process: subprocess.Popen[str], *, let_go: bool = False
) -> tuple[bool, str]:
    """Store an object, have it read slowly while its memory is used again, if that can be.

    Args:
        gateway: The server.
        nbytes: Size of the object.
        process: The reader.
        let_go: Whether the server has no reason to hold the object until it is read.

    Returns:
        Whether what was read is what was stored; the status of the acknowledgement.
    """
    store = gateway.store
    wanted = put_precious(store, nbytes)
    say(process)
    assert hear(process) == ["headers", "200"]
    store.delete("precious")
    # The server may have handed everything to the kernel, and let go: then the memory is used again at once.
    assert until(lambda: is_free(store), 60 if let_go else 0.5) or not let_go
    overwrite(store, max(nbytes // 16, 64 << 10))
    say(process)
    total, checksum, status = hear(process)
    assert int(total) == nbytes
    assert until(lambda: is_free(store), 60)
    overwrite(store, 64 << 10)
    assert store.stats().free_bytes < MIB, "memory was lost"
    return checksum == wanted, status


@pytest.mark.req("GW-3")
@pytest.mark.parametrize(("path", "receive_bytes"), WAYS)
def test_4_mib_on_loopback(store_dir: Path, path: str, receive_bytes: int) -> None:
    with http_gateway(store_dir, capacity="16MiB") as gateway:
        with here(READER, "127.0.0.1", gateway.port, path, receive_bytes, 1) as process:
            assert read_slowly(gateway, 4 * MIB, process) == (True, "204" if "frames" in path else "0")


def test_without_acknowledgement_sendfile_would_send_other_bytes(store_dir: Path) -> None:
    """What the tests above would not pass with: the reason why the reference is held until then."""
    with http_gateway(store_dir, capacity="16MiB") as gateway:
        path = "/frames/precious?acknowledge=1"
        with here(READER, "127.0.0.1", gateway.port, path, MIB, 0) as process:
            assert read_slowly(gateway, MIB // 4, process, let_go=True) == (False, "404")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.req("GW-3")
@pytest.mark.parametrize("path", ["/objects/precious", "/frames/precious?acknowledge=1"])
@pytest.mark.parametrize("way", ["loopback", pytest.param("veth", marks=pytest.mark.needs("network"))])
def test_1_gib(store_dir: Path, way: str, path: str) -> None:
    wanted = (True, "204" if "frames" in path else "0")
    with way_by(way) as (address, before):
        with http_gateway(store_dir, capacity="1536MiB", host=address) as gateway:
            with here(READER, address, gateway.port, path, 0, 1, before=before) as process:
                assert read_slowly(gateway, 1024 * MIB, process) == wanted
