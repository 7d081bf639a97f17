"""Stores in environments of their own: installed, hosted, and left out by name where that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SIZE_BYTES = 1 << 20


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import processes

    yield processes
    sys.modules.pop("processes")


def test_a_hosted_store_measures_and_ends_with_its_pipe(
    processes: ModuleType, store_dir: Path, tmp_path: Path
) -> None:
    store_dir.mkdir()
    options = ["file", str(store_dir), str(tmp_path), str(SIZE_BYTES), "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    host = processes.Host(Path(sys.executable), options, tmp_path / "log", environment)
    with host:
        host.result()
        assert "pyarrow" in host.call("versions")
        for key in ("bytes", "table"):
            host.call("open", key)
            found = host.call("run")
            assert {"put", "get", "get again"} <= set(found)
            assert all(value > 0 for value in found.values())
            helpers = processes.descendants(host.pid)
            assert helpers
            host.call("finish")
        host.call("open", "bytes")  # and is closed while that is at hand
        with pytest.raises(RuntimeError, match="KeyError"):
            host.call("open", "no such workload")
    assert not list(store_dir.iterdir())
    assert not any(Path(f"/proc/{pid}").exists() for pid in (host.pid, *helpers))


def test_a_peer_that_cannot_be_installed_is_left_out_by_name(tmp_path: Path) -> None:
    memory, environments = tmp_path / "memory", tmp_path / "environments"
    memory.mkdir()
    command = [sys.executable, str(BENCHMARKS / "local.py"), "--quick", "--size", "1MiB", "--only", "bytes"]
    command += ["--dir", str(memory), "--peers", "iceoryx2", "--environments", str(environments)]
    unreachable = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(memory), "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [*command, "--json", "-"],
        env=os.environ | unreachable | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["group"] for row in found["rows"]] == ["bytes"] * 4
    (reason,) = found["left_out"]
    assert reason.startswith("iceoryx2: cannot be installed: ERROR: No matching distribution")
    assert reason in done.stderr


def test_a_private_network_has_loopback_and_nothing_else() -> None:
    code = """
import socket
from stores.loopback import enter_private_network
try:
    enter_private_network()
except PermissionError as error:
    print(error)
else:
    with socket.create_server(("", 0)) as server, socket.create_connection(server.getsockname()) as client:
        print([name for _, name in socket.if_nameindex()], client.getpeername()[0])
"""
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['lo'] 127.0.0.1" or "no network namespace" in done.stdout
