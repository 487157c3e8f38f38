"""The tables of the page of estimators: rows of the README, the registry, and options as the source defines them.

`tests/test_docs.py` checks that every estimator and every option is in them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from results import registry  # noqa: E402 — as the next, it needs only the standard library
from suites.commands import source  # noqa: E402

if TYPE_CHECKING:  # the test has no mkdocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

TABLE, OPTIONS = "<!-- estimators -->", "<!-- options -->"


def on_config(config: MkDocsConfig) -> None:
    """Find the packages again: mkdocs restores the path after it has loaded a hook."""
    sys.path.append(str(ROOT))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Put the tables where a page has the marks."""
    for mark, lines in ((TABLE, table), (OPTIONS, options)):
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def table() -> Iterator[str]:
    """A row for every estimator, in the order of the README."""
    needs = tomllib.loads((ROOT / "results/templates/words.toml").read_text(encoding="utf-8"))["needs"]
    yield "| name | unbiased | evaluations of f | needs, besides values of f | what it is |\n|---|---|---|---|---|"
    for name, unbiased, _, cost, what in rows():
        said = ", ".join(needs[need] for need in registry.estimators()[name]["needs"])
        what = re.sub(r" \(\[explanation\]\(docs/(.*?)\)\)", r" ([explanation](../\1))", what)
        yield f"| [`{name}`](#{name}) | {unbiased} | {cost} | {said} | {what} |"


def options() -> Iterator[str]:
    """For every estimator the default and the meaning of each option."""
    for name, *_ in rows():
        described = source.describe(registry.estimators()[name]["class"])
        yield f"### `{name}`\n\n{described.own}\n"
        if described.options:
            yield "| option | default | meaning |\n|---|---|---|"
        for option, default in described.options.items():
            meaning = described.meanings.get(option, "").replace("|", "\\|")
            yield f"| `{option}` | `{default}` | {meaning} |"
        yield ""


def rows() -> list[list[str]]:
    """The cells of the README's table of estimators."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Estimators")[2].partition("\n## ")[0]
    lines = (line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `"))
    return [[name.strip("`"), *rest] for name, *rest in lines]
