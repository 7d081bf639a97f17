"""What a Ray driver does in the tests of from_ray: imported there by its path."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import numpy as np
import ray
import ray.data

import flightstore as fs
from flightstore.connectors.ray import deploy, from_ray, from_ray_dataset
from flightstore.connectors.ray.keepers import Keeper
from flightstore.connectors.ray.keeping import NAMESPACE, keep
from flightstore.connectors.ray.memory import NotMappable, buffers_of, descriptor_of, place_of
from tests.connectors.ray_values import same, until, value_of

OTHER = {"other": 1}
MIB = 1 << 20
HERE = {"node:127.0.0.1": 0.001}

kept: dict[str, Any] = {}
"""What the driver holds between two calls."""


def keepers(path: str) -> list[dict[str, Any]]:
    """What the keepers of a store say of themselves."""
    found = []
    for one in ray.util.list_named_actors(all_namespaces=True):
        if one["namespace"] == NAMESPACE and one["name"].startswith("keeper-"):
            with contextlib.suppress(ray.exceptions.RayActorError, ValueError):  # it ends just now
                found.append(ray.get(ray.get_actor(one["name"], namespace=NAMESPACE).status.remote()))
    return [one for one in found if one["store"] == path]


def take(path: str, kind: str, nbytes: int, name: str, copy: bool | None = None) -> dict[str, Any]:
    """A value of Ray's, taken into the store; the reference stays here."""
    ref = kept[name] = ray.put(value_of(kind, nbytes))
    with fs.connect(path) as store:
        before = store.stats().used_bytes
        obj = from_ray(ref, store=store, name=name, copy=copy)
        return {
            "kind": obj.kind,
            "borrowed": obj.borrowed,
            "metadata": obj.metadata,
            "grown": store.stats().used_bytes - before,
            "loans": [(loan.path, loan.length, len(loan.keepers)) for loan in store.loans()],
        }


def take_a_gibibyte(path: str, kind: str, nbytes: int) -> dict[str, Any]:
    """How much the whole memory file system grows, once keepers and store are there."""
    ref = ray.put(value_of(kind, nbytes))
    with fs.connect(path) as store:
        from_ray(ray.put(value_of(kind, MIB)), store=store, name="small")
        before = os.statvfs(path)
        obj = from_ray(ref, store=store, name=kind)
        after = os.statvfs(path)
        grown = (before.f_bfree - after.f_bfree) * after.f_frsize
        return {"borrowed": obj.borrowed, "nbytes": obj.nbytes, "grown": grown}


def take_never(path: str, kind: str, nbytes: int) -> str:
    """What is said where nothing may be copied, and nothing can be borrowed."""
    with fs.connect(path) as store:
        try:
            from_ray(ray.put(value_of(kind, nbytes)), store=store, copy=False)
        except fs.NotBorrowable as error:
            return str(error)
    return "borrowed"


def forget(name: str) -> None:
    """Drop the reference that the driver holds."""
    del kept[name]


def fits(nbytes: int) -> bool:
    """Whether Ray has that much memory left on this node: what does not fit goes to a file on disk."""
    found = ray.get(ray.put(np.zeros(nbytes, np.uint8)))
    try:
        place_of(buffers_of(found))
    except NotMappable:
        return False
    return True


def fits_at_last(nbytes: int) -> bool:
    """Whether it has soon."""
    return bool(until(lambda: fits(nbytes)))


def press(times: int, nbytes: int) -> int:
    """Many later puts, all of them held: Ray spills."""
    kept["pressure"] = [ray.put(np.full(nbytes, number, np.uint8)) for number in range(times)]
    return sum(int(ray.get(ref)[0]) for ref in kept["pressure"])


def relieve() -> None:
    """Let them go."""
    del kept["pressure"]


def places_held(path: str, wanted: int) -> list[dict[str, Any]]:
    """The keepers of a store, once each holds so many places."""
    return list(
        until(lambda: (found := keepers(path)) and all(one["places"] == wanted for one in found) and found)
    )


def kill_keeper(path: str) -> int:
    """One of a store, as ``kill -9``; its process is gone then."""
    pids = [one["pid"] for one in keepers(path)][:1]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    return len(pids)


