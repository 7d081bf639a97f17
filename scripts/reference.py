"""Write docs/reference/: the public names, with their signatures and docstrings.

Read from the source without importing it, so that the pages depend on nothing else. `make docs` runs this; a
test fails when a page is older than the docstrings. What is on which page: `make_pages`, at the end.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Made by `make docs` from the docstrings. Do not edit. -->"
LINE = 88
"""Longer signatures have a line for each parameter."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Links = dict[str, str]
"""Public name, with its class where it has one -> address from within docs/reference/."""


# --- from source to entries ---


@dataclass(frozen=True)
class Entry:
    """One public name."""

    name: str
    """As it is written by users, ``Store.put`` for a method."""
    signature: str
    """Python, without a body."""
    doc: str
    """The docstring, its indentation removed."""
    bases: tuple[str, ...] = ()
    """What a class derives from."""
    fields: tuple[tuple[str, str, str], ...] = ()
    """(name, type, meaning) of a class that is a record."""
    members: tuple[Entry, ...] = field(default=())
    """Methods and properties of a class."""


@cache
def module_at(path: str) -> ast.Module:
    """A file of the repository, parsed."""
    return ast.parse((ROOT / path).read_text(), filename=path)


def entry_of(path: str, name: str, shown: str = "") -> Entry:
    """The entry of a name at the top of a file.

    Raises:
        LookupError: it is not there, or has no docstring.
    """
    body = module_at(path).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return class_entry(node, shown or name)
        if isinstance(node, Function) and node.name == name:
            return function_entry(node, shown or name)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value is not None:
            return Entry(shown or name, f"{name} = {ast.unparse(node.value)}", text_of(following))
    raise LookupError(f"{path} has no {name}")


