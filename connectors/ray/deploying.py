"""A gateway on every node of a Ray cluster: one detached actor for each, which runs ``flightstore serve``.

The actor is pinned to its node and named after it, so any process of the cluster finds the gateway of a node
by the node's id. The gateway is a child of the actor that the kernel ends with it, however it ends; and a
gateway that ends takes nothing with it, since it is a client of the store like any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import flightstore
from flightstore.connectors.ray.keeping import NAMESPACE
from flightstore.errors import FlightStoreError, GatewayUnreachable, InvalidArgument

__all__ = ["Deployment", "Gateway", "addresses_of", "begin"]

_PR_SET_PDEATHSIG = 1
_STOP_S = 10.0
_DYING_S = 5.0
_ANSWER_S = 60.0


class Gateway:
    """The class of the actors: one gateway and its process."""

    def __init__(self, store: str | None, host: str, options: Mapping[str, Any]) -> None:
        tls = bool(options.get("tls_cert"))
        shown = f"[{host}]" if ":" in host else host
        listening = {
            "flight": f"grpc+{'tls' if tls else 'tcp'}://{shown}:0",
            "http": f"{'https' if tls else 'http'}://{shown}:0",
        }
        where = [store] if store else []
        flags = _flags({**listening, **options, "json": True})
        self._command = [sys.executable, "-m", "flightstore.cli", "serve", *where, *flags]
        self._process: subprocess.Popen[str] | None = None
        self._addresses: dict[str, Any] = {}

    def addresses(self, refusing: int | None = None) -> dict[str, Any]:
        """What the gateway says of itself: `store`, `pid`, and an address for each listener. Started if
        need be.

        Args:
            refusing: Process id of the gateway that refused a connection. One that is killed stops to
                listen a moment before it has ended; that is waited for.

        Raises:
            GatewayUnreachable: it ended at once.
        """
        if self._process is not None and self._process.pid == refusing:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DYING_S)
        if self._process is None or self._process.poll() is not None:
            self._start()
        return self._addresses

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=_end_with_parent,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise GatewayUnreachable(
                f"`flightstore serve` ended with status {self._process.wait()}",
                hint="its messages are in the log of the Ray actor",
            )
        self._addresses = json.loads(line)

    def stop(self) -> None:
        """End the gateway, within some seconds."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end_with_parent() -> None:
    """In the child, before the command: SIGTERM when the actor's process is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _flags(options: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            found.append(flag)
        elif value is not None and value is not False:
            found += [flag, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
    return found


class Deployment:
    """The gateways of a cluster. Leaving a ``with`` block stops them; else they outlive this process."""

    def __init__(self, actors: Mapping[str, Any], addresses: Mapping[str, Mapping[str, Any]]) -> None:
        self._actors = dict(actors)
        self.addresses = {node: dict(found) for node, found in addresses.items()}
        """What each node's gateway says of itself: ``store``, ``pid``, ``flight``, ``http``."""

    @property
    def urls(self) -> dict[str, str]:
        """The URL for :func:`flightstore.connect`, by node id."""
        return {node: str(found["flight"]) for node, found in self.addresses.items()}

    def stop(self) -> None:
        """End all gateways, in a few seconds. Stores and their objects stay. Idempotent."""
        import ray

        actors, self._actors = self._actors, {}
        stopping = [actor.stop.remote() for actor in actors.values()]
        for reply, actor in zip(stopping, actors.values(), strict=True):
            with contextlib.suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                ray.get(reply, timeout=2 * _STOP_S)  # its node is gone; or what follows ends it
            ray.kill(actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Deployment {', '.join(self.urls.values())}>"


def begin(
    store: str | None, nodes: Sequence[str] | None, host: str | None, options: Mapping[str, Any]
) -> Deployment:
    """Start what is not running yet; see :func:`flightstore.connectors.ray.deploy`."""
    import ray

    alive = {node["NodeID"]: str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]}
    wanted = list(alive if nodes is None else nodes)
    for node in wanted:
        if node not in alive:
            raise InvalidArgument(
                f"no node {node} is alive in this Ray cluster", hint="ray.nodes() lists them"
            )
        _check(host or alive[node], options)
    begun: list[str] = []
    actors = {}
    try:
        for node in wanted:
            begun += [] if _existing(node) else [node]
            actors[node] = _actor(node).remote(store, host or alive[node], dict(options))
        addresses = {node: _addresses(actor) for node, actor in actors.items()}
        for node, found in addresses.items():
            if store is not None and found["store"] != os.path.realpath(store):
                raise InvalidArgument(
                    f"the gateway of node {node} serves {found['store']}, not {store}",
                    hint="stop that deployment first",
                )
    except BaseException:
        Deployment({node: actors[node] for node in begun if node in actors}, {}).stop()
        raise
    return Deployment(actors, addresses)


def addresses_of(node: str, refusing: int | None = None) -> dict[str, Any] | None:
    """What the gateway of a node says of itself; None if it has none. `refusing`: see `Gateway.addresses`."""
    actor = _existing(node)
    return _addresses(actor, refusing) if actor is not None else None


def _existing(node: str) -> Any:
    import ray

    try:
        return ray.get_actor(_name(node), namespace=NAMESPACE)
    except ValueError:
        return None


def _addresses(actor: Any, refusing: int | None = None) -> dict[str, Any]:
    import ray

    try:
        found: dict[str, Any] = ray.get(actor.addresses.remote(refusing), timeout=_ANSWER_S)
    except ray.exceptions.RayTaskError as error:
        raise _said(error) from None
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        raise GatewayUnreachable(f"the actor of a gateway does not answer: {error}") from error
    return found


def _said(error: Any) -> BaseException:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, FlightStoreError) else GatewayUnreachable(f"a gateway failed: {error}")


def _actor(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return ray.remote(Gateway).options(
        name=_name(node),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )


def _name(node: str) -> str:
    return f"gateway-{node}"


def _check(host: str, options: Mapping[str, Any]) -> None:
    """Refuse early, and once, what each gateway would refuse."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local or options.get("insecure") or (options.get("tls_cert") and options.get("tokens")):
        return
    raise flightstore.NotAllowed(
        f"a gateway on {host} can be reached from other machines: it needs TLS and a credential",
        hint="give tls_cert=, tls_key= and tokens= (files on every node), or insecure=True in a network that"
        " is yours",
    )
