"""Stored objects on their way through a real Ray cluster of two nodes, gateways on its nodes, Ray Data."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

import flightstore as fs

from .raycluster import Driver, RayCluster

pytestmark = [pytest.mark.needs("root", "network", "mount"), pytest.mark.slow]
ROWS = 2_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def driver(cluster: RayCluster) -> Iterator[Driver]:
    with cluster.driver() as driver:
        driver.run("ray_handles.wait_for_nodes", 2)
        yield driver


@pytest.mark.req("O-5")
def test_a_task_on_the_same_node_maps_what_it_is_given(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="32MiB"):
        found = driver.run("ray_handles.here", str(store_dir))
    assert len(found) == 6
    for one in found:
        assert one["sum"] == 999 * 1000 // 2
        assert one["mapped"] == f"{store_dir}/arena"


@pytest.mark.req("O-5")
def test_no_bytes_move_on_the_same_node(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="64MiB") as store:
        moved = driver.run("ray_handles.how_much_moves", str(store_dir), ROWS)
        used = store.stats().used_bytes
    assert moved["sum"] == ROWS * (ROWS - 1) // 2
    assert moved["nbytes"] == ROWS * 8
    assert moved["pickled"] < 1000
    assert moved["plainly"] < 300
    assert moved["over the network"] < moved["nbytes"] // 8
    assert used < moved["nbytes"] + (1 << 20)


@pytest.mark.req("O-5", "API-14")
def test_a_task_on_another_node_without_a_gateway_says_so(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="32MiB"):
        said = driver.run("ray_handles.there_without_a_gateway", str(store_dir))
    assert f"is in the store {store_dir} of node" in said
    assert "that node has no gateway" in said


@pytest.mark.req("O-5", "GW-7")
def test_gateways_on_all_nodes_serve_tasks_of_the_others(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="64MiB"):
        came = driver.run("ray_handles.deployed", str(store_dir))
    first, second = came["nodes"]["127.0.0.1"], came["nodes"]["127.0.0.2"]
    assert came["urls"][first].startswith("grpc+tcp://127.0.0.1:")
    assert came["urls"][second].startswith("grpc+tcp://127.0.0.2:")
    assert came["same"]
    for found in (came["found"], came["listed"]):
        assert found["sum"] == 199_999 * 200_000 // 2
        assert found["node"] == second
        assert not found["mapped"].endswith("/arena")
    assert came["revived"]["sum"] == came["found"]["sum"]
    assert came["scoped"]["rows"] == 20
    assert came["fetched"]["rows"] == 50
    assert came["names"] == ["made there"]
    for pid in came["pids"].values():  # they are stopped
        assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.req("O-5")
def test_workers_register_by_a_hook(cluster: RayCluster, store_dir: str) -> None:
    with (
        fs.connect(store_dir, capacity="32MiB"),
        cluster.driver(hook="flightstore.connectors.ray.register") as driver,
    ):
        assert driver.run("ray_handles.made_by_a_worker", store_dir)["rows"] == 70


@pytest.mark.req("GW-8")
def test_a_gateway_ends_with_its_actor(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="32MiB"):
        assert driver.run("ray_handles.without_its_actor", str(store_dir))


@pytest.mark.req("GW-5")
def test_what_cannot_be_deployed_is_refused(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="32MiB"):
        beyond, unknown, broken = driver.run("ray_handles.refused", str(store_dir))
    assert beyond.startswith("NotAllowed: a gateway on 10.1.2.3 can be reached")
    assert unknown.startswith("InvalidArgument: no node no such node")
    assert broken.startswith("GatewayUnreachable: `flightstore serve` ended with status")


@pytest.mark.req("BAT-5")
def test_a_batch_travels_to_tasks_by_its_token(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="32MiB"):
        came = driver.run("ray_handles.with_a_batch", str(store_dir))
    assert came == {"same": True, "during": ["made in a task", "made in another"], "after": 0}


@pytest.mark.req("O-5")
def test_a_stored_table_is_a_dataset_with_a_block_for_each_chunk(driver: Driver, store_dir: str) -> None:
    with fs.connect(store_dir, capacity="32MiB"):
        came = driver.run("ray_handles.datasets", str(store_dir))
    assert came["same"]
    assert came["blocks"] == 3
    assert sorted(row["rows"] for row in came["seen"]) == [500, 1000, 2000]
    sums = [int(np.arange(rows).sum()) for rows in (500, 1000, 2000)]
    assert sorted(row["batch"] for row in came["seen"]) == sums
    assert {row["mapped"] for row in came["seen"]} == {f"{store_dir}/arena"}
