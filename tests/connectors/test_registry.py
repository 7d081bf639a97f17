"""Connectors of third parties: registered in the process, or announced by an installed distribution."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors import Connector, register, unregister

pytestmark = pytest.mark.req("TYP-4")


@dataclass
class Points:
    """What a library that we know nothing of calls a table."""

    xs: list[float]
    ys: list[float]


def build(points: Points, *, pickle: bool) -> pa.Table:
    if len(points.xs) != len(points.ys):
        raise fs.NotStorable("the points have more of one coordinate")
    return pa.table({"x": points.xs, "y": points.ys})


def resolve(obj: fs.Object, **options: Any) -> Points:
    table = pa.table(obj)
    return Points(table["x"].to_pylist(), table["y"].to_pylist())


POINTS = Connector("points", (f"{Points.__module__}.Points",), build, resolve)


@pytest.fixture
def registered() -> Iterator[None]:
    register(POINTS)
    yield
    unregister("points")


@pytest.mark.usefixtures("registered")
def test_values_are_built_and_resolved(store: fs.Store) -> None:
    points = Points([1.0, 2.0], [3.0, 4.0])
    store.put(points, "p")
    obj = store.get("p")
    assert obj.kind == "table"
    assert obj.value() == obj.to("points") == points
    assert obj.to_arrow().column_names == ["x", "y"]
    assert store.with_columns("p", {"z": [5.0, 6.0]}).value() == points


@pytest.mark.usefixtures("registered")
def test_a_builder_that_refuses_leaves_it_to_pickle_or_says_why(store: fs.Store) -> None:
    uneven = Points([1.0], [])
    assert store.get(store.put(uneven)).value() == uneven
    with pytest.raises(fs.NotStorable, match="more of one coordinate"):
        store.put(uneven, pickle=False)


@pytest.mark.usefixtures("registered")
def test_a_connector_without_reports_says_so(store: fs.Store) -> None:
    store.put(Points([], []), "p")
    with pytest.raises(fs.InvalidArgument, match="'points' makes no conversion reports"):
        store.get("p").conversion_report("points")


@pytest.mark.usefixtures("registered")
def test_one_type_has_one_connector() -> None:
    other = Connector("other", POINTS.types, build, resolve)
    with pytest.raises(fs.InvalidArgument, match="'points' takes"):
        register(other)
    unregister("points")
    register(other)
    unregister("other")


def test_without_its_connector_an_object_is_a_table_all_the_same(store: fs.Store) -> None:
    register(POINTS)
    store.put(Points([1.0], [2.0]), "p")
    unregister("points")
    obj = store.get("p")
    with pytest.raises(fs.MissingExtra, match=r"no connector 'points'.*to_arrow"):
        obj.value()
    assert obj.to_arrow().num_rows == 1
    assert store.select(obj, ["x"]).value().column_names == ["x"]


MODULE = """
    import pyarrow as pa
    from flightstore.connectors import Connector

    class Grid:
        def __init__(self, cells):
            self.cells = cells

    CONNECTOR = Connector(
        "grid",
        ("grids.Grid",),
        lambda grid, pickle: pa.table({"cell": grid.cells}),
        lambda obj, **options: Grid(pa.table(obj)["cell"].to_pylist()),
    )
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with an installed distribution that announces a connector."""
    (tmp_path / "grids.py").write_text(textwrap.dedent(MODULE))
    info = tmp_path / "grids-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grids\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flightstore.connectors]\ngrids = grids:CONNECTOR\n")
    return tmp_path


def run(site: Path, program: str) -> str:
    path = os.pathsep.join([str(site), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_connector_is_found_by_type_and_by_name(store: fs.Store, site: Path) -> None:
    run(
        site,
        f"""
        import flightstore as fs, grids, sys
        with fs.connect({store.path!r}) as store:
            store.put(grids.Grid([1, 2, 3]), "g")
        """,
    )
    told = run(
        site,
        f"""
        import flightstore as fs, sys
        with fs.connect({store.path!r}) as store:
            obj = store.get("g")
            assert "grids" not in sys.modules
            print(obj.kind, obj.value().cells)
        """,
    )
    assert told == "table [1, 2, 3]\n"


def test_an_announcement_that_is_no_connector_is_named(store: fs.Store, site: Path) -> None:
    (site / "grids.py").write_text("CONNECTOR = 3\nclass Grid: pass\n")
    told = run(
        site,
        f"""
        import flightstore as fs, grids
        with fs.connect({store.path!r}) as store:
            try:
                store.put(grids.Grid())
            except fs.InvalidArgument as error:
                print(error)
        """,
    )
    assert "'grids'" in told
    assert "int, no Connector" in told