def lend_and_die(path: str, nbytes: int, rounds: int, read: str, lost: str) -> None:
    """Lend, kill both keepers at once, and have Ray use the memory for something else; again and again.

    Files appear at `read` and `lost` when the reader has read a value, and missed one: neither the first
    keepers' death nor the end comes before that, however slow the reader is.
    """
    with fs.connect(path) as store:
        for number in range(rounds):
            ref = ray.put(np.full(nbytes // 8, number))
            assert from_ray(ref, store=store, name="lent").borrowed
            del ref
            until(lambda: os.path.exists(read))
            for one in keepers(path):
                os.kill(one["pid"], signal.SIGKILL)
            for other in range(10):
                ray.get(ray.put(np.full(nbytes // 8, 1000 + other)))
        until(lambda: os.path.exists(lost))


def raylets() -> list[int]:
    """Ray's own processes that hold its memory, in this network."""
    here = os.stat("/proc/self/ns/net").st_ino
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/comm") as file:
                    if file.read().strip() == "raylet" and os.stat(f"/proc/{entry}/ns/net").st_ino == here:
                        found.append(int(entry))
            except OSError:
                continue
    return found


def on_another_node(path: str, nbytes: int) -> dict[str, Any]:
    """Borrowed there, in a store of that node, from a value that was put here."""
    ref = ray.put(value_of("table", nbytes))

    @ray.remote(resources=OTHER)
    def work(refs: list[Any], where: str) -> dict[str, Any]:
        with fs.connect(where, capacity="32MiB") as store:
            obj = from_ray(refs[0], store=store)
            found = {
                "borrowed": obj.borrowed,
                "same": same("table", nbytes, obj.to_arrow()),
                "used": store.stats().used_bytes,
            }
            del obj
            store.destroy()
        return found

    return dict(ray.get(work.remote([ref], path)))


def from_another_node(path: str, nbytes: int) -> dict[str, Any]:
    """A borrowed object's handle goes to the other node, where it is read through the gateway."""
    with fs.connect(path) as store, deploy(path, capacity="64MiB") as deployment:
        obj = from_ray(ray.put(value_of("table", nbytes)), store=store, name="lent")

        @ray.remote(resources=OTHER)
        def read(found: Any) -> bool:
            return same("table", nbytes, found.to_arrow())

        here = ray.get_runtime_context().get_node_id()
        with fs.connect(deployment.urls[here], map=False) as far:
            sent = from_ray(ray.put(value_of("table", nbytes)), store=far, name="sent")
            rows = from_ray_dataset(ray.data.range(1000, override_num_blocks=2), store=far, name="rows")
            found = {"rows": rows.num_rows, "reason": sent.metadata["ray"]["reason"]}
        return {"borrowed": obj.borrowed, "same": ray.get(read.remote(obj)), **found}


def from_a_task(path: str, nbytes: int) -> dict[str, Any]:
    """What a task makes and returns, taken by another task."""

    @ray.remote(resources=HERE)
    def make() -> Any:
        return value_of("table", nbytes)

    @ray.remote(resources=HERE)
    def work(refs: list[Any], where: str) -> Any:
        with fs.connect(where) as store:
            return from_ray(refs[0], store=store, name="of a task")

    obj = ray.get(work.remote([make.remote()], path))
    return {"borrowed": obj.borrowed, "same": same("table", nbytes, obj.to_arrow())}


def in_scopes(path: str, nbytes: int) -> dict[str, Any]:
    """Borrowed in a batch, and in a session; both end, and nobody deletes anything."""
    with fs.connect(path) as store:
        with store.batch():
            first = from_ray(ray.put(value_of("table", nbytes)), store=store, name="of a batch")
            seen = [first.borrowed, store.contains("of a batch")]
            del first
        session = store.session("of Ray")
        second = from_ray(ray.put(value_of("array", nbytes)), store=session, name="of a session")
        seen += [second.borrowed, session.contains("of a session"), store.contains("of a session")]
        held = [one["places"] for one in keepers(path)]
        del second
        session.end()
        places_held(path, 0)
        return {"seen": seen, "held": max(held), "left": store.contains("of a batch"), "loans": store.loans()}


def destroyed(path: str, nbytes: int) -> dict[str, Any]:
    """A store that is destroyed while it borrows, and one that is made anew at the same path."""
    ref = ray.put(value_of("table", nbytes))
    with fs.connect(path, capacity="32MiB") as store:
        from_ray(ref, store=store, name="lent")
        held = [one["places"] for one in keepers(path)]
        store.destroy()
    places_held(path, 0)
    with fs.connect(path, capacity="32MiB") as store:
        again = from_ray(ref, store=store, name="lent")
        found = {"held": held, "borrowed": again.borrowed, "same": same("table", nbytes, again.to_arrow())}
        del again
        store.destroy()
    return found


def from_dataset(path: str, rows: int, blocks: int) -> dict[str, Any]:
    """A dataset's blocks, borrowed."""
    dataset = ray.data.range(rows, override_num_blocks=blocks)
    with fs.connect(path) as store:
        obj = from_ray_dataset(dataset, store=store, name="dataset")
        table = obj.to_arrow()
        return {
            "borrowed": obj.borrowed,
            "metadata": obj.metadata,
            "chunks": table.column("id").num_chunks,
            "sum": int(np.asarray(table["id"]).sum()),
            "rows": table.num_rows,
            "objects": store.stats().objects,
        }


def idle_keeper(path: str) -> str:
    """How a keeper that holds nothing ended, as Ray tells it; its process is gone then."""
    made = ray.remote(Keeper).options(num_cpus=0, resources=HERE).remote(path, 0.1)
    pids = set()

    def ended() -> str:
        try:
            pids.add(ray.get(made.status.remote())["pid"])
        except ray.exceptions.ActorDiedError as error:  # perhaps before it was asked at all
            return str(error)
        except ray.exceptions.RayActorError:
            pass
        return ""

    how = str(until(ended))
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    return how


def asker_died(path: str, nbytes: int) -> dict[str, Any]:
    """Somebody has the keepers hold a value, and dies before there is a loan."""

    @ray.remote(max_retries=0, resources=HERE)
    def ask(refs: list[Any], where: str) -> None:
        place = place_of(buffers_of(ray.get(refs[0])))
        keep(refs[0], where, place, descriptor_of(place))
        os.kill(os.getpid(), signal.SIGKILL)

    ref = ray.put(value_of("table", nbytes))
    with contextlib.suppress(ray.exceptions.WorkerCrashedError):
        ray.get(ask.remote([ref], path))
    return {"held": [one["places"] for one in places_held(path, 0)]}
