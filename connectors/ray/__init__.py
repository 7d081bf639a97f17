"""Ray: objects handed over without a copy, both ways, and a gateway on every node.

``from_ray`` makes a stored object of what a reference stands for. It is *borrowed* where it can be: it
refers to Ray's own memory, which two actors hold for as long as the store needs it. ``to_ray``, and Ray's
serialisation once `register` was called, send stored objects as handles: a task that gets one maps it, or
fetches it if it runs on another node.

- memory: where a value of Ray's lies; keepers, keeping: the actors that hold it there; borrowing: from_ray
- closing: in which order a keeper that dies lets go of things
- handles: stored objects on their way; deploying: a gateway on every node
- datasets: Ray Data, a chunk for each block

Nothing here imports Ray before it is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flightstore.objects.extras import require

if TYPE_CHECKING:
    from flightstore import Object, Store
    from flightstore.connectors.ray.deploying import Deployment

__all__ = ["deploy", "from_ray", "from_ray_dataset", "register", "to_ray", "to_ray_dataset"]


def from_ray(
    ref: Any,
    *,
    store: Store | None = None,
    name: str | None = None,
    copy: bool | None = None,
    timeout: float | None = None,
) -> Object:
    """A stored object of what a Ray reference stands for, without a copy wherever that is possible.

    An Arrow table, NumPy array or pandas frame that lies in Ray's memory is *borrowed*: ``obj.borrowed`` is
    true, readers in any process map Ray's memory, and nothing is copied. It is as good as its owner: two
    actors on this node hold the memory, and when both are dead, or Ray's node is stopped, a later get raises
    ObjectLost. Who holds a view then may see other bytes from that moment on. ``obj.persist()`` copies
    it into the store, once, and ends that. When the object is deleted and its last reader gone, Ray gets
    its memory back.

    A value on another node is brought to this one first, by Ray.

    Args:
        ref: A ``ray.ObjectRef``.
        store: Where to; None for the user's default store.
        name: Its name.
        copy: None borrows where it can and else copies once, with the reason in the object's metadata
            (``{"ray": {"borrowed": False, "reason": ...}}``). True copies. False borrows or raises.
        timeout: How long to wait for the value, seconds; None for ever.

    Raises:
        NotBorrowable: `copy` is False, and it cannot be; says why.
        NotStorable: the value cannot be stored.
        StoreFull: no room for a copy.
        MissingExtra: Ray is not installed.
        Exception: what ``ray.get`` raises.
    """
    require("ray", "from_ray()")
    from flightstore.connectors.ray.borrowing import connected, take

    with connected(store) as into:
        return take(ref, into, name, copy, timeout)


def to_ray(obj: Object) -> Any:
    """A ``ray.ObjectRef`` of a stored object: who gets it has the object, mapped or fetched, never its bytes.

    The reference holds nothing in the store: keep `obj`, or the object may be deleted before it is
    got; then getting it raises ObjectNotFound.

    Raises:
        MissingExtra: Ray is not installed.
    """
    ray = require("ray", "to_ray()")
    register()
    return ray.put(obj)


def register() -> None:
    """Have Ray send stored objects as handles that know their node's gateway, from this process on.

    Arguments of tasks and actors, what their closures hold, and what they return. On one node this works
    without: what is registered is how they are found from *other* nodes, by the gateways of `deploy`. A
    process that a handle arrived in is registered already; for all workers, give
    ``ray.init(runtime_env={"worker_process_setup_hook": register})``. Idempotent.

    Raises:
        MissingExtra: Ray is not installed.
    """
    require("ray", "register()")
    from flightstore.connectors.ray.handles import register_handles

    register_handles()


def deploy(
    store: str | os.PathLike[str] | None = None,
    *,
    nodes: Sequence[str] | None = None,
    host: str | None = None,
    **options: Any,
) -> Deployment:
    """Start a gateway on every node of the Ray cluster, and wait until all of them serve.

    Each is a detached actor pinned to its node. It outlives this process; `stop` of what is returned, or of
    what another call returns, ends it. A node that has one keeps it.

    Args:
        store: Directory of the store to serve, the same on each node; None for the default one there. It is
            made where it does not exist.
        nodes: Ids of the nodes; None for all that are alive.
        host: Where to listen; None for each node's own address. Ports are chosen.
        options: Settings of `flightstore serve`, by name: ``tls_cert``, ``tls_key``, ``tokens``,
            ``capacity``, ... Files are looked for on each node.

    Returns:
        The gateways: ``.urls`` by node id, and ``.stop()``.

    Raises:
        NotAllowed: it would listen beyond loopback without TLS and a credential.
        GatewayUnreachable: a gateway did not start; then none of the new ones is left.
        InvalidArgument: no such node, or a gateway there serves another store.
        MissingExtra: Ray is not installed.
    """
    require("ray", "deploy()")
    from flightstore.connectors.ray.deploying import begin

    deployment = begin(os.fspath(store) if store is not None else None, nodes, host, options)
    register()
    return deployment


def from_ray_dataset(
    dataset: Any, *, store: Store | None = None, name: str | None = None, copy: bool | None = None
) -> Object:
    """A stored table of a Ray dataset, a chunk for each block, each borrowed or copied as by `from_ray`.

    Blocks on other nodes are brought to this one first. The dataset is executed, unless it was.

    Raises:
        NotConvertible: its blocks are no tables, or it has none.
        NotBorrowable, NotStorable, StoreFull, MissingExtra: as `from_ray`.
    """
    require("ray", "from_ray_dataset()")
    from flightstore.connectors.ray.borrowing import connected
    from flightstore.connectors.ray.datasets import take_dataset

    with connected(store) as into:
        return take_dataset(dataset, into, name, copy)


def to_ray_dataset(obj: Object) -> Any:
    """A ``ray.data.Dataset`` of a stored table, a block for each of its chunks.

    Nothing is read before the dataset is. A task that reads a block gets the object's handle: it maps the
    object on the store's node, where it runs if it can, and fetches it elsewhere. What Ray Data fuses with
    the reading (``map_batches``, say) works on the mapped memory; what comes out of it is Ray's.

    Keep the object, or its name, as long as the dataset is used: a handle holds nothing.

    Raises:
        NotConvertible: the object is no table.
        MissingExtra: Ray is not installed.
    """
    require("ray", "to_ray_dataset()")
    from flightstore.connectors.ray.datasets import give_dataset

    register()
    return give_dataset(obj)