def text_of(node: ast.stmt | None) -> str:
    """The docstring that stands below an attribute; empty if there is none."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return cleaned(node.value.value)
    return ""


def cleaned(text: str) -> str:
    """A docstring without the indentation of its source."""
    first, _, rest = text.strip().partition("\n")
    margin = min((len(line) - len(line.lstrip()) for line in rest.splitlines() if line.strip()), default=0)
    return "\n".join([first, *(line[margin:] for line in rest.splitlines())]).strip()


def documented(node: ast.ClassDef | Function, shown: str) -> str:
    doc = ast.get_docstring(node)
    if not doc:
        raise LookupError(f"{shown} has no docstring")
    return doc


def class_entry(node: ast.ClassDef, shown: str) -> Entry:
    """A class, with what is public in it."""
    bases = tuple(name for base in node.bases if (name := ast.unparse(base)) not in ("ABC", "Protocol"))
    members = tuple(
        function_entry(item, f"{shown}.{item.name}")
        for item in node.body
        if isinstance(item, Function) and not item.name.startswith("_") and ast.get_docstring(item)
    )
    special = tuple(
        function_entry(item, f"{shown}.{item.name}")
        for item in node.body
        if isinstance(item, Function) and item.name in SHOWN_SPECIAL and ast.get_docstring(item)
    )
    signature = f"class {shown}" + (f"({', '.join(bases)})" if bases else "")
    return Entry(shown, signature, documented(node, shown), bases, tuple(fields_of(node)), members + special)


RAY = ("from_ray", "to_ray", "register", "deploy", "from_ray_dataset", "to_ray_dataset")
SHOWN_SPECIAL = ("__getitem__", "__setitem__", "__reduce__", "__arrow_c_stream__", "__dlpack__", "__array__")


def fields_of(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """The annotated attributes of a class that have a docstring below them."""
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.AnnAssign) and not ast.unparse(item.target).startswith("_"):
            doc = text_of(following)
            if doc:
                yield ast.unparse(item.target), ast.unparse(item.annotation), doc


def function_entry(node: Function, shown: str) -> Entry:
    """A function, method or property."""
    doc = documented(node, shown)
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if "property" in decorators:
        return Entry(shown, f"{node.name}: {result.removeprefix(' -> ')}", doc)
    given = list(parameters(node.args))
    if given and given[0] in ("self", "cls"):
        given.pop(0)
    start = ("async " if isinstance(node, ast.AsyncFunctionDef) else "") + f"def {node.name}("
    line = f"{start}{', '.join(given)}){result}"
    if len(line) > LINE:
        line = "\n".join([start, *(f"    {parameter}," for parameter in given), f"){result}"])
    return Entry(shown, line, doc)


def parameters(arguments: ast.arguments) -> Iterator[str]:
    """Each parameter as it is written in a ``def``, and the ``*`` or ``/`` between them."""
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(positional) - len(arguments.defaults))
    for number, (argument, default) in enumerate(
        zip(positional, [*missing, *arguments.defaults], strict=True), 1
    ):
        yield parameter(argument, default)
        if number == len(arguments.posonlyargs):
            yield "/"
    if arguments.vararg:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield parameter(argument, default)
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    if default is None:
        return ast.unparse(argument)
    equals = " = " if argument.annotation is not None else "="
    return f"{ast.unparse(argument)}{equals}{ast.unparse(default)}"


# --- from docstrings to Markdown ---

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields)( \(.*\))?:$")
TITLES = {"Args": "Arguments"}
ROLE = re.compile(r":(?:meth|class|func|data|mod):`([^`]+)`")


def sections(doc: str) -> Iterator[tuple[str, list[str]]]:
    """(title, lines) of the parts of a docstring, not indented; the first has no title."""
    title, lines = "", list[str]()
    for line in doc.splitlines():
        match = SECTION.match(line)
        if match is not None:
            yield title, lines
            title, lines = TITLES.get(match[1], match[1]) + (match[2] or ""), []
        elif title and line and not line.startswith(" "):
            yield title, lines
            title, lines = "", [line]
        else:
            lines.append(line.removeprefix("    ") if title else line)
    yield title, lines


def items(lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """(names, text) of the entries of a section; names may go over several lines."""
    head, text = "", ""
    for line in lines:
        if line.startswith(" "):
            text += f"\n  {line.strip()}"
        elif line.strip():
            if text:
                yield head.split(", "), text
                head, text = "", ""
            before, colon, after = line.partition(":")
            head = f"{head} {before}".strip()
            text = after.strip() if colon else ""
    if head:
        yield head.split(", "), text


def prose(text: str, link: Callable[[str], str]) -> str:
    """Text of a docstring as Markdown: references become links, double backticks single ones."""
    text = ROLE.sub(lambda match: link(match[1]), text)
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)


def link_to(links: Links, around: str, name: str) -> str:
    """A link to a public name, as it is called within the class `around`; plain code if it has no entry."""
    name = name.removeprefix("~").removeprefix("flightstore.")
    target = links.get(f"{around}.{name}") or links.get(name)
    return f"[`{name}`]({target})" if target else f"`{name}`"


def rendered(entry: Entry, links: Links) -> Iterator[str]:
    """The docstring of an entry, paragraph by paragraph."""
    link = partial(link_to, links, entry.name.partition(".")[0])
    for title, lines in sections(entry.doc):
        text = "\n".join(lines).strip("\n")
        if not text:
            continue
        if not title or title.startswith(("Returns", "Yields")):
            yield (f"**{title}:** " if title else "") + prose(text, link)
            continue
        yield f"**{title}:**"
        yield "\n".join(
            f"- {', '.join(link(name) for name in names)}: {prose(text, link)}"
            for names, text in items(lines)
        )


def first_sentence(entry: Entry, links: Links) -> str:
    """What an entry is, in one line."""
    paragraph = entry.doc.partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.)\s", paragraph)[0].rstrip(".:")
    return prose(sentence, partial(link_to, links, entry.name.partition(".")[0])).replace("|", "\\|")


# --- pages ---


@dataclass(frozen=True)
class Page:
    """One page of the reference."""

    file: str
    title: str
    introduction: str
    entries: tuple[Entry, ...]


def anchor(name: str) -> str:
    """What GitHub calls a heading of this text."""
    return re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")


def every_entry(page: Page) -> Iterator[Entry]:
    """The entries of a page and their members."""
    for entry in page.entries:
        yield entry
        yield from entry.members


def links_of(pages: list[Page]) -> Links:
    """Where each public name is."""
    return {entry.name: f"{page.file}#{anchor(entry.name)}" for page in pages for entry in every_entry(page)}


def render_entry(entry: Entry, links: Links, level: str = "##") -> Iterator[str]:
    """An entry with its members."""
    yield f"{level} `{entry.name}`"
    yield f"```py\n{entry.signature}\n```"
    yield from rendered(entry, links)
    link = partial(link_to, links, entry.name)
    if entry.fields:
        rows = [
            f"| `{name}` | `{kind.replace('|', chr(92) + '|')}` | {one_line(doc, link)} |"
            for name, kind, doc in entry.fields
        ]
        yield "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])
    if len(entry.members) > 4:
        rows = [
            f"| [`{name.partition('.')[2]}`](#{anchor(name)}) | {first_sentence(member, links)} |"
            for member in entry.members
            for name in [member.name]
        ]
        yield "\n".join(["| | |", "|---|---|", *rows])
    for member in entry.members:
        yield from render_entry(member, links, "###")


def one_line(doc: str, link: Callable[[str], str]) -> str:
    return prose(doc.replace("\n\n", " ").replace("\n", " "), link).replace("|", "\\|")


def render_page(page: Page, links: Links) -> str:
    """A page."""
    start = [f"# {page.title}", NOTE, page.introduction]
    parts = [part for entry in page.entries for part in render_entry(entry, links)]
    return "\n\n".join([*start, *parts]) + "\n"


def render_index(pages: list[Page], links: Links) -> str:
    """The page that lists all names."""
    parts = ["# Reference", NOTE, "Every public name. All are made from the docstrings in the source."]
    for page in pages:
        parts.append(f"## [{page.title}]({page.file})")
        rows = [
            f"| [`{entry.name}`]({links[entry.name]}) | {first_sentence(entry, links)} |"
            for entry in page.entries
        ]
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def render() -> dict[str, str]:
    """File name -> text of every page.

    Raises:
        LookupError: a name is not where PAGES says, or has no docstring.
    """
    pages = make_pages()
    links = links_of(pages)
    return {"index.md": render_index(pages, links)} | {page.file: render_page(page, links) for page in pages}


# --- what is on which page ---


CONTRACT = {
    "__init__": "AbstractStore",
    "composing": "AbstractComposing",
    "streaming": "AbstractStreaming",
    "keeping": "AbstractKeeping",
    "sessions": "AbstractSessions",
    "batches": "AbstractBatching",
    "events": "AbstractSubscribing",
}
"""The files of flightstore/abc, and the class in each, in the order of the page."""
MIXINS = {
    "attached": "Attached",
    "composing": "Composing",
    "streaming": "Streaming",
    "borrowing": "Borrowing",
    "keeping": "Keeping",
    "sessions": "Sessions",
    "batches": "Batching",
    "events": "Subscribing",
}
"""The same for flightstore/store."""


def store_entry() -> Entry:
    """The contract's methods and those that only the local store has, as one class."""
    parts = [entry_of(f"flightstore/abc/{file}.py", name, "Store") for file, name in CONTRACT.items()]
    promised = tuple(member for part in parts for member in part.members)
    local = entry_of("flightstore/store/local.py", "Store")
    known = {member.name for member in promised}
    mixins = [entry_of(f"flightstore/store/{file}.py", name, "Store") for file, name in MIXINS.items()]
    bases = [*mixins, local]
    own = tuple(member for part in bases for member in part.members if member.name not in known)
    return Entry("Store", "class Store(AbstractStore)", local.doc, local.bases, (), promised + own)


