"""Who cannot be a client of the store gets it mapped all the same, through a gateway's unix socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import flightstore as fs

ROWS = 100_000


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    with fs.connect(store_dir, capacity="64MiB") as store:
        store.put(pa.table({"n": range(ROWS)}), "t")
        yield store


@pytest.fixture
def socket_path(store: fs.Store, store_dir: Path) -> Iterator[str]:
    """A gateway's socket."""
    path = str(store_dir.parent / "gateway")
    command = [sys.executable, "-m", "flightstore.cli", "serve", str(store_dir), "--unix", path, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        assert json.loads(gateway.stdout.readline())["ready"]
        yield path
        gateway.terminate()
        assert gateway.wait(60) == 0


CLIENT = """
import json, sys
import flightstore as fs

with fs.connect(sys.argv[1]) as store:
    table = store.get("t").to_arrow()
    address = table.column("n").chunk(0).buffers()[1].address
    where = [line.split() for line in open("/proc/self/maps")
             if int(line.split("-")[0], 16) <= address < int(line.split()[0].split("-")[1], 16)]
    store.put(table.slice(0, 10), "from there")
    session = store.session("s")
    session.put({"any": "thing"}, "o")
    print(json.dumps([type(store).__name__, store.mapped, where[0][1], where[0][5], table.num_rows,
                      session.get("o").value(), session.mapped]))
"""


@pytest.mark.needs("root", "unshare")
@pytest.mark.req("GW-4", "FAIL-1")
def test_another_pid_namespace_maps_what_it_gets(store: fs.Store, socket_path: str) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", CLIENT]
    done = subprocess.run([*command, f"unix://{socket_path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kind, mapped, mode, file, rows, value, also = json.loads(done.stdout)
    assert (kind, mapped, mode, rows, value, also) == (
        "RemoteStore",
        True,
        "r--s",
        ROWS,
        {"any": "thing"},
        True,
    )
    assert file.endswith("/arena")
    assert store.get("from there").num_rows == 10


@pytest.mark.req("GW-4")
def test_who_may_write_here_becomes_a_client(store: fs.Store, socket_path: str) -> None:
    with fs.connect(f"unix://{socket_path}") as here:
        assert type(here) is fs.Store
        assert here.get("t").num_rows == ROWS


@pytest.mark.req("GW-4", "GW-7")
def test_spilled_objects_are_fetched_instead(store: fs.Store, socket_path: str, tmp_path: Path) -> None:
    store.set_spill(str(tmp_path))
    store.spill("t")
    assert store.stat("t").state == "spilled"
    from flightstore.remote.mediated import Mapping

    mapping = Mapping(f"{socket_path}.map")
    handle = mapping.get(lambda object_id: None, "t")  # type: ignore[arg-type, return-value]
    assert handle is None
    with fs.connect(f"unix://{socket_path}", map=False) as fetching:
        assert not fetching.mapped
        assert fetching.get("t").to_arrow().equals(pa.table({"n": range(ROWS)}))
