"""The tests that whoever moves values must pass: derive from `TypeSuite` and say how a value travels.

    class TestMyTransport(TypeSuite):
        @pytest.fixture(autouse=True)
        def connect(self, store): self.store = store

        def transfer(self, value):
            return self.store.get(self.store.put(value)).value()

Every value of the catalogues, and generated ones, must come back exactly as `assert_same` has it. What a
transport cannot hold it must refuse, clearly and before anything is stored: declare it in `unsupported`. May
call the other modules of this folder. Needs pytest and hypothesis.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from flightstore.errors import MissingExtra, NotStorable
from flightstore.testing.types import arrow
from flightstore.testing.types.equality import assert_same
from flightstore.testing.types.numpy_values import dtype_difference

try:
    import pytest
    from hypothesis import HealthCheck, assume, given, settings
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise MissingExtra(
        "the suite of types needs pytest and hypothesis", hint="pip install pytest hypothesis"
    ) from error

from flightstore.testing.types import numpy as arrays
from flightstore.testing.types import strategies

__all__ = ["CATALOGUES", "Refusal", "TypeSuite", "buffers_of"]

ALIGNMENT_BYTES = 64
ARROW, NUMPY, INEXPRESSIBLE = "arrow", "numpy", "inexpressible"
CATALOGUES: dict[str, Mapping[str, Callable[[], Any]]] = {
    ARROW: arrow.CATALOGUE,
    NUMPY: arrays.CATALOGUE,
    INEXPRESSIBLE: arrow.INEXPRESSIBLE,
}
"""What `TypeSuite.check` calls ``<catalogue>/<name>``: the other side of a transport may look values up."""


@dataclass(frozen=True)
class Refusal:
    """How a transport refuses what it cannot hold."""

    error: type[Exception]
    """What it raises."""
    match: str = ""
    """A regular expression that the message matches: it names the column and the type, say."""
    reason: str = ""
    """Why it cannot hold this."""


class TypeSuite:
    """One transport, tested with every type."""

    unsupported: ClassVar[Mapping[str, Refusal]] = {}
    """Refusals by pattern of ``arrow/<name>`` and ``numpy/<name>`` in the catalogues.

    In a pattern ``*`` stands for anything and ``?`` for any character. One that matches nothing is an error,
    and so is a value that comes through all the same.
    """

    aligned: ClassVar[bool] = False
    """Whether every buffer that comes back begins at a multiple of 64 bytes."""

    refusal: ClassVar[type[Exception]] = NotStorable
    """What is raised for types that Arrow's streams have no words for."""

    max_examples: ClassVar[int] = 100
    """Generated values for each kind of value."""

    def transfer(self, value: Any) -> Any:
        """Put the value in on one side, take it out on the other: all that a transport must provide."""
        raise NotImplementedError

    def takes(self, value: Any) -> bool:
        """Whether the transport holds this generated value; what it does not is left out."""
        return True

    def buffers_of(self, value: Any) -> Iterator[tuple[str, int]]:
        """(what it is, address) of all memory of a value that came back; see `aligned`."""
        return buffers_of(value)

    def check(self, name: str, value: Any) -> None:
        """Fail unless the value comes back exactly as it is.

        Args:
            name: ``<catalogue>/<name>`` as in CATALOGUES; empty for a generated value.
            value: The value.
        """
        self.check_same(value, self.transfer(value))

    def check_same(self, expected: Any, actual: Any) -> None:
        """Fail unless a value that came back is sound, the same as the expected one, and aligned."""
        if hasattr(actual, "validate"):
            actual.validate(full=True)
        assert_same(expected, actual)
        if self.aligned and (found := misaligned(self.buffers_of(actual))):
            raise AssertionError(f"not at a multiple of {ALIGNMENT_BYTES}: {found}")

    def _check_entry(self, catalogue: str, name: str) -> None:
        value = CATALOGUES[catalogue][name]()
        name = f"{catalogue}/{name}"
        refusals = [refusal for pattern, refusal in self.unsupported.items() if _matches(name, pattern)]
        if not refusals:
            self.check(name, value)
            return
        with pytest.raises(refusals[0].error, match=refusals[0].match or None):
            self.transfer(value)

    def _check_generated(self, strategy: SearchStrategy[Any]) -> None:
        @settings(max_examples=self.max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(strategy)
        def check(value: Any) -> None:
            assume(self.takes(value))
            self.check("", value)

        check()

    @pytest.mark.parametrize("name", arrow.CATALOGUE)
    def test_arrow(self, name: str) -> None:
        """Every type and layout in the catalogue."""
        self._check_entry(ARROW, name)

    @pytest.mark.parametrize("name", arrays.CATALOGUE)
    def test_numpy(self, name: str) -> None:
        """Every dtype and order in the catalogue."""
        self._check_entry(NUMPY, name)

    def test_generated_tables(self) -> None:
        """Tables of any types, nested in any way, cut in any way."""
        self._check_generated(strategies.tables())

    def test_generated_batches(self) -> None:
        """Record batches."""
        self._check_generated(strategies.record_batches())

    def test_generated_arrays(self) -> None:
        """Arrow arrays, chunked or not."""
        self._check_generated(strategies.any_arrays() | strategies.chunked_arrays())

    def test_generated_numpy_arrays(self) -> None:
        """NumPy arrays of any dtype, shape and order."""
        self._check_generated(arrays.arrays())

    @pytest.mark.parametrize("name", arrow.LOOKALIKES)
    def test_schemas_that_look_alike(self, name: str) -> None:
        """Nothing is remembered of one that belongs to another."""
        for value in filter(self.takes, arrow.LOOKALIKES[name]()):
            self.check("", value)

    @pytest.mark.parametrize("name", arrow.INEXPRESSIBLE)
    def test_what_arrow_has_no_words_for(self, name: str) -> None:
        """Comes back exactly, or is refused when it is put; never otherwise."""
        with contextlib.suppress(self.refusal):
            self.check(f"{INEXPRESSIBLE}/{name}", arrow.INEXPRESSIBLE[name]())

    def test_a_type_that_nobody_registered(self) -> None:
        """Comes back as it is, or as its storage with the type's name in the metadata, as Arrow has it."""
        value, as_storage = arrow.unregistered()
        actual = self.transfer(value)
        registered = isinstance(actual.schema.field(0).type, pa.BaseExtensionType)
        assert_same(value if registered else as_storage, actual)

    def test_every_pattern_of_unsupported_means_something(self) -> None:
        """A pattern that matches no name is a mistake."""
        names = [f"{catalogue}/{name}" for catalogue, entries in CATALOGUES.items() for name in entries]
        if lost := [
            pattern for pattern in self.unsupported if not any(_matches(name, pattern) for name in names)
        ]:
            raise AssertionError(f"no entry of a catalogue matches {lost}")


def _matches(name: str, pattern: str) -> bool:
    """As fnmatch has it, but brackets, which stand in the names of types, are themselves."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def misaligned(buffers: Iterator[tuple[str, int]]) -> list[str]:
    """Those that do not begin at a multiple of 64 bytes."""
    return [f"{what} at {address:#x}" for what, address in buffers if address % ALIGNMENT_BYTES]


def buffers_of(value: Any) -> Iterator[tuple[str, int]]:
    """(what it is, address) of each buffer of an Arrow or NumPy value that is not empty; dictionaries too.

    Nothing of values of other types, nor of NumPy arrays that only pickle can describe.
    """
    if isinstance(value, pa.Table | pa.RecordBatch):
        for name, column in zip(value.schema.names, value.columns, strict=True):
            yield from ((f"column {name!r}: {what}", address) for what, address in buffers_of(column))
    elif isinstance(value, pa.ChunkedArray):
        for number, chunk in enumerate(value.chunks):
            yield from ((f"chunk {number}: {what}", address) for what, address in buffers_of(chunk))
    elif isinstance(value, pa.Array):
        for number, buffer in enumerate(value.buffers()):
            if buffer is not None and buffer.size:
                yield f"buffer {number} of {value.type}", buffer.address
        for child in arrow.children(value):
            yield from buffers_of(child)
    elif isinstance(value, np.ndarray) and value.nbytes and _is_plain(value.dtype):
        yield f"array of {value.dtype}", value.ctypes.data


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are nothing but bytes, and their dtype can be described without pickle."""
    if dtype.hasobject or dtype.kind == "T":
        return False
    try:
        described: Any = np.lib.format.dtype_to_descr(dtype)
        restored: np.dtype[Any] = np.lib.format.descr_to_dtype(described)
    except ValueError:  # fields that overlap
        return False
    return restored.type is dtype.type and not dtype_difference(dtype, restored)
