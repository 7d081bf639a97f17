"""Errors: what they are, what they say, and that they travel between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest

import flightstore as fs
from flightstore import errors
from flightstore.testing.children import child

BUILTINS = {
    "GatewayBusy": (ConnectionError,),
    "GatewayUnreachable": (ConnectionError,),
    "NotAllowed": (PermissionError,),
    "NotAuthenticated": (PermissionError,),
    "BatchEnded": (RuntimeError,),
    "ObjectNotFound": (KeyError,),
    "GetTimeout": (KeyError, TimeoutError),
    "ObjectExists": (ValueError,),
    "ObjectLost": (LookupError,),
    "NotStorable": (TypeError,),
    "NotBorrowable": (TypeError,),
    "NotConvertible": (TypeError,),
    "NotOffered": (NotImplementedError, RuntimeError),
    "InvalidArgument": (ValueError,),
    "EventsMissed": (LookupError,),
    "StoreFull": (MemoryError,),
    "CatalogFull": (MemoryError,),
    "SpillFailed": (MemoryError,),
    "SpillDamaged": (LookupError,),
    "QuotaExceeded": (MemoryError,),
    "SessionEnded": (RuntimeError,),
    "SessionNotFound": (LookupError,),
    "StoreBusy": (TimeoutError,),
    "StoreClosed": (RuntimeError,),
    "NotAStore": (FileNotFoundError, OSError),
    "StoreDamaged": (RuntimeError,),
    "StoreVersionMismatch": (RuntimeError,),
    "StoreAccessDenied": (PermissionError, OSError),
    "WrongPidNamespace": (PermissionError,),
    "MissingExtra": (ImportError,),
    "FlightStoreError": (Exception,),
}


def test_the_table_has_every_error() -> None:
    classes = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert classes == set(errors.__all__) == set(BUILTINS)


@pytest.mark.parametrize("name", BUILTINS)
def test_each_is_the_builtin_a_caller_would_catch(name: str) -> None:
    kind = getattr(fs, name)
    assert issubclass(kind, (fs.FlightStoreError,))
    for builtin in BUILTINS[name]:
        assert issubclass(kind, builtin)


@pytest.mark.parametrize("name", BUILTINS)
def test_each_can_be_pickled_and_copied(name: str) -> None:
    error = getattr(fs, name)("it went wrong", hint="do better")
    error.asked_bytes = 12345
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error) == "it went wrong (do better)"
        assert (again.message, again.hint, again.asked_bytes) == ("it went wrong", "do better", 12345)
    assert str(getattr(fs, name)("no hint")) == "no hint"


FAILURES: dict[str, tuple[type[fs.FlightStoreError], Callable[[fs.Store], object], str]] = {
    "get": (fs.ObjectNotFound, lambda store: store.get("what"), "'what'"),
    "get with timeout": (fs.GetTimeout, lambda store: store.get("what", timeout=0.001), "'what'"),
    "stat": (fs.ObjectNotFound, lambda store: store.stat(fs.ObjectID(b"id")), "id:6964"),
    "taken id": (
        fs.ObjectExists,
        lambda store: store.put(b"", object_id=fs.ObjectID(b"taken")),
        "id:74616b656e",
    ),
    "no room": (fs.StoreFull, lambda store: store.put(bytes(17 << 20)), "17,825,792"),
    "function": (fs.NotStorable, lambda store: store.put(lambda: None), "function"),
    "no pickle": (fs.NotStorable, lambda store: store.put({"a": 1}, pickle=False), "dict"),
    "name": (fs.InvalidArgument, lambda store: store.put(b"", "id:x"), "'id:x'"),
    "other capacity": (
        fs.InvalidArgument,
        lambda store: fs.connect(store.path, capacity="32MiB"),
        "16,777,216 bytes, not 33,554,432",
    ),
    "no store": (fs.NotAStore, lambda store: fs.connect(f"{store.path}-2", create=False), "store-2"),
    "released": (fs.StoreClosed, lambda store: _released(store), "released"),
}


def _released(store: fs.Store) -> object:
    obj = store.get("taken")
    obj.release()
    return obj.id


@pytest.mark.parametrize("case", FAILURES)
def test_errors_name_the_object_and_say_what_to_do(store: fs.Store, case: str) -> None:
    kind, fail, named = FAILURES[case]
    store.put(b"", "taken", object_id=fs.ObjectID(b"taken"))
    with pytest.raises(fs.FlightStoreError) as failure:
        fail(store)
    assert type(failure.value) is kind
    assert named in failure.value.message
    assert len(failure.value.hint) > 10
    assert failure.value.hint in str(failure.value)


@pytest.mark.req("FAIL-5")
def test_an_object_larger_than_the_store(store: fs.Store) -> None:
    store.put(b"small", "small")
    with pytest.raises(fs.StoreFull) as failure:
        child(store.put, bytes(17 << 20))
    error = failure.value
    assert (error.asked_bytes, error.capacity_bytes) == (17 << 20, 16 << 20)
    assert error.free_bytes == (16 << 20) - 64
    assert error.largest_hole_bytes > 15 << 20
    assert store.get("small").value() == b"small"


@pytest.mark.req("FAIL-5")
def test_a_full_store_works_again_once_there_is_room(store: fs.Store) -> None:
    names = [f"n{number}" for number in range(16)]
    for number, name in enumerate(names):
        store.put(bytes([number]) * (1 << 20), name)
    with pytest.raises(fs.StoreFull):
        store.put(b"one byte more")
    assert all(store.get(name).value() == bytes([number]) * (1 << 20) for number, name in enumerate(names))
    assert store.delete(names[3:5]) == 2
    store.put(b"x" * (2 << 20), "two")
    assert store.get("two").value() == b"x" * (2 << 20)
