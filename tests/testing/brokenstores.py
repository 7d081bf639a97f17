"""Stores that are wrong in one thing each, and the suite on each of them: run by test_store_suite.py.

Each hands everything to a sound store of its own but what its name says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any, ClassVar

import flightstore as fs
from flightstore.testing.stores import Capability, StoreSuite


class Sound:
    """Hands everything on."""

    def __init__(self, inner: fs.Store) -> None:
        self.inner = inner
        self.seen: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *exc: object) -> None:
        self.inner.close()

    def __contains__(self, ref: object) -> bool:
        return isinstance(ref, str | fs.ObjectID) and self.contains(ref)


class GetsTheOldValue(Sound):
    """Remembers what it got by name."""

    def get(self, ref: fs.Ref, **options: Any) -> Any:
        if isinstance(ref, str) and ref in self.seen and self.inner.contains(ref):
            return self.inner.get(self.seen[ref]) if self.seen[ref] in self.inner else self.seen[ref, 0]
        obj = self.inner.get(ref, **options)
        self.seen[ref], self.seen[ref, 0] = obj.id, obj
        return obj


class DeletesNothing(Sound):
    """Says that it did."""

    def delete(self, refs: Any, **options: Any) -> int:
        several = [refs] if isinstance(refs, str | bytes) else list(refs)
        return sum(self.inner.contains(ref) for ref in several)


class ContainsWhatIsPending(Sound):
    """As soon as it is created."""

    def create(self, *args: Any, **options: Any) -> Any:
        builder = self.inner.create(*args, **options)
        self.seen[builder.id] = True
        return builder

    def contains(self, ref: fs.Ref) -> bool:
        return ref in self.seen or self.inner.contains(ref)


class AliasesTheCaller(Sound):
    """Hands out the very value that was put."""

    def put(self, value: Any, name: str | None = None, **options: Any) -> Any:
        object_id = self.inner.put(value, name, **options)
        self.seen[object_id] = value
        return object_id

    def get(self, ref: fs.Ref, **options: Any) -> Any:
        obj = self.inner.get(ref, **options)
        return Shown(obj, self.seen[obj.id]) if obj.id in self.seen else obj


class Shown:
    """An object with another value."""

    def __init__(self, obj: Any, value: Any) -> None:
        self._obj, self._value = obj, value

    def value(self) -> Any:
        return self._value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._obj, name)


class PutsOneByOne(Sound):
    """Where several are to appear at once."""

    def put_many(self, values: Any, **options: Any) -> list[Any]:
        pairs = values.items() if hasattr(values, "items") else ((None, value) for value in values)
        return [self.inner.put(value, name, **options) for name, value in pairs]


class LosesMetadata(Sound):
    """With large values of it."""

    def put(self, value: Any, name: str | None = None, *, metadata: Any = None, **options: Any) -> Any:
        kept = None if isinstance(metadata, str) and len(metadata) > 1000 else metadata
        return self.inner.put(value, name, metadata=kept, **options)


class OverwritesIds(Sound):
    """As if they were names."""

    def put(self, value: Any, name: str | None = None, *, object_id: Any = None, **options: Any) -> Any:
        if isinstance(object_id, fs.ObjectID):
            self.inner.delete(object_id)
        return self.inner.put(value, name, object_id=object_id, **options)


class IsAlwaysReady(Sound):
    """Waits for nothing."""

    def wait(self, refs: Iterable[fs.Ref], *, num_ready: int | None = None, timeout: Any = None) -> Any:
        self.inner.wait(refs, num_ready=num_ready, timeout=0)
        return list(refs), []


class RaisesAnything(Sound):
    """What its parts happen to raise."""

    def get(self, ref: fs.Ref, **options: Any) -> Any:
        try:
            return self.inner.get(ref, **options)
        except fs.GetTimeout:
            raise
        except fs.ObjectNotFound:
            raise KeyError(ref) from None


class DropsWhatWasComposed(Sound):
    """With what it was composed of."""

    def delete(self, refs: Any, **options: Any) -> int:
        if refs == "orders":
            self.inner.delete("part")
        return self.inner.delete(refs, **options)


class IgnoresPins(Sound):
    """Says that it did."""

    def pin(self, refs: Any) -> int:
        return 1


class NeverEvicts(Sound):
    """Says that it did."""

    def evict(self, nbytes: int | None = None, **options: Any) -> int:
        return nbytes or 0


class TellsEverything(Sound):
    """To everybody."""

    def subscribe(self, *args: Any, since: int | None = None, timeout: Any = None, **options: Any) -> Any:
        return self.inner.subscribe(since=since, timeout=timeout)


class HasOneSession(Sound):
    """For all."""

    def session(self, *args: Any, **options: Any) -> Any:
        return self


class EndsNoBatch(Sound):
    """Its objects stay."""

    def batch(self, *args: Any, **options: Any) -> Any:
        return self.inner.batch(*args, **{**options, "cleanup": False})


class Suite(StoreSuite):
    capabilities = Capability.of_the_contract() & ~(
        Capability.PROCESSES | Capability.ZERO_COPY | Capability.SPILLING
    )
    broken: ClassVar[type[Sound]]

    def make_store(self, capacity_bytes: int) -> Any:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm", prefix="flightstore-test-")
        return self.broken(fs.connect(f"{self.folder.name}/store", capacity=capacity_bytes))

    def another_client(self, store: Any) -> Any:
        other = type(store)(fs.connect(store.path))
        other.seen = store.seen
        return other

    def remove_store(self, store: Any) -> None:
        store.destroy()
        self.folder.cleanup()


for _broken in [Sound, *Sound.__subclasses__()]:
    globals()[f"Test{_broken.__name__}"] = type(f"Test{_broken.__name__}", (Suite,), {"broken": _broken})
