"""The suite lets nothing through: transports that are wrong in one thing fail, whatever they promise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.types.suite import Refusal, TypeSuite, buffers_of, misaligned

ROOT = Path(__file__).parents[2]
FAILURES = (AssertionError, pytest.fail.Exception)


class Copies(TypeSuite):
    """Hands back what it was given."""

    max_examples = 20

    def transfer(self, value: Any) -> Any:
        return value


class LosesMetadata(Copies):
    def transfer(self, value: Any) -> Any:
        return value.replace_schema_metadata(None) if isinstance(value, pa.Table) else value


class LosesNullability(Copies):
    def transfer(self, value: Any) -> Any:
        if not isinstance(value, pa.Table):
            return value
        return pa.table(value.columns, pa.schema([field.with_nullable(True) for field in value.schema]))


class LosesOrder(Copies):
    def transfer(self, value: Any) -> Any:
        return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value


class RefusesNumbers(Copies):
    unsupported = {"numpy/float64*": Refusal(TypeError, match="no floats", reason="for want of them")}  # noqa: RUF012

    def transfer(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == np.float64:
            raise TypeError("no floats here")
        return value

    def takes(self, value: Any) -> bool:
        return not (isinstance(value, np.ndarray) and value.dtype == np.float64)


class RefusesTimes(Copies):
    unsupported = {"arrow/timestamp[ns]: ?ut": Refusal(TypeError)}  # noqa: RUF012

    def transfer(self, value: Any) -> Any:
        raise TypeError("no times here")


class RefusesSilently(RefusesNumbers):
    def transfer(self, value: Any) -> Any:
        return value


class RefusesWithoutReason(RefusesNumbers):
    def transfer(self, value: Any) -> Any:
        raise TypeError("no")


class PromisesTooMuch(Copies):
    aligned = True


def test_an_honest_transport_passes() -> None:
    suite = Copies()
    suite.test_arrow("table: schema metadata")
    suite.test_numpy("float64: Fortran order")
    suite.test_generated_tables()
    suite.test_generated_batches()
    suite.test_generated_arrays()
    suite.test_generated_numpy_arrays()
    suite.test_what_arrow_has_no_words_for("dictionary of uuids")
    suite.test_a_type_that_nobody_registered()
    suite.test_every_pattern_of_unsupported_means_something()


def test_a_transport_that_loses_something_fails() -> None:
    with pytest.raises(AssertionError, match="metadata"):
        LosesMetadata().test_arrow("table: schema metadata")
    with pytest.raises(AssertionError, match="nullable"):
        LosesNullability().test_arrow("table: required fields")
    with pytest.raises(AssertionError, match="f_contiguous"):
        LosesOrder().test_numpy("int16: Fortran order")
    with pytest.raises(AssertionError, match="became"):
        LosesOrder().test_generated_numpy_arrays()


def test_a_refusal_must_be_declared_and_carried_out() -> None:
    RefusesNumbers().test_numpy("float64: strides")
    RefusesNumbers().test_generated_numpy_arrays()
    RefusesNumbers().test_every_pattern_of_unsupported_means_something()
    RefusesTimes().test_arrow("timestamp[ns]: cut")
    with pytest.raises(TypeError):
        RefusesTimes().test_arrow("timestamp[ns]")
    with pytest.raises(FAILURES):
        RefusesSilently().test_numpy("float64")
    with pytest.raises(FAILURES):
        RefusesWithoutReason().test_numpy("float64")
    with pytest.raises(TypeError):
        RefusesWithoutReason().test_numpy("int16")


def test_a_pattern_without_meaning_is_a_mistake() -> None:
    class Mistaken(Copies):
        unsupported = {"arrow/no such type": Refusal(TypeError)}  # noqa: RUF012

    with pytest.raises(AssertionError, match="no such type"):
        Mistaken().test_every_pattern_of_unsupported_means_something()


def test_memory_that_is_not_aligned_is_noticed() -> None:
    with pytest.raises(AssertionError, match="multiple of 64"):
        PromisesTooMuch().test_arrow("layout: buffers at odd addresses")
    with pytest.raises(AssertionError, match="multiple of 64"):
        PromisesTooMuch().test_numpy("shape: unaligned")
    whole = pa.py_buffer(bytes(256))
    start = -whole.address % 64
    even, odd = (pa.Array.from_buffers(pa.int8(), 8, [None, whole.slice(start + i, 8)]) for i in (0, 8))
    assert misaligned(buffers_of(pa.table({"x": even}))) == []
    assert ["column 'x'" in found for found in misaligned(buffers_of(pa.table({"x": odd})))] == [True]


def test_a_type_without_words_may_be_refused_only_as_promised() -> None:
    class Refuses(Copies):
        def transfer(self, value: Any) -> Any:
            raise fs.NotStorable("Arrow's streams cannot say this")

    class Crashes(Copies):
        def transfer(self, value: Any) -> Any:
            raise OSError("buffer_index out of range")

    Refuses().test_what_arrow_has_no_words_for("dictionary of uuids")
    with pytest.raises(OSError, match="out of range"):
        Crashes().test_what_arrow_has_no_words_for("dictionary of uuids")


def test_a_value_that_is_not_sound_is_noticed() -> None:
    class Breaks(Copies):
        def transfer(self, value: Any) -> Any:
            return pa.table(
                {
                    "x": pa.Array.from_buffers(
                        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\x09\0\0\0"), pa.py_buffer(b"abc")]
                    )
                }
            )

    with pytest.raises(pa.ArrowInvalid):
        Breaks().check("", pa.table({"x": ["abc"]}))


def without(*libraries: str) -> Iterator[str]:
    """Code that makes libraries impossible to import."""
    yield "import sys"
    yield from (f"sys.modules[{library!r}] = None" for library in libraries)


@pytest.mark.parametrize(
    ("module", "library"), [("strategies", "hypothesis"), ("numpy", "hypothesis"), ("suite", "pytest")]
)
def test_a_missing_library_is_named(module: str, library: str) -> None:
    code = "\n".join(
        [
            *without(library),
            "from flightstore import MissingExtra",
            f"try: import flightstore.testing.types.{module}",
            f"except MissingExtra as error: assert {library!r} in error.hint",
            "else: raise SystemExit('imported')",
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_equality_and_catalogue_need_neither_hypothesis_nor_pytest() -> None:
    code = "\n".join(
        [
            *without("hypothesis", "pytest"),
            "from flightstore.testing.types.arrow import CATALOGUE",
            "from flightstore.testing.types.equality import assert_same",
            "assert_same(*(CATALOGUE['int8: nested']() for _ in range(2)))",
            "assert 'polars' not in sys.modules",
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_flightstore_imports_nothing_of_it() -> None:
    code = "import sys, flightstore.store; assert 'flightstore.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
