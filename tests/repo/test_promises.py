"""The page of promises is up to date and names only what exists; its generator finds every form of mark."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_generator() -> ModuleType:
    """scripts/promises.py, which is no part of any package."""
    spec = importlib.util.spec_from_file_location("promises", ROOT / "scripts" / "promises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


promises = load_generator()

SAMPLE = """
import pytest
pytestmark = [pytest.mark.slow, pytest.mark.req("A-1")]

@pytest.mark.req("B-1", "B-2")
@pytest.mark.req("B-3")
def test_function(): ...

@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.req("B-4"))])
async def test_parameter(x): ...

@pytest.mark.req("C-1")
class TestClass:
    pytestmark = pytest.mark.req("C-2")

    def test_method(self): ...
    def helper(self): ...

TestModel = pytest.mark.req("D-1")(Model.TestCase)
"""


def test_page_is_up_to_date() -> None:
    text = promises.render(promises.load_promises(), promises.collect_proofs(ROOT / "tests"))
    assert (ROOT / "docs" / "promises.md").read_text() == text, "run `make promises`"


def test_every_id_is_a_promise() -> None:
    groups = promises.load_promises().values()
    ids = [name for group in groups for name in group]
    assert all(re.fullmatch(r"[A-Z]+-[1-9][0-9]*", name) for name in ids)
    assert len(ids) == len(set(ids))
    assert set(promises.collect_proofs(ROOT / "tests")) <= set(ids)


def test_every_form_of_mark_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(SAMPLE)
    found = promises.collect_proofs(tmp_path / "tests")
    tests = {name: [test for _, test in proofs] for name, proofs in found.items()}
    assert tests == {
        "A-1": ["test_function", "test_parameter", "TestClass::test_method", "TestModel"],
        "B-1": ["test_function"],
        "B-2": ["test_function"],
        "B-3": ["test_function"],
        "B-4": ["test_parameter"],
        "C-1": ["TestClass::test_method"],
        "C-2": ["TestClass::test_method"],
        "D-1": ["TestModel"],
    }


def test_a_promise_without_tests_is_named() -> None:
    page = promises.render({"G": {"A-1": "One.", "A-2": "Two."}}, {"A-1": [("tests/test_a.py", "test_it")]})
    assert "1 of 2 promises" in page
    assert "**A-1** One.\n\n- [tests/test_a.py](../tests/test_a.py): `test_it`\n" in page
    assert "**A-2** Two.\n\n- not yet proved\n" in page


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ('import pytest\nmark = pytest.mark.req("A-1")\n', "belong to no test"),
        ("import pytest\n@pytest.mark.req(name)\ndef test_it(): ...\n", "written out"),
    ],
)
def test_marks_that_cannot_be_read_are_refused(tmp_path: Path, source: str, complaint: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(source)
    with pytest.raises(ValueError, match=complaint):
        promises.collect_proofs(tmp_path / "tests")


def test_unknown_promises_are_refused() -> None:
    with pytest.raises(ValueError, match="Z-9"):
        promises.render({"G": {"A-1": "One."}}, {"Z-9": [("tests/test_a.py", "test_it")]})
