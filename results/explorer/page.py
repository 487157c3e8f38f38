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

from results import contest, known, palette, report, statements, summary, table, words
from results.explorer import numbers, places, ranks, verdicts

FILE = "explorer.html"
HIGHLIGHTED = 8
"""Estimators that stand out at first."""
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
        raise table.TableError(f"the page needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    whole = table.read(*rows_directories)
    if whole.empty:
        raise table.TableError(
            f"no rows in {', '.join(map(str, rows_directories))}; python -m suites.run makes "
            "some, and results/reference/rows of a clone has the committed ones"
        )
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

    from results.explorer import figures

    frame = places.compared(whole, own)
    claims, looks = known.table(frame), palette.looks(frame)
    # what follows picks rows hundreds of times, and each time would copy what it does not need
    frame = frame.drop(
        columns=[name for name in frame if name.startswith("option.") or name in ("settings", "changed")]
    )
    kept = numbers.Rows(frame)
    of_task = {task: places.places(frame, task) for task in words.ordered(frame["task"], "tasks")}
    tables: dict[str, Any] = {}
    drawn = figures.Figures(looks, claims)
    main: dict[str, dict[str, pd.DataFrame]] = {}
    for task, found in of_task.items():
        for place in found:
            here = place.rows(frame)
            quantities = summary.quantities(here, task)
            main.setdefault(task, quantities)  # of the first place
            tables[place.key] = numbers.table(here, quantities, kept)
            drawn.add(place, here)
    drawn.add_profiles(main)
    first = {task: tables[found[0].key] for task, found in of_task.items()}
    return {
        "tasks": [
            {"name": task, "title": words.task(task), "places": [drawn.described(one) for one in found]}
            for task, found in of_task.items()
        ],
        "quantities": {name: _QUANTITIES.get(name, name) for name in summary.QUANTITIES},
        "estimators": {label: _estimator(look, claims[label]) for label, look in looks.items()},
        "order": summary.ordered(frame),
        "highlighted": ranks.highlighted(frame, HIGHLIGHTED),
        "grid": [numbers.short(float(value)) for value in contest.GRID],
        "tables": tables,
        "ranks": {name: _ranks(main, name, first) for name in ranks.RANKED},
        "figures": drawn.plain(),
        "rows": kept.kept,
        "cells": numbers.cells(whole),
        "statements": verdicts.shown(statements.judged(whole)),
        "templates": {
            theme: plotly.io.templates[name].to_plotly_json()
            for theme, name in (("light", "plotly_white"), ("dark", "plotly_dark"))
        },
    }


def _estimator(look: palette.Look, claim: known.Known) -> dict[str, Any]:
    return {
        "light": look.colour,
        "dark": palette.on_dark(look.colour),
        "symbol": numbers.SYMBOLS[look.marker],
        "unbiased": claim.unbiased,
        "needs": None if claim.needs is None else list(claim.needs),
        "reference": look.name in ranks.REFERENCES,
    }


def _ranks(main: Mapping[str, Any], name: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Of each task its measure; of each estimator the rank on every task, as ``[rank, text]`` or as words."""
    found = ranks.table(main, name)
    which = {task: ranks.quantity(main[task], name) for task in found}
    lines = {}
    for label in dict.fromkeys(label for here in found.values() for label in here):
        cells: dict[str, Any] = {}
        for task, here in found.items():
            if (one := here.get(label)) is None:
                cells[task] = tables[task].get(label, {}).get(which[task], numbers.NOT_MEASURED)
            else:
                left_open = "" if one.first == one.last else f" ({one.first}–{one.last})"
                cells[task] = [one.rank, f"{one.rank}{left_open} of {one.of}"]
        count = sum(label in here for here in found.values())
        lines[label] = {"mean": numbers.short(ranks.relative(found, label), 3), "tasks": count, **cells}
    return {"tasks": which, "lines": lines}


def packed(found: Any) -> str:
    """JSON, compressed, in letters that mean nothing in HTML. The same data make the same letters."""
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
