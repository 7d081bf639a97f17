"""Ray's object store. Other processes are actors; objects go when nothing refers to them any more.

Ray's servers listen on every interface, so the host calls `enter_private_network` before Ray is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec import Codec
from processes import Commanded, descendants

from stores.base import Backend, Factory, Side
from stores.loopback import enter_private_network

CPUS = 2


class RaySide(Side):
    """A driver or an actor: either may put and get. What it has put lives as long as its reference here."""

    def __init__(self, codec: Codec) -> None:
        import ray

        self.codec = codec
        self._ray = ray
        self._refs: dict[str, Any] = {}

    def put(self, name: str, value: Any) -> None:
        self._refs[name] = self._ray.put(value)

    def token(self, name: str) -> Any:
        return self._refs[name]

    def get(self, token: Any) -> Any:
        return self._ray.get(token)

    def delete(self, name: str) -> None:
        del self._refs[name]

    def close(self) -> None:
        self._refs.clear()


class Actor:
    """The class that Ray runs in another process."""

    def __init__(self, worker: Callable[..., Any], factory: Factory) -> None:
        self._worker = worker(*factory)

    def run(self, method: str, args: tuple[Any, ...]) -> Any:
        """Call a method of the worker. References inside `args` arrive as references."""
        return getattr(self._worker, method)(*args)

    def pid(self) -> int:
        """The actor's process."""
        return os.getpid()


class ActorHelper(Commanded):
    """Commands an actor as others command a helper."""

    def __init__(self, ray: Any, worker: Callable[..., Any], factory: Factory) -> None:
        self._ray = ray
        self._actor = ray.remote(num_cpus=0)(Actor).remote(worker, factory)
        self._pid: int = ray.get(self._actor.pid.remote())
        self._pending: Any = None

    @property
    def pid(self) -> int:
        return self._pid

    def begin(self, method: str, *args: Any) -> None:
        self._pending = self._actor.run.remote(method, args)

    def result(self) -> Any:
        pending, self._pending = self._pending, None
        return self._ray.get(pending)

    def close(self) -> None:
        self._ray.kill(self._actor)


class Ray(Backend):
    """One node for all workloads."""

    label = "Ray"
    libraries = ("ray", "pandas")

    def __init__(self, scratch: Path, work: Path, room_bytes: int) -> None:
        super().__init__(scratch, work, room_bytes)
        enter_private_network()
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where the actors find us
        import ray

        self._ray = ray
        self._start()

    def _start(self) -> None:
        self._ray.init(
            num_cpus=CPUS,
            object_store_memory=self.room_bytes,
            include_dashboard=False,
            _temp_dir=str(self.work),
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
        )

    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        return (RaySide, codec)

    def helper(self, worker: Callable[..., Any], factory: Factory) -> ActorHelper:
        return ActorHelper(self._ray, worker, factory)

    def restart(self) -> None:
        self._ray.shutdown()
        self._start()

    def server_pids(self) -> list[int]:
        return descendants(os.getpid())

    def close(self) -> None:
        self._ray.shutdown()
