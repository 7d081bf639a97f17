"""Who may use a store is what its directory says, whatever umask the processes have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore as fs


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The umask most logins have: it takes write permission from groups."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(store_dir: Path) -> dict[str, int]:
    """Permissions of everything in a store's directory; one entry for all client files."""
    found = {}
    for path in store_dir.rglob("*"):
        name = "client file" if path.parent.name == "clients" else str(path.relative_to(store_dir))
        found[name] = stat.S_IMODE(path.stat().st_mode)
    return found


@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("mode", [0o700, 0o2770, 0o3777], ids=oct)
def test_files_have_the_permissions_of_the_directory(store_dir: Path, mode: int) -> None:
    store_dir.mkdir()
    store_dir.chmod(mode)
    with fs.connect(store_dir, capacity="16MiB") as store:
        store.put(b"value", name="name")
        directories = {"catalog", "clients", "new"}
        files = {"control", "arena", "reserve", "catalog/data.mdb", "catalog/lock.mdb", "client file"}
        expected = dict.fromkeys(directories, mode) | dict.fromkeys(files, mode & 0o666)
        assert modes(store_dir) == expected
