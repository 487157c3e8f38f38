"""The page itself: rows in, one file of HTML out."""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from results import known, palette, report, statements, summary, table, words
from results.explorer import places, ranks
from results.explorer.places import Place

FILE = "explorer.html"
HIGHLIGHTED = 8
"""Estimators that stand out at first."""
EXTRA = "html"
_NEEDED = ("plotly", "itables")
_QUANTITIES = {
    "relative bias": "bias² / ‖∇‖²",
    "variance": "variance, tr Σ",
    "variance × cost": "variance × cost",
    "peak memory": "peak memory / plain",
    "step time": "step time / plain",
    "objective gap": "gap to the optimum",
}
"""Headings of the table, where a quantity needs another than its name."""


def build(
    rows_directories: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    only: Mapping[str, Collection[str]] | None = None,
) -> Path:
    """Read the rows, write ``out/explorer.html`` and return its path.

    Of several directories the first has one's own rows. Estimators of others are marked where one's own rows have them
    too.

    Args:
        only: the values to keep of some of `results.report.FILTERS`.

    Raises:
        TableError: there are no such rows, a file of them is damaged, or the libraries of the page are missing.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise table.TableError(
            f"the page needs {' and '.join(missing)}: pip install 'vmo-gradient-bench[{EXTRA}]'"
        )
    whole = table.read(*rows_directories)
    if whole.empty:
        raise table.TableError(f"no rows in {', '.join(map(str, rows_directories))}; python -m suites.run makes them")
    whole = report.chosen(whole, only or {})
    own = table.hashes(rows_directories[0]) if len(rows_directories) > 1 else set()
    path = Path(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(whole, own & set(whole["hash"])), encoding="utf-8")
    return path


def _page(whole: pd.DataFrame, own: Collection[str]) -> str:
    plotly, itables = importlib.import_module("plotly.offline"), Path(str(importlib.import_module("itables").__file__))
    bundle = itables.parent / "html" / "dt_bundle"
    found = data(whole, own)
    return words.render(
        "explorer.html.j2",
        found=found,
        cells=whole["hash"].nunique(),
        failed=whole.loc[whole["status"] != "ok", "hash"].nunique(),
        rows=len(whole),
        statements=found["statements"],
        needs=words.needs(),
        most=HIGHLIGHTED,
        style=Markup(bundle.with_suffix(".css").read_text(encoding="utf-8") + words.file("explorer.css")),
        plotly=Markup(plotly.get_plotlyjs()),
        tables=Markup(bundle.with_suffix(".js").read_text(encoding="utf-8")),
        script=Markup(words.file("explorer.js")),
        data=packed(found),
    )


def data(whole: pd.DataFrame, own: Collection[str]) -> dict[str, Any]:
    """Everything that the page shows, as JSON has it."""
    import plotly.io

    from results.explorer import contests, gradients, numbers, training, verdicts

    frame = places.compared(whole, own)
    claims, looks = known.table(frame), palette.looks(frame)
    kept = numbers.Rows(frame)
    tasks = words.ordered(frame["task"], "tasks")
    of_task = {task: places.places(frame, task) for task in tasks}
    tables: dict[str, Any] = {}
    figures: dict[str, dict[str, Any]] = {name: {} for name in ("bias", "work", "error", "accuracy", "curve", "profile")}
    kinds: dict[str, Any] = {}
    for place in (place for found in of_task.values() for place in found):
        here = place.rows(frame)
        tables[place.key] = numbers.table(frame, place, kept)
        groups = contests.groups(here, claims)
        for group in groups:
            of_group = here[here["suite"].isin(group.suites)]
            origin = {str(label): numbers.provenance(rows) for label, rows in of_group.groupby("estimator")}
            key = f"{place.key}|{group.part}|{group.point}"
            figures["bias"][key] = gradients.bias_variance(group, looks, origin, costly=False)
            figures["work"][key] = gradients.bias_variance(group, looks, origin, costly=True)
            figures["error"][key] = gradients.error(group, looks)
        if (accuracy := training.accuracy_macs(here, looks)) is not None:
            figures["accuracy"][place.key] = accuracy
        curves = dict(training.curves(here))
        figures["curve"] |= {f"{place.key}|{metric}": figure for metric, figure in curves.items()}
        kinds[place.key] = {
            "groups": [[group.part, group.point] for group in groups],
            "curves": {metric: words.metric(metric) for metric in curves},
        }
    quantities = {task: summary.quantities(of_task[task][0].rows(frame), task) for task in tasks}
    figures["profile"] = {name: _profile(quantities, name, claims) for name in ranks.PROFILED}
    return {
        "tasks": [
            {"name": task, "title": words.task(task), "places": [_place(one, kinds) for one in of_task[task]]}
            for task in tasks
        ],
        "quantities": {name: _QUANTITIES.get(name, name) for name in summary.QUANTITIES},
        "estimators": {label: _estimator(look, claims[label]) for label, look in looks.items()},
        "order": summary.ordered(frame),
        "highlighted": ranks.highlighted(frame, HIGHLIGHTED),
        "grid": numbers_of_grid(),
        "tables": tables,
        "ranks": {name: _ranks(quantities, name, of_task, tables) for name in ranks.RANKED},
        "figures": {
            kind: {key: figure.to_plotly_json() for key, figure in found.items()} for kind, found in figures.items()
        },
        "rows": kept.kept,
        "cells": numbers.cells(whole),
        "statements": verdicts.shown(statements.judged(whole)),
        "templates": {
            theme: plotly.io.templates[name].to_plotly_json()
            for theme, name in (("light", "plotly_white"), ("dark", "plotly_dark"))
        },
    }


def numbers_of_grid() -> list[float]:
    """The values of C that the slider stops at."""
    from results import contest
    from results.explorer.numbers import short

    return [float(short(float(value)) or 0.0) for value in contest.GRID]


def _place(place: Place, kinds: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": place.key, "label": place.label, **kinds[place.key]}


def _estimator(look: palette.Look, claim: known.Known) -> dict[str, Any]:
    from results.explorer.gradients import SYMBOLS

    return {
        "light": look.colour,
        "dark": palette.on_dark(look.colour),
        "symbol": SYMBOLS[look.marker],
        "unbiased": claim.unbiased,
        "needs": None if claim.needs is None else list(claim.needs),
        "reference": look.name in ranks.REFERENCES,
    }


def _profile(quantities: Mapping[str, Any], name: str, claims: Mapping[str, known.Known]) -> Any:
    from results.explorer import profiles

    return profiles.figure(*ranks.profile(quantities, name, claims), name)


def _ranks(
    quantities: Mapping[str, Any], name: str, of_task: Mapping[str, Sequence[Place]], tables: Mapping[str, Any]
) -> dict[str, Any]:
    """Of each task its measure; of each estimator the rank on every task, as ``[rank, text]`` or as words."""
    found = ranks.table(quantities, name)
    which = {task: ranks.quantity(quantities[task], name) for task in found}
    labels = dict.fromkeys(label for task in found for label in tables[of_task[task][0].key])
    lines = {}
    for label in labels:
        cells: dict[str, Any] = {}
        for task, here in found.items():
            said = tables[of_task[task][0].key].get(label, {}).get(which[task], "not measured")
            one = here.get(label)
            if one is None:
                cells[task] = said if isinstance(said, str) else "no rank"
            else:
                open_ranks = "" if one.first == one.last else f" ({one.first}–{one.last})"
                cells[task] = [one.rank, f"{one.rank}{open_ranks} of {one.of}"]
        mean = ranks.relative(found, label)
        if mean is not None:
            lines[label] = {"mean": round(mean, 3), "tasks": sum(not isinstance(c, str) for c in cells.values())} | cells
    return {"tasks": which, "lines": lines}


def packed(found: Any) -> str:
    """JSON, compressed, in letters that mean nothing in HTML. The same data make the same letters."""
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
