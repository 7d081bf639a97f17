"""What a Ray driver does in the tests of handles, gateways and datasets: imported there by its path."""

from __future__ import annotations

import os
import pickle
import signal
import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray

import flightstore as fs
from flightstore.connectors.ray import deploy, register, to_ray, to_ray_dataset
from tests.connectors.ray_values import until

OTHER = {"other": 1}
"""A resource of the second node alone."""
HERE = {"node:127.0.0.1": 0.001}
"""One of the first node."""


def table(rows: int) -> pa.Table:
    """Some rows, known to both ends."""
    return pa.table({"n": np.arange(rows), "s": [f"row {number % 7}" for number in range(rows)]})


def wait_for_nodes(count: int) -> dict[str, str]:
    """Node ids by address, once so many are there."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        alive = [node for node in ray.nodes() if node["Alive"]]
        if len(alive) == count:
            return {node["NodeManagerAddress"]: node["NodeID"] for node in alive}
        time.sleep(0.05)
    raise TimeoutError("the nodes did not come")


def used_by_ray() -> int:
    """Bytes of the cluster's object stores that are in use."""
    total = ray.cluster_resources().get("object_store_memory", 0.0)
    return int(total - ray.available_resources().get("object_store_memory", 0.0))


@ray.remote
def described(obj: Any) -> dict[str, Any]:
    """What a task finds when it gets an object."""
    value = obj.to_arrow()
    address = value.column("n").chunk(0).buffers()[1].address
    mapped = ""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if start <= address < end:
                mapped = line.split(maxsplit=5)[5].strip() if len(line.split()) > 5 else ""
    return {
        "sum": int(np.asarray(value["n"]).sum()),
        "rows": obj.num_rows,
        "mapped": mapped,
        "node": ray.get_runtime_context().get_node_id(),
        "seen": os.path.exists(mapped) if mapped else False,
    }


def here(path: str) -> list[dict[str, Any]]:
    """An object handed to tasks of this node in all ways there are."""
    near = described.options(resources=HERE)
    with fs.connect(path) as store:
        obj = store.get(store.put(table(1000), "t"))

        @ray.remote(num_cpus=0, resources=HERE)
        def in_closure() -> Any:
            return ray.get(near.remote(obj))

        @ray.remote(num_cpus=0, resources=HERE)
        def in_list(objects: list[Any]) -> Any:
            return ray.get(near.remote(objects[0]))

        @ray.remote(num_cpus=0, resources=HERE)
        class Holder:
            def __init__(self, held: Any) -> None:
                self.held = held

            def describe(self) -> Any:
                return ray.get(near.remote(self.held))

        holder = Holder.remote(obj)
        found = ray.get(
            [
                near.remote(obj),
                in_closure.remote(),
                in_list.remote([obj]),
                near.remote(ray.put(obj)),
                near.remote(to_ray(obj)),
                holder.describe.remote(),
            ]
        )
        ray.kill(holder)
        return found


def how_much_moves(path: str, rows: int) -> dict[str, int]:
    """What a large object's handle takes, in bytes."""
    register()
    with fs.connect(path) as store:
        obj = store.get(store.put(np.arange(rows), "large"))

        @ray.remote(resources=HERE)
        def total(array: Any) -> tuple[int, int]:
            before = _received()
            return int(array.to_numpy().sum()), _received() - before

        before = _received()
        found, inside = ray.get(total.remote(obj))
        after = _received()
        return {
            "pickled": len(ray.cloudpickle.dumps(obj)),
            "plainly": len(pickle.dumps(obj)),
            "sum": found,
            "over the network": after - before + inside,
            "nbytes": obj.nbytes,
        }


def _received() -> int:
    """Bytes that came over this network's loopback so far."""
    with open("/proc/self/net/dev") as file:
        return next(int(line.split()[1]) for line in file if line.strip().startswith("lo:"))


def there_without_a_gateway(path: str) -> str:
    """What a task on the other node says that gets an object nobody serves."""
    register()
    with fs.connect(path) as store:
        obj = store.get(store.put(table(10), "unserved"))
        try:
            ray.get(described.options(resources=OTHER).remote(obj))
        except ray.exceptions.RayTaskError as error:
            return str(error)
        except ray.exceptions.RayError as error:
            return str(error)
        return "it came"


