"""What is built and shipped: wheel and source archive hold what the tree holds, and run from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("flightstore/", "connectors/", "adapters/")

pytestmark = [pytest.mark.slow, pytest.mark.needs("git")]

BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # setuptools changes sys.argv
print(build_meta.build_sdist(out), build_meta.build_wheel(out))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed, without our own PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tracked_files() -> set[str]:
    """What git would clone from here, files not yet added included."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return {name for name in listing.split("\0") if name and os.path.lexists(ROOT / name)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(source archive, wheel), built in a copy of the tree so that nothing is left in it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in tracked_files():
        copy = tree / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            copy.symlink_to(os.readlink(ROOT / name))
        else:
            copy.write_bytes((ROOT / name).read_bytes())
    sdist, wheel = run(sys.executable, "-c", BUILD, out, cwd=tree).splitlines()[-1].split()
    return out / sdist, out / wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, whose dependencies are those of the environment the tests run in."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home)
    python = home / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", built[1], cwd=home)
    # Our own site-packages come after the new environment's, and without the editable install they hold.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "venv" / "bin"


def expected_in_wheel() -> set[str]:
    """Names, within the wheel, of the package's files in the tree."""
    inside = set()
    for name in tracked_files():
        if name.startswith(CODE) and not (ROOT / name).is_symlink():
            inside.add(name if name.startswith("flightstore/") else f"flightstore/{name}")
    return inside


def test_wheel_holds_exactly_the_package(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == expected_in_wheel()
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_source_archive_holds_the_package(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert (expected_in_wheel() | {"pyproject.toml", "LICENSE"}) - names == set()


def test_wheel_is_typed_and_imports_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    code = (
        "import flightstore, flightstore.connectors, flightstore.adapters, pathlib\n"
        "here = pathlib.Path(flightstore.__file__).parent\n"
        "assert (here / 'py.typed').is_file()\n"
        "assert not (here / 'connectors').is_symlink()\n"
        "print(here)"
    )
    where = run(installed / "python", "-c", code, cwd=tmp_path).strip()
    assert where.startswith(str(installed.parent))


def test_no_generic_name_is_installed(installed: Path, tmp_path: Path) -> None:
    code = "import flightstore, os; print(*os.listdir(os.path.dirname(flightstore.__path__[0])))"
    names = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert "flightstore" in names
    assert not {"connectors", "adapters", "tests", "benchmarks"} & set(names)


def test_command_line_runs_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    assert "Usage" in run(installed / "flightstore", "--help", cwd=tmp_path)
