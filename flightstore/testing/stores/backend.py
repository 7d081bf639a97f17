"""What the author of a backend provides, and what a backend may declare. May call the contract alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Flag, auto
from functools import reduce
from operator import or_
from typing import Any, ClassVar, Protocol, TypeVar

from flightstore.abc import AbstractStore
from flightstore.errors import MissingExtra
from flightstore.objects.base import Object

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the suite of stores needs pytest", hint="pip install pytest") from error

__all__ = ["Backend", "Capability", "Running", "needs", "value_of"]

T = TypeVar("T")

CAPACITY_BYTES = 16 << 20
"""Of the stores that are tested."""


class Capability(Flag):
    """What a store may offer beyond putting, getting, deleting and looking."""

    ACCOUNTING = auto()
    """`stats` and `stat` say how many bytes are used, and they go down when objects are deleted."""
    BATCHES = auto()
    """`batch` and what belongs to it."""
    CAPACITY = auto()
    """The capacity is a limit: what does not fit is StoreFull."""
    COMPOSITION = auto()
    """`with_columns`, `select`, `drop`, `rename`, `concat`."""
    EVENTS = auto()
    """`subscribe` and the callbacks."""
    EVICTION = auto()
    """`evict`, `free`, and objects that are put as evictable."""
    IN_PLACE = auto()
    """`create`, `create_now`, `create_table`, `create_stream`, `abort`."""
    PINS = auto()
    """`pin` and `unpin`."""
    PROCESSES = auto()
    """Several processes use one store; the author provides `start_in_client`."""
    QUOTAS = auto()
    """Sessions with a limit of their own."""
    REFERENCES = auto()
    """References are counted: `stat(...).refs`, `delete(if_unused=True)`."""
    SESSIONS = auto()
    """`session` and `sessions`."""
    SPILLING = auto()
    """`spill`, and creates that spill; the author provides `make_spilling_store`."""
    WAITING = auto()
    """Timeouts of `get`, `get_many`, and for room; `wait`, and the forms for asyncio."""
    ZERO_COPY = auto()
    """What is got is the store's own memory, read-only."""

    @classmethod
    def of_the_contract(cls) -> Capability:
        """All that AbstractStore has methods for: what the built-in store declares."""
        none = cls(0)
        return reduce(or_, (one for one in cls if not missing_methods(one)), none)


_METHODS: dict[Capability, tuple[str, ...]] = {
    Capability.BATCHES: ("batch", "end_batch", "transfer_ownership"),
    Capability.COMPOSITION: ("with_columns", "select", "drop", "rename", "concat"),
    Capability.EVENTS: ("subscribe", "on_added", "on_deleted"),
    Capability.EVICTION: ("evict", "free"),
    Capability.IN_PLACE: ("create", "create_now", "create_table", "create_stream", "abort"),
    Capability.PINS: ("pin", "unpin"),
    Capability.QUOTAS: ("session",),
    Capability.SESSIONS: ("session", "sessions"),
    Capability.SPILLING: ("spill",),
    Capability.WAITING: ("wait", "wait_async", "get_async"),
}
"""What the contract must have for a capability to be declared."""


def missing_methods(capability: Capability) -> list[str]:
    """Methods that some capabilities need and AbstractStore has not."""
    needed = [name for one in capability for name in _METHODS.get(one, ())]
    return [name for name in needed if not hasattr(AbstractStore, name)]


class Running(Protocol):
    """A function that runs in another process: `flightstore.testing.children.Child` is one."""

    def result(self) -> Any:
        """Wait for it; returns what it returned, or raises what it raised."""
        ...

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone. Idempotent."""
        ...


def needs(*capabilities: Capability) -> Callable[[T], T]:
    """Marks a test, or a class of tests, that only stores with all of these capabilities must pass."""
    marks: Any = pytest.mark.usefixtures(*(f"declared_{one.name}" for one in capabilities))
    return marks  # type: ignore[no-any-return]


class Backend:
    """What the tests know of a backend. Derive from `StoreSuite`, and provide what is marked."""

    capabilities: ClassVar[Capability] = Capability(0)
    """Provide: what the store offers."""

    def make_store(self, capacity_bytes: int) -> AbstractStore:
        """Provide: a handle on a new, empty store."""
        raise NotImplementedError

    def make_spilling_store(self, capacity_bytes: int) -> AbstractStore:
        """Provide, for SPILLING: the same, spilling to a place that is empty."""
        raise NotImplementedError

    def another_client(self, store: AbstractStore) -> AbstractStore:
        """Provide: another handle on the same store, in this process."""
        raise NotImplementedError

    def start_in_client(self, store: AbstractStore, function: Callable[..., Any], *args: Any) -> Running:
        """Provide, for PROCESSES: begin to run ``function(handle, *args)`` in another process, on a handle of
        its own on the same store.

        `function` is a function at the top of a module, `args` can be pickled.
        """
        raise NotImplementedError

    def remove_store(self, store: AbstractStore) -> None:
        """Provide, if `destroy` is not enough: remove a store, and check what it should leave behind."""
        store.destroy()

    def run_in_client(self, store: AbstractStore, function: Callable[..., Any], *args: Any) -> Any:
        """What ``function(handle, *args)`` returns in another process; see `start_in_client`."""
        running = self.start_in_client(store, function, *args)
        try:
            return running.result()
        finally:
            running.kill()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if missing := missing_methods(cls.capabilities):
            raise TypeError(f"{cls.__name__} declares what the contract has no methods for: {missing}")

    @pytest.fixture
    def store(self) -> Iterator[AbstractStore]:
        """An empty store, gone after the test."""
        store = self.make_store(CAPACITY_BYTES)
        yield store
        self.remove_store(store)

    @pytest.fixture
    def second(self, store: AbstractStore) -> Iterator[AbstractStore]:
        """Another handle on it."""
        with self.another_client(store) as second:
            yield second

    def _leave_out(self, request: pytest.FixtureRequest, capability: Capability) -> None:
        if capability not in self.capabilities:
            reason = f"the capability {capability.name}, which this store does not declare"
            request.node.user_properties.append(("left out", reason))
            pytest.skip(f"needs {reason}")


def _declared(capability: Capability) -> Any:
    @pytest.fixture(name=f"declared_{capability.name}")
    def check(self: Backend, request: pytest.FixtureRequest) -> None:
        self._leave_out(request, capability)

    return check


for _one in Capability:
    setattr(Backend, f"declared_{_one.name}", _declared(_one))


def value_of(obj: Object) -> Any:
    """The value of an object, bytes as `bytes`, so that it can be compared."""
    value = obj.value()
    return bytes(value) if isinstance(value, memoryview) else value
