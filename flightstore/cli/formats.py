"""The value of --format: a format's name or one of its extensions. The formats are those of
`flightstore.connectors.sources`. Calls click and that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from flightstore.connectors.sources.formats import (
    EXTENSIONS,
    FORMATS,
    PACKINGS,
    Format,
    detect_format,
    ends,
    format_for,
    format_of,
    packing_of,
    stem,
)

if TYPE_CHECKING:
    _ParamType = click.ParamType[str]  # a plain class in older versions of click
else:
    _ParamType = click.ParamType

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "PACKINGS",
    "Format",
    "FormatName",
    "detect_format",
    "format_for",
    "format_of",
    "packing_of",
    "stem",
]


class FormatName(_ParamType):
    """The value of --format: a format's name or one of its extensions, with or without a packing."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """How the help shows the value."""
        return "FORMAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The format's own name."""
        text = str(value).lower().removeprefix(".")
        if text in FORMATS:
            return text
        found = ends().get(f".{text}")
        return found if found is not None else self._refuse(text, param, ctx)

    def _refuse(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        packed = ", ".join(one.name for one in FORMATS.values() if one.packed)
        packings = ", ".join(f".{packing}" for packing in PACKINGS)
        self.fail(
            f"{text!r} is none of {', '.join(FORMATS)}; {packed} may be followed by one of {packings}",
            param,
            ctx,
        )

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The names that begin so; packed ones once the format is written out."""
        names = [*FORMATS]
        if "." in incomplete:
            names = [f"{one}.{packing}" for one in FORMATS if FORMATS[one].packed for packing in PACKINGS]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
