"""Which storage a URL means, and what messages show of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.abc.storage import masked_url
from flightstore.lifecycle import storages
from flightstore.lifecycle.storage_local import LocalStorage
from flightstore.lifecycle.storages import location_of, split_location, storage_for
from flightstore.testing.children import child

pytestmark = pytest.mark.req("PLG-6")


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = dict(storages._factories)
    yield
    storages._factories.clear()
    storages._factories.update(before)
    storages._made.clear()


class Mine(LocalStorage):
    def __init__(self, url: str) -> None:
        super().__init__("file" + url[url.index("://") :])
        self.url = url


def test_a_storage_of_ones_own(tmp_path: Path) -> None:
    fs.register_spill_storage("mine", Mine)
    assert type(storage_for(f"mine://{tmp_path}")) is Mine
    assert type(storage_for(f"mine+more://{tmp_path}")) is Mine
    fs.register_spill_storage("mine+more", LocalStorageOfMine)
    assert type(storage_for(f"mine+more://{tmp_path}")) is LocalStorageOfMine
    assert type(storage_for(f"mine+other://{tmp_path}")) is Mine


class LocalStorageOfMine(Mine):
    pass


@pytest.mark.parametrize("scheme", ["", "1", "a b", "a/b", "a:", "ü"])
def test_what_is_no_scheme(scheme: str) -> None:
    with pytest.raises(fs.InvalidArgument, match="scheme"):
        fs.register_spill_storage(scheme, Mine)


def test_a_child_makes_its_own(tmp_path: Path) -> None:
    storage = storage_for(tmp_path)

    def made() -> tuple[bool, bool]:
        mine = storage_for(tmp_path)
        return mine is storage, mine is storage_for(tmp_path)

    assert child(made) == (False, True)
    assert storage_for(tmp_path) is storage


def test_locations(tmp_path: Path) -> None:
    storage = storage_for(tmp_path / "with#mark")
    assert split_location(location_of(storage, "a-1.x")) == (storage, "a-1.x")
    with pytest.raises(fs.InvalidArgument):
        location_of(storage, "a#b")
    with pytest.raises(fs.InvalidArgument, match="place"):
        split_location(storage.url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:///var/spill", "file:///var/spill"),
        ("file:///var/a@b", "file:///var/a@b"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://key:sec/ret@bucket/prefix", "s3://***@bucket/prefix"),
        ("sftp://user@host/x", "sftp://***@host/x"),
        ("dir::s3://k:s@bucket/x", "dir::s3://***@bucket/x"),
        ("s3://bucket/x?key=AK&secret=se%20cret&anon=", "s3://bucket/x?key=***&secret=***&anon=***"),
        ("s3://k:s@b/x?secret=a@b", "s3://***@b/x?secret=***"),
    ],
)
def test_credentials_are_not_shown(url: str, shown: str) -> None:
    assert masked_url(url) == shown
