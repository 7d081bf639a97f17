"""Spilling to S3: the suite of storages on an S3-compatible server on this machine."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import s3fs

from flightstore.lifecycle.storages import storage_for
from flightstore.testing.events import wait_for_file
from flightstore.testing.storages import StorageSuite, read

pytestmark = [pytest.mark.req("PLG-6"), pytest.mark.slow]

KEY, SECRET = "access-key", "sec/ret+key"
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(server.get_host_and_port()[1]))
import os
os.rename(sys.argv[1] + ".new", sys.argv[1])
sys.stdin.read()
"""
prefixes = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Where a server listens, for all tests of this file; it has a bucket named ``bucket``."""
    with tempfile.TemporaryDirectory() as folder:
        port = Path(folder, "port")
        command = [sys.executable, "-W", "ignore", "-c", SERVER, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            wait_for_file(port, timeout_s=60)
            address = f"127.0.0.1:{port.read_text()}"
            client(address).mkdir("bucket")
            yield address
            server.kill()


def client(endpoint: str) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key=KEY, secret=SECRET, endpoint_url=f"http://{endpoint}", skip_instance_cache=True
    )


def fsspec_url(endpoint: str, folder: str) -> str:
    return f"s3://{folder}?key={KEY}&secret={quote(SECRET, safe='')}&endpoint_url=http://{endpoint}"


def arrow_url(endpoint: str, folder: str) -> str:
    user = f"{KEY}:{quote(SECRET, safe='')}"
    return f"arrow+s3://{user}@{folder}?endpoint_override={endpoint}&scheme=http&region=us-east-1"


class TestS3ThroughFsspec(StorageSuite):
    secret = SECRET

    @pytest.fixture
    def url(self, endpoint: str) -> str:
        return fsspec_url(endpoint, f"bucket/spill/{next(prefixes)}")


class TestS3ThroughArrow(StorageSuite):
    secret = SECRET

    @pytest.fixture
    def url(self, endpoint: str) -> str:
        return arrow_url(endpoint, f"bucket/spill/{next(prefixes)}")


@pytest.mark.parametrize("make", [fsspec_url, arrow_url])
def test_what_s3_refuses(make: object, endpoint: str) -> None:
    storage = storage_for(make(endpoint, "no-such-bucket/x"))  # type: ignore[operator]
    with pytest.raises(OSError, match="no-such-bucket") as failure:
        storage.write("a", [memoryview(b"x")])
    assert SECRET not in str(failure.value)
    assert not client(endpoint).exists("no-such-bucket"), "nobody asked for it to be made"


def test_both_libraries_find_the_same_files(endpoint: str) -> None:
    data = os.urandom(1 << 20)
    storage_for(fsspec_url(endpoint, "bucket/both")).write("file", [memoryview(data)])
    assert read(storage_for(arrow_url(endpoint, "bucket/both")), "file", len(data)) == data
