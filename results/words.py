"""The text of the report: its templates, and the titles of suites, tasks, quantities and figures.

They are in ``results/templates``. Anything without an entry there, for example from another package, is shown by name.
"""

import functools
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

_TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _words() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_TEMPLATES / "words.toml").read_text(encoding="utf-8"))


def render(template: str, **found: Any) -> str:
    """Render a page from its template."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=select_autoescape(["html.j2"]),
    )
    made.filters["markdown"] = markdown
    text = made.get_template(template).render(**found)
    return text.rstrip() + "\n"


def file(name: str) -> str:
    """The text of a file beside the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table. Labels of estimators and presets are code, so that they are not read as markup."""
    text = frame.astype("str").replace({"nan": "", "None": "", "<NA>": ""}).replace({r"\|": r"\\|"}, regex=True)
    for column in {"estimator", "preset", "model"} & set(text):
        text[column] = text[column].map(code)
    found: str = text.to_markdown(index=False, disable_numparse=True)
    return found


def code(label: str) -> str:
    """A label as Markdown code; bold labels stay bold."""
    if label.startswith("**") and label.endswith("**"):
        return f"**{code(label[2:-2])}**"
    return f"`{label}`" if label else ""


def ordered(names: Iterable[str], section: str) -> list[str]:
    """Names in the order of a section of words.toml, then all others."""
    there, known = set(names), list(_words()[section])
    return [*(name for name in known if name in there), *sorted(there - {*known})]


def suite(name: str) -> str:
    """The heading of a suite."""
    return _words()["suites"].get(name) or checks().get(name) or f"Suite {name}"


def checks() -> dict[str, str]:
    """Suites whose rows belong to no task, with their headings."""
    return _words()["checks"]


def task(name: str) -> str:
    """The heading of a task."""
    return _words()["tasks"].get(name, name.capitalize())


def dataset(name: str) -> str:
    """The name of a data set in figures."""
    return _words()["datasets"].get(name, name)


def needs() -> dict[str, str]:
    """What an estimator may need of f beside its values, with words for it."""
    return _words()["needs"]


def libraries() -> dict[str, dict[str, Any]]:
    """What estimators of other libraries claim and need, by name; see `results.known`."""
    return _words()["libraries"]


def metric(name: str, units: Iterable[str] = ()) -> str:
    """The heading of a column: what was measured and, if there is exactly one, its unit."""
    said = _words()["metrics"].get(name, name.replace("_", " "))
    named = {_words()["units"].get(unit, unit) for unit in units} - {""}
    return f"{said}, {named.pop()}" if len(named) == 1 else said


def caption(kind: str) -> str:
    """The caption of a figure."""
    return _words()["figures"].get(kind, kind.replace("_", " "))


def title(kind: str) -> str:
    """The first sentence of the caption of a figure."""
    return caption(kind).partition(". ")[0].removesuffix(".")
