"""A real Ray cluster on this machine, for tests: nodes that see nothing but loopback, and drivers on them.

Ray's servers listen on every interface, so all of it lives in a network namespace that has loopback alone. A
further node has a mount namespace too, with a /dev/shm of its own: stores of this machine are not there, and
what is shared with its neighbour has to come over the network, as between two machines. Processes share one
pid namespace with the tests, so a test may map what a driver puts.

Everything that lives in the network namespace is killed, by its pid, when the cluster is left.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Driver", "DriverFailed", "RayCluster", "processes_of"]

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "ignore",
}
START_S, CALL_S = 120.0, 240.0
PRIVATE_MEMORY = 'mount -t tmpfs -o size=2g flightstore-node /dev/shm && exec "$@"'


class DriverFailed(AssertionError):
    """What a driver was told to do raised; the text is its traceback."""


class Driver:
    """A Ray driver on the first node, which calls what `run` says. The tests do without Ray."""

    def __init__(self, cluster: RayCluster, hook: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = cluster.spawn(
                sys.executable,
                __file__,
                str(theirs.fileno()),
                cluster.address,
                hook,
                pass_fds=(theirs.fileno(),),
            )
        self._link = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def run(self, function: str, *args: Any) -> Any:
        """What a function returns there: ``module.function``, of a module beside this one.

        Raises:
            DriverFailed: it raised; shows how.
        """
        self._link.send_bytes(pickle.dumps((function, args)))
        if not self._link.poll(CALL_S):
            raise DriverFailed(f"{function} did not come back within {CALL_S:.0f} s")
        kind, outcome = pickle.loads(self._link.recv_bytes())
        if kind == "raised":
            raise DriverFailed(outcome)
        return outcome

    def kill(self) -> None:
        """As ``kill -9``. Idempotent."""
        self.process.kill()
        self.process.wait()
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


class RayCluster:
    """One node or two. As a context manager it starts them, and leaves nothing of them behind.

    Attributes:
        address: Where drivers find it.
    """

    def __init__(self, *, memory_bytes: int = 96 * MIB, other_bytes: int | None = 80 * MIB) -> None:
        self._memory = (memory_bytes, other_bytes)
        self._stack = contextlib.ExitStack()
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.address = "127.0.0.1:6399"  # in a network of its own, where nobody else is

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Short: the paths of Ray's sockets lie below.
            self.folder = Path(tempfile.mkdtemp(prefix="fsray", dir="/tmp"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            holder = subprocess.Popen(
                ["unshare", "--net", sys.executable, "-c", "print(flush=True); input()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._inside = ("nsenter", "--net", f"--target={holder.pid}")
            stack.callback(_end, holder)
            assert holder.stdout is not None
            holder.stdout.readline()
            stack.callback(lambda: [process.wait() for process in self._spawned])  # killed by what comes next
            stack.callback(_kill_all, os.stat(f"/proc/{holder.pid}/ns/net").st_ino, holder.pid)
            subprocess.run([*self._inside, "ip", "link", "set", "lo", "up"], check=True, timeout=30)
            self._start_nodes()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def spawn(self, *command: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """A process in the cluster's network. What it prints goes to a file in `folder`."""
        with open(self.folder / "output", "ab") as output:
            process = subprocess.Popen(
                [*self._inside, *command],
                env={**os.environ, **QUIET},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
            )
        self._spawned.append(process)
        return process

    def driver(self, hook: str = "") -> Driver:
        """A new driver on the first node. `hook` is a function that its workers call when they begin."""
        return Driver(self, hook)

    def _start_nodes(self) -> None:
        ray = (str(Path(sys.executable).with_name("ray")), "start", "--disable-usage-stats", "--block")
        first, other = self._memory
        head = self.spawn(
            *ray,
            "--head",
            "--node-ip-address=127.0.0.1",
            "--port=6399",
            "--num-cpus=3",
            "--include-dashboard=false",
            f"--object-store-memory={first}",
            f"--temp-dir={self.folder}",
        )
        self._until_it_listens(head)
        if other is not None:
            self.spawn(
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE_MEMORY, "node"),
                *ray,
                f"--address={self.address}",
                "--node-ip-address=127.0.0.2",
                "--num-cpus=2",
                '--resources={"other": 100}',
                f"--object-store-memory={other}",
            )

    def _until_it_listens(self, head: subprocess.Popen[bytes]) -> None:
        """A server says to nobody that it listens: ask until it does."""
        end = time.monotonic() + START_S
        probe = "import socket; socket.create_connection(('127.0.0.1', 6399), 5)"
        while self.spawn(sys.executable, "-S", "-c", probe).wait():
            if head.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"Ray did not start:\n{(self.folder / 'output').read_text()}")


def processes_of(namespace: int) -> Iterator[int]:
    """The processes that live in a network namespace, by its inode number."""
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}/ns/net").st_ino == namespace:
                yield int(entry)


def _kill_all(namespace: int, spared: int) -> None:
    """Until none is left: what is killed may have begun another in between."""
    end = time.monotonic() + 30
    while left := [pid for pid in processes_of(namespace) if pid != spared and not _is_zombie(pid)]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < end, f"processes that cannot be killed: {left}"


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


# --- in the driver's process ---


def _serve(fd: int, address: str, hook: str) -> None:
    """Call what the tests say, until they are gone."""
    import ray

    environment = {"worker_process_setup_hook": hook} if hook else {}
    ray.init(address=address, runtime_env=environment, log_to_driver=False, configure_logging=False)
    link = Connection(fd)
    with contextlib.suppress(EOFError):
        while True:
            function, args = pickle.loads(link.recv_bytes())
            module, _, name = function.rpartition(".")
            try:
                found = getattr(importlib.import_module(f"tests.connectors.{module}"), name)
                answer = ("done", found(*args))
            except BaseException:
                answer = ("raised", traceback.format_exc())
            link.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    _serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
