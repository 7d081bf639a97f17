"""JAX arrays come back exactly, and never as a view of memory that others read."""

from __future__ import annotations

import sys

import pytest

from .library_cases import outcomes_apart


def put_all(path: str) -> None:
    """In a fresh interpreter."""
    from .jax_cases import put_all

    put_all(path)


def outcomes(path: str) -> dict[str, str]:
    """In a fresh interpreter."""
    from .jax_cases import outcomes

    return outcomes(path)


@pytest.fixture(scope="module")
def checked() -> dict[str, str]:
    """What went wrong in each check of jax_cases, run in another process than the one that put some."""
    return outcomes_apart(put_all, outcomes)


CHECKS = [
    "check_every_dtype",
    "check_what_another_process_put",
    "check_every_shape",
    "check_what_is_more_than_its_elements_is_pickled",
    "check_others_see_the_bits_of_dtypes_that_numpy_has_not",
    "check_a_donated_array_is_not_the_stores_memory",
    "check_dlpack_says_why_not",
    "check_the_report_says_that_it_is_copied",
    "check_every_array_of_the_catalogue_is_exact_or_refused",
    "check_what_is_no_tensor_is_refused",
]


@pytest.mark.slow
@pytest.mark.req("TYP-4", "TYP-5", "TYP-6", "O-1")
@pytest.mark.parametrize("name", CHECKS)
def test_jax(checked: dict[str, str], name: str) -> None:
    assert checked[name] == ""


@pytest.mark.req("TYP-4")
def test_all_checks_are_listed(checked: dict[str, str]) -> None:
    assert list(checked) == CHECKS
    assert "jax" not in sys.modules
