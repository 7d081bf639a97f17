"""torch tensors come back exactly, as copies that may be written to. Run where torch is installed."""

from __future__ import annotations

import sys

import pytest

from .library_cases import outcomes_apart


def put_all(path: str) -> None:
    """In a fresh interpreter."""
    from .torch_cases import put_all

    put_all(path)


def outcomes(path: str) -> dict[str, str]:
    """In a fresh interpreter."""
    from .torch_cases import outcomes

    return outcomes(path)


@pytest.fixture(scope="module")
def checked() -> dict[str, str]:
    """What went wrong in each check of torch_cases, run in another process than the one that put some."""
    return outcomes_apart(put_all, outcomes)


CHECKS = [
    "check_every_dtype",
    "check_what_another_process_put",
    "check_every_shape_and_layout",
    "check_what_comes_back_may_be_written_to",
    "check_the_store_keeps_what_was_put",
    "check_what_is_more_than_its_elements_is_pickled",
    "check_others_see_the_bits_of_dtypes_that_numpy_has_not",
    "check_every_array_of_the_catalogue_is_exact_or_refused",
    "check_from_dlpack_shares_what_nobody_can_write_to",
    "check_the_report_says_that_it_is_copied",
    "check_what_is_no_tensor_is_refused",
]


@pytest.mark.slow
@pytest.mark.needs("torch")
@pytest.mark.req("TYP-4", "TYP-5", "TYP-6", "O-1")
@pytest.mark.parametrize("name", CHECKS)
def test_torch(checked: dict[str, str], name: str) -> None:
    assert checked[name] == ""


@pytest.mark.needs("torch")
@pytest.mark.req("TYP-4")
def test_all_checks_are_listed(checked: dict[str, str]) -> None:
    assert list(checked) == CHECKS
    assert "torch" not in sys.modules
