"""The page of the settings, read from the source: building the site needs neither torch nor pydantic.

A group of settings is a class with a name, as in `class Train(..., Group, name="train")`. Its fields, those of its
bases included, are annotated, and the string below a field says what it means. `tests/test_docs.py` compares what is
read here with what the command line lists.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the test has no mkdocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

MARK = "<!-- settings -->"
FOLDERS = ("suites/tasks", "suites")
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
TYPES = {"int": "integer", "float": "number", "bool": "true or false", "str": "text", "Depth": "integer 6n + 4"}


@dataclass
class Setting:
    """A field: its type, its default, which is its value at the preset `quick`, and its meaning."""

    type: str
    default: Any
    meaning: str


@dataclass
class Group:
    """A group: what it is of, its fields, and the values at other presets."""

    name: str
    meaning: str
    fields: dict[str, Setting]
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Put the groups where a page has the mark."""
    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, "\n".join(_lines(groups(Path(config.config_file_path).parent))))


def groups(root: Path) -> list[Group]:
    """Every group of settings in the source under `root`."""
    classes: dict[str, ast.ClassDef] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.py")):
            classes |= _classes(path, ".".join(path.relative_to(root).with_suffix("").parts))
    named = ((_name(node), node, place) for place, node in classes.items())
    return [_group(node, name, place, classes) for name, node, place in named if name is not None]


def _classes(path: Path, module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module by `module.name`, their bases written in the same way."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    places = {node.name: f"{module}.{node.name}" for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            places |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.bases = [ast.Name(places.get(ast.unparse(base), ast.unparse(base))) for base in node.bases]
            found[places[node.name]] = node
    return found


def _name(node: ast.ClassDef) -> str | None:
    return next((ast.literal_eval(word.value) for word in node.keywords if word.arg == "name"), None)


def _group(node: ast.ClassDef, name: str, place: str, classes: dict[str, ast.ClassDef]) -> Group:
    made = Group(name, _joined(ast.get_docstring(node)), {})
    for part in _lineage(place, classes):
        for item, below in zip(part.body, [*part.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or item.value is None:
                continue
            field_name = ast.unparse(item.target)
            if field_name == "presets":
                made.presets = ast.literal_eval(item.value)
            elif "ClassVar" not in ast.unparse(item.annotation):
                made.fields[field_name] = _setting(item.annotation, item.value, below)
    return made


def _lineage(place: str, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """The class after its bases, so that what it says of a field replaces what they say."""
    if place in classes:
        for base in reversed(classes[place].bases):
            yield from _lineage(ast.unparse(base), classes)
        yield classes[place]


def _setting(annotation: ast.expr, value: ast.expr, below: ast.stmt | None) -> Setting:
    ranged = ""
    if isinstance(value, ast.Call):  # Field(8, ge=1)
        signs = [(SIGNS[word.arg], ast.literal_eval(word.value)) for word in value.keywords if word.arg in SIGNS]
        ranged = " and ".join(f"{sign} {number:g}" for sign, number in signs)
        value = value.args[0]
    meaning = ""
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
        meaning = _joined(str(below.value.value))
    return Setting(f"{_type(annotation)} {ranged}".strip(), ast.literal_eval(value), meaning)


def _type(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript):
        inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if ast.unparse(annotation.value) == "Literal":
            return " or ".join(f"`{ast.literal_eval(one)}`" for one in inside)
        return _type(inside[0])  # Annotated[str, …], tuple[float, ...]
    name = ast.unparse(annotation)
    return TYPES.get(name, name)


def _joined(text: str | None) -> str:
    return " ".join((text or "").split())


def _lines(found: list[Group]) -> Iterator[str]:
    for group in sorted(found, key=lambda one: one.name):
        yield f"## `{group.name}`\n\n{group.meaning}\n"
        if not group.fields:
            continue
        yield "| setting | type | `quick` | other presets | meaning |\n|---|---|---|---|---|"
        for name, one in group.fields.items():
            others = [f"{preset}: `{values[name]}`" for preset, values in group.presets.items() if name in values]
            meaning = one.meaning.replace("|", "\\|")
            yield f"| `{group.name}.{name}` | {one.type} | `{one.default}` | {'<br>'.join(others)} | {meaning} |"
        yield ""