def deployed(path: str) -> dict[str, Any]:
    """Gateways on both nodes: what they say, and what tasks on the other node get through them."""
    nodes = wait_for_nodes(2)
    with fs.connect(path) as store, deploy(path, capacity="64MiB") as deployment:
        again = deploy(path)
        obj = store.get(store.put(table(200_000), "served"))
        found = ray.get(described.options(resources=OTHER).remote(obj))
        listed = ray.get(described.options(resources=OTHER).remote(to_ray(obj)))

        @ray.remote(resources=OTHER)
        def made_there(where: str) -> Any:
            with fs.connect(where) as own:
                return own.get(own.put(table(50), "made there"))

        back = ray.get(made_there.remote(path))
        session = store.session("of a session")
        in_session = session.get(session.put(table(20), "scoped"))
        scoped = ray.get(described.options(resources=OTHER).remote(in_session))
        fetched = {"rows": back.num_rows, "id": str(back.id)}
        pids = {node: one["pid"] for node, one in deployment.addresses.items()}
        same = again.urls == deployment.urls
        urls = deployment.urls
        killed = deployment.addresses[nodes["127.0.0.1"]]["pid"]
        os.kill(killed, signal.SIGKILL)  # its actor starts another
        revived = ray.get(described.options(resources=OTHER).remote(obj))
        remote = fs.connect(urls[nodes["127.0.0.2"]])
        names = [info.name for info in remote.list()]
        remote.close()
        del back
    return {
        "nodes": nodes,
        "urls": urls,
        "same": same,
        "found": found,
        "listed": listed,
        "scoped": scoped,
        "fetched": fetched,
        "names": names,
        "pids": pids,
        "revived": revived,
    }


def made_by_a_worker(path: str) -> dict[str, Any]:
    """What a worker returns that no handle has arrived in, read on the other node."""
    nodes = wait_for_nodes(2)
    with fs.connect(path), deploy(path, nodes=[nodes["127.0.0.1"]]):

        @ray.remote(resources=HERE)
        def make(where: str) -> Any:
            with fs.connect(where) as store:
                return store.get(store.put(table(70), "made by a worker"))

        return dict(ray.get(described.options(resources=OTHER).remote(make.remote(path))))


def without_its_actor(path: str) -> int:
    """The gateway of an actor that is killed; it ends by itself."""
    node = wait_for_nodes(2)["127.0.0.1"]
    with deploy(path, nodes=[node]) as deployment:
        pid = int(deployment.addresses[node]["pid"])
        with open(f"/proc/{pid}/stat") as file:
            actor = int(file.read().rpartition(")")[2].split()[1])
        os.kill(actor, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{pid}"))
    return pid


def refused(path: str) -> list[str]:
    """What deploy says to what it cannot do."""
    said = []
    for options in ({"host": "10.1.2.3"}, {"nodes": ["no such node"]}, {"tls_cert": "/nowhere"}):
        try:
            deploy(path, **options).stop()
        except fs.FlightStoreError as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def with_a_batch(path: str) -> dict[str, Any]:
    """A task joins a batch by its token; what it puts goes with the batch."""
    with fs.connect(path) as store:
        batch = store.new_batch("of tasks")

        @ray.remote(resources=HERE)
        def work(where: str, token: str) -> Any:
            own = fs.connect(where)
            joined = own.join_batch(token)
            with joined.activate():
                own.put(b"bytes", "made in a task")
            return joined.number

        number = ray.get(work.remote(path, batch.token))

        @ray.remote(resources=HERE)
        def work_too(where: str, travelled: Any) -> Any:
            with travelled.activate():
                travelled.store.put(b"bytes", "made in another")

        ray.get(work_too.remote(path, batch))
        during = sorted(str(info.name) for info in store.list("made*"))
        batch.end()
        return {"same": number == batch.number, "during": during, "after": len(store.list("made*"))}


def datasets(path: str) -> dict[str, Any]:
    """A stored table as a dataset, read by tasks that say where what they read lies."""
    import ray.data

    with fs.connect(path) as store:
        parts = [store.get(store.put(table(rows))) for rows in (1000, 2000, 500)]
        obj = store.concat(parts, "chunked")
        dataset = to_ray_dataset(obj)

        def look(block: pa.Table) -> pa.Table:
            address = block.column("n").chunk(0).buffers()[1].address
            with open("/proc/self/maps") as maps:
                for line in maps:
                    start, end = (int(text, 16) for text in line.split()[0].split("-"))
                    if start <= address < end:
                        mapped = [*line.split(maxsplit=5), ""][5].strip()
            return pa.table({"rows": [block.num_rows], "mapped": [mapped], "batch": [_sum(block)]})

        seen = dataset.map_batches(look, batch_format="pyarrow", batch_size=None).take_all()
        whole = pa.concat_tables(ray.get(to_ray_dataset(obj).to_arrow_refs()))
        same = whole.sort_by("n").equals(obj.to_arrow().combine_chunks().sort_by("n"))
        return {"blocks": dataset.materialize().num_blocks(), "seen": seen, "same": same}


def _sum(block: pa.Table) -> int:
    return int(np.asarray(block["n"]).sum())
