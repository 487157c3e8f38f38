"""The documentation against the code: links, paths, tables of names, settings, options, fields and an example.

`tox -e docs` checks every link inside the site; here are those that lead into it, and what a build cannot know.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import estimators
import suites
from estimators import options
from results import schema
from suites import __main__ as program
from suites import presets, rivals, suite, tasks
from suites.commands import source
from suites.commands.setting_list import listed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def cells(page: str) -> set[str]:
    """Every name in backticks in the first cell of a table row."""
    rows = re.findall(r"^\|([^|]*)\|", text(page), re.MULTILINE)
    return {name for cell in rows for name in re.findall(r"`([\w-]+)", cell)}


# --- links ----------------------------------------------------------------------------------------------------------


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_no_dead_link(name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", (ROOT / name).read_text("utf-8")):
        there = ROOT / target if target else ROOT / name
        assert there.exists(), f"{name} links to {target}"
        assert not anchor or anchor in slugs(there), f"{name} links to {target}#{anchor}"


def test_code_names_pages_that_there_are() -> None:
    """In comments, docstrings, messages and templates."""
    files = [path for folder in ("estimators", "vmo", "suites", "results") for path in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "results" / "templates").iterdir(), *Path(__file__).parent.glob("*.py"), ROOT / "README.md"]
    named = {(path, page) for path in files for page in re.findall(r"\bdocs/([\w/-]+\.md)", path.read_text("utf-8"))}
    assert len(named) > 5
    assert not [f"{path.name}: docs/{page}" for path, page in named if page not in PAGES]


# --- tables ---------------------------------------------------------------------------------------------------------


def test_every_task_and_suite_has_a_row() -> None:
    assert {*tasks.available(), *suite.available()} <= cells("reference/tasks.md")


def test_every_rival_has_a_row_with_all_of_its_options_and_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)", text("reference/tasks.md"), re.MULTILINE))
    for name in rivals.available():
        for option, default in options.defaults(rivals.get(name)).items():
            said = f"{default:f}".rstrip("0") if isinstance(default, float) else default
            assert f"`{option}={said}`" in rows[name], f"the row of {name} lacks {option}={said}"


def test_every_field_of_a_row_is_explained() -> None:
    fields = {*schema.MEASURED, *schema._CELL, *schema._PROVENANCE}
    assert fields <= cells("reference/rows.md")


def test_every_command_and_option_is_listed() -> None:
    page = text("reference/command-line.md")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for command in program.COMMANDS:
        typed = re.findall(r"--[\w-]+", command.parser().format_help())
        usual = {"--help", "--version", "--config", "--print_config"}
        missing = {*typed} - usual - {*re.findall(r"--[\w-]+", sections[command.name])}
        assert not missing, f"the section of {command.name} lacks {', '.join(sorted(missing))}"


def test_every_public_name_is_in_the_api() -> None:
    pages = [text(page) for page in PAGES if page.startswith("reference/api-")]
    said = {name for page in pages for name in re.findall(r"\w+", page)}
    assert {*estimators.__all__, *suites.__all__} <= said


def test_every_example_has_a_tutorial() -> None:
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    included = {name for page in PAGES for name in re.findall(r'--8<-- "examples/(\w+\.py)"', text(page))}
    assert examples and examples == included


# --- what the hooks read --------------------------------------------------------------------------------------------


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "hooks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_the_page_of_settings_has_what_the_command_line_lists(preset: str) -> None:
    groups = {group.group: group.at(preset) for group in presets.groups()}
    expected = {
        one["name"]: (one["value"], one["meaning"], one["group"])
        for one in listed(presets.settings.Preset(preset, groups))
    }
    found = {
        f"{group.name}.{name}": (group.presets.get(preset, {}).get(name, one.default), one.meaning, group.meaning)
        for group in hook("settings").groups(ROOT)
        for name, one in group.fields.items()
    }
    assert found == expected


def test_the_page_of_estimators_has_every_one_and_all_of_its_options() -> None:
    made = hook("estimator_tables")
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \|(.*)", "\n".join(made.table()), re.MULTILINE))
    sections = re.split(r"^### ", "\n".join(made.options()), flags=re.MULTILINE)
    found = {re.match(r"`(\w+)`", one)[1]: one for one in sections if one}  # type: ignore[index]
    own = [name for name, place in source.estimators().items() if str(place).startswith("estimators.")]
    assert sorted(rows) == sorted(found) == own
    for name in own:
        described = source.describe(source.estimators()[name])
        lines = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \| \S", found[name], re.MULTILINE))
        assert lines == described.options, f"an option of {name} has no meaning"
    assert "slopes ∂f/∂sample" in rows["concrete"] and "soft" in rows["concrete"]


def test_every_estimator_that_gives_a_sample_is_listed() -> None:
    listed = re.findall(r"^\| a sample \|(.*?)\|", text("how-to/drop-in.md"), re.MULTILINE)[0]
    own = [name for name, place in source.estimators().items() if str(place).startswith("estimators.")]
    pathwise = {name for name in own if estimators.factory(name).pathwise}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(\w+)`", listed)) == pathwise


# --- examples -------------------------------------------------------------------------------------------------------


def test_the_estimator_of_the_guide_is_unbiased() -> None:
    """Within 5 standard errors of enumeration in 7 numbers: a false alarm in 250,000 seeds."""
    code = re.findall(r"```python\n(.*?)```", text("how-to/add-an-estimator.md"), re.DOTALL)[0]
    names: dict[str, Any] = {"__name__": "antithetic"}
    exec(compile(code, "antithetic", "exec", dont_inherit=True), names)
    made = names["Antithetic"](sizes=(3, 4), centre=0.5)
    generator = torch.Generator().manual_seed(0)
    logits = tuple(torch.randn(1, size, generator=generator) for size in (3, 4))
    value = torch.randn(3, 4, generator=generator)

    def objective(sample: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.einsum("...i,ij,...j->...", sample[0], value, sample[1])

    exact = estimators.get("exact", sizes=(3, 4)).estimate(objective, logits, ()).grads
    rows = tuple(site.expand(20_000, -1) for site in logits)
    grads = made.estimate(objective, rows, made.draw(rows, generator)).grads
    for one, truth in zip(grads, exact, strict=True):
        error = (one.mean(0) - truth[0]).abs() / (one.std(0) / np.sqrt(len(one)))
        assert error.max() < 5


def test_the_example_of_the_home_page() -> None:
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text("index.md"), re.DOTALL)[0], names)
    assert names["logits"].grad.isfinite().all()


def test_the_examples_of_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the page, in less time, and what is asked of its result."""
    first, second, *_ = re.findall(r"```python\n(.*?)```", text("tutorials/compare.md"), re.DOTALL)
    assert "seconds=30" in first
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(first.replace("seconds=30", "seconds=1, estimators=['exact', 'rloo'], quiet=True"), names)
    exec(second, names)
    assert names["result"].best() == "exact" and (tmp_path / "error.png").stat().st_size > 0