def all_of(path: str) -> tuple[Entry, ...]:
    """Every class that a file exports, in its order."""
    names = [node.name for node in module_at(path).body if isinstance(node, ast.ClassDef)]
    return tuple(entry_of(path, name) for name in names)


def error_table(errors: tuple[Entry, ...]) -> str:
    """The errors, and as what builtin exceptions they may be caught."""
    known = {error.name: error for error in errors}

    def builtins_of(error: Entry) -> Iterator[str]:
        for base in error.bases:
            yield from builtins_of(known[base]) if base in known else (f"`{base}`",)

    rows = [
        f"| [`{error.name}`](#{anchor(error.name)}) | "
        f"{', '.join(dict.fromkeys(found for found in builtins_of(error) if found != '`Exception`'))} | "
        f"{first_sentence(error, {})} |"
        for error in errors[1:]
    ]
    return "\n".join(["| error | you may catch it as | when |", "|---|---|---|", *rows])


def make_pages() -> list[Page]:
    """The reference, page by page."""
    types = [entry_of("flightstore/types.py", "Ref")]
    errors = all_of("flightstore/errors.py")
    return [
        Page(
            "store.md",
            "The store",
            "`import flightstore as fs`, then `store = fs.connect()`. The methods are those of "
            "`flightstore.abc.AbstractStore`, which every store implements; the last ones are this "
            "store's own. `Ref` is a name (`str`) or an id ([`ObjectID`](values.md#objectid)). A `timeout` "
            "is seconds: 0 does not wait, `None` waits for ever. Any thread may call any method.",
            (
                entry_of("flightstore/store/local.py", "connect"),
                store_entry(),
                entry_of("flightstore/store/session.py", "Session"),
            ),
        ),
        Page(
            "builders.md",
            "Builders",
            "What [`Store.create`](store.md#storecreate) and "
            "[`Store.create_table`](store.md#storecreate_table) return: objects that are filled in "
            "place; and [`Store.create_stream`](store.md#storecreate_stream): tables written batch by batch. "
            "The protocols are in `flightstore.abc`.",
            (*all_of("flightstore/abc/building.py"), *all_of("flightstore/abc/streaming.py")[:2]),
        ),
        Page(
            "batches.md",
            "Batches",
            "What [`Store.batch`](store.md#storebatch) returns. [How to use batches](../how-to/batches.md).",
            (entry_of("flightstore/abc/batches.py", "AbstractBatch", "Batch"),),
        ),
        Page(
            "events.md",
            "Events",
            "What [`Store.subscribe`](store.md#storesubscribe) and "
            "[`Store.on_added`](store.md#storeon_added) return. [How to use them](../how-to/events.md). "
            "[`Event`](values.md#event) is what happened.",
            (
                entry_of("flightstore/abc/events.py", "Subscription"),
                entry_of("flightstore/abc/events.py", "EventCallback"),
            ),
        ),
        Page(
            "objects.md",
            "Objects",
            "What [`Store.get`](store.md#storeget) returns: one class for each kind. Each has all of "
            "[`Object`](#object), and its own. `Object` is in `flightstore`, the others are in "
            "`flightstore.objects.table`, `.tensor`, `.blob` and `.pyobject`.",
            (
                entry_of("flightstore/objects/base.py", "Object"),
                entry_of("flightstore/objects/table.py", "Table"),
                entry_of("flightstore/objects/tensor.py", "Tensor"),
                entry_of("flightstore/objects/blob.py", "Blob"),
                entry_of("flightstore/objects/pyobject.py", "PyObject"),
            ),
        ),
        Page(
            "values.md",
            "Ids, reports and figures",
            "Plain values that the store takes and returns. Sizes are bytes, durations seconds, times "
            "nanoseconds since 1970.",
            (*types, *all_of("flightstore/types.py"), entry_of("flightstore/lifecycle/fsck.py", "Finding")),
        ),
        Page(
            "errors.md",
            "Errors",
            "Every error that flightstore raises on purpose. Each is also the builtin that you would catch "
            "anyway, names the object, and carries `hint`: what to do next. All are in `flightstore` itself."
            "\n\n" + error_table(errors),
            errors,
        ),
        Page(
            "connectors.md",
            "Connectors",
            "How types of other libraries become objects of the store, and come back. "
            "[How to write one](../how-to/connectors.md). In `flightstore.connectors`.\n\n"
            "flightstore's own are those of pandas, polars, [DuckDB and Dask](engines.md), and "
            "[JAX and PyTorch](../how-to/tensors.md); "
            "[`Table.to_pandas`](objects.md#tableto_pandas) and "
            "[`Table.to_polars`](objects.md#tableto_polars) say what they do.",
            (
                entry_of("flightstore/objects/connector.py", "Connector"),
                entry_of("flightstore/objects/connector.py", "register"),
                entry_of("flightstore/objects/connector.py", "unregister"),
            ),
        ),
        Page(
            "ray.md",
            "Ray",
            "Objects handed over without a copy, both ways, and a gateway on every node. "
            "[How to use it](../how-to/ray.md). In `flightstore.connectors.ray`.",
            (
                *(entry_of("connectors/ray/__init__.py", name) for name in RAY),
                entry_of("connectors/ray/deploying.py", "Deployment"),
            ),
        ),
        Page(
            "sources.md",
            "Files and routines",
            "Reading and writing files, cutting, joining and sorting tables. "
            "[How to use them](../how-to/files.md). In `flightstore.connectors.sources`.",
            (
                entry_of("connectors/sources/reading.py", "read"),
                entry_of("connectors/sources/writing.py", "write"),
                entry_of("connectors/sources/writing.py", "WriteResult"),
                entry_of("connectors/sources/adopting.py", "adopt"),
                entry_of("connectors/sources/routines.py", "partition"),
                entry_of("connectors/sources/routines.py", "chunk"),
                entry_of("connectors/sources/routines.py", "repartition"),
                entry_of("connectors/sources/routines.py", "concat"),
                entry_of("connectors/sources/routines.py", "sort_within"),
                entry_of("connectors/sources/routines.py", "Parts"),
                entry_of("connectors/sources/routines.py", "RoutineReport"),
                entry_of("connectors/sources/units.py", "FileUnreadable"),
                entry_of("connectors/sources/writing.py", "FileTaken"),
            ),
        ),
        Page(
            "engines.md",
            "DuckDB, Dask, polars' scan",
            "Functions beside the connectors: [DuckDB](../how-to/duckdb.md), [Dask](../how-to/dask.md), "
            "[polars](../how-to/polars-scan.md). Headings say the module, in `flightstore.connectors`.",
            (
                *[
                    entry_of("connectors/duckdb.py", name, f"duckdb.{name}")
                    for name in ("query", "register", "to_duckdb", "from_duckdb", "dataset")
                ],
                entry_of("connectors/dask.py", "to_dask", "dask.to_dask"),
                entry_of("connectors/dask.py", "from_dask", "dask.from_dask"),
                entry_of("connectors/polars/scanning.py", "scan", "polars.scan"),
            ),
        ),
        Page(
            "storages.md",
            "Spill storages",
            "Where the payload of spilled objects lies outside of memory. "
            "[How to choose one, and how to write one](../how-to/spill-storage.md). "
            "`register_spill_storage` is in `flightstore`, the rest in `flightstore.abc.storage`.",
            (
                entry_of("flightstore/lifecycle/storages.py", "register_spill_storage"),
                entry_of("flightstore/abc/storage.py", "SpillStorage"),
                entry_of("flightstore/abc/storage.py", "SpillStorageFactory"),
                entry_of("flightstore/abc/storage.py", "check_spill_name"),
                entry_of("flightstore/abc/storage.py", "is_spill_name"),
                entry_of("flightstore/abc/storage.py", "masked_url"),
            ),
        ),
        Page(
            "backends.md",
            "Backends",
            "What the author of a store of another kind uses. "
            "[How to write one, and have it tested](../how-to/write-a-backend.md). `partial_store` is in "
            "`flightstore.abc.partial`, the rest in `flightstore.testing.stores`.",
            (
                entry_of("flightstore/abc/partial.py", "partial_store"),
                entry_of("flightstore/testing/stores/backend.py", "Capability"),
                entry_of("flightstore/testing/stores/backend.py", "Backend"),
                entry_of("flightstore/testing/stores/suite.py", "StoreSuite"),
                entry_of("flightstore/testing/stores/types.py", "StoreTypeSuite"),
                entry_of("flightstore/testing/storages.py", "StorageSuite"),
            ),
        ),
    ]


def main() -> int:
    """Write the pages."""
    try:
        pages = render()
    except LookupError as error:
        print(f"reference: {error}", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
