"""The reference is what the docstrings say today, and complete; its generator reads every form of them."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from pages import ROOT, load_script

import flightstore

reference = load_script("reference")

SAMPLE = '''
class Box(Protocol):
    """A box. It opens.

    Attributes (all bytes):
        size: How large,
            with its walls.
    """

    depth: int
    """How deep | it is."""
    _hidden: int
    """Nobody's."""

    @property
    def label(self) -> str | None:
        """What :meth:`open` shows."""

    @classmethod
    def of(cls, *parts: int, **more: str) -> Box:
        """A box of `parts`; see ``more``."""

    async def open(self, key: bytes, /, how=None, *, wait_s: float = 0) -> None:
        """Open it with :class:`Box`.

        Args:
            key: The key.
            how: Or not.

        Returns:
            Nothing,
            for long.

        Raises:
            Locked, Jammed,
            Gone: as they say.
            Late: after `wait_s`.

        See :func:`nothing`.
        """

    def _private(self): ...
    def undocumented(self): ...
'''


def sample() -> reference.Entry:
    node = ast.parse(SAMPLE).body[0]
    assert isinstance(node, ast.ClassDef)
    return reference.class_entry(node, "Box")


def test_pages_are_up_to_date() -> None:
    folder = ROOT / "docs" / "reference"
    found = {path.name: path.read_text() for path in folder.glob("*.md")}
    assert found == reference.render(), "run `make docs`"


def test_every_public_name_is_on_a_page() -> None:
    documented = reference.links_of(reference.make_pages())
    assert [name for name in flightstore.__all__ if name not in documented] == []


@pytest.mark.parametrize("name", ["Store", "Object", "ObjectID", "StoreStats", "ConversionReport"])
def test_every_public_method_is_on_a_page(name: str) -> None:
    documented = reference.links_of(reference.make_pages())
    kind = getattr(flightstore, name)
    members = [
        member
        for member, value in inspect.getmembers(kind)
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and "flightstore" in str(getattr(inspect.unwrap(getattr(value, "fget", value)), "__module__", ""))
    ]
    assert [member for member in members if f"{name}.{member}" not in documented] == []


def test_what_is_public_in_a_class() -> None:
    box = sample()
    assert box.signature == "class Box"
    assert [member.name for member in box.members] == ["Box.label", "Box.of", "Box.open"]
    assert box.fields == (("depth", "int", "How deep | it is."),)


def test_signatures() -> None:
    label, of, opened = sample().members
    assert label.signature == "label: str | None"
    assert of.signature == "def of(*parts: int, **more: str) -> Box"
    assert opened.signature == "async def open(key: bytes, /, how=None, *, wait_s: float = 0) -> None"


def test_a_long_signature_has_a_line_for_each_parameter() -> None:
    node = ast.parse(f"def f(a: int, *, {'b' * 90}: str = 'x') -> None:\n '''Doc.'''").body[0]
    assert reference.function_entry(node, "f").signature == (
        f"def f(\n    a: int,\n    *,\n    {'b' * 90}: str = 'x',\n) -> None"
    )


def test_docstrings_become_markdown() -> None:
    box = sample()
    links = {"Box": "b.md#box", "Box.open": "b.md#boxopen", "Late": "e.md#late"}
    assert list(reference.rendered(box.members[0], links)) == ["What [`open`](b.md#boxopen) shows."]
    assert list(reference.rendered(box.members[1], links)) == ["A box of `parts`; see `more`."]
    assert list(reference.rendered(box.members[2], links)) == [
        "Open it with [`Box`](b.md#box).",
        "**Arguments:**",
        "- `key`: The key.\n- `how`: Or not.",
        "**Returns:** Nothing,\nfor long.",
        "**Raises:**",
        "- `Locked`, `Jammed`, `Gone`: as they say.\n- [`Late`](e.md#late): after `wait_s`.",
        "See `nothing`.",
    ]
    assert list(reference.rendered(box, links))[1:] == [
        "**Attributes (all bytes):**",
        "- `size`: How large,\n  with its walls.",
    ]


def test_a_page_shows_fields_and_members() -> None:
    text = "\n".join(reference.render_entry(sample(), {}))
    assert "| `depth` | `int` | How deep \\| it is. |" in text
    assert "### `Box.open`\n" in text


def test_a_name_that_is_not_there_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text("def f(): ...\n")
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    with pytest.raises(LookupError, match="has no docstring"):
        reference.entry_of("module.py", "f")
    with pytest.raises(LookupError, match="has no g"):
        reference.entry_of("module.py", "g")
