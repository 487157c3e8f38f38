"""Builds the report: the main page REPORT.md, an appendix REPORT-<task>.md for each task, and figures.

It is complete: failed cells are listed and never dropped. It depends on the rows only, not on when or where it is
built.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from results import appendix, baselines, claims, parallel, plots, present, statements, study_page, summary, table, words

_MAIN = ("contest", "bias_variance", "accuracy_macs", "temperature")  # kinds of figures on the main page, one of each
FILTERS = {
    "task": ("task",),
    "estimator": ("estimator", "name"),
    "suite": ("suite",),
    "preset": ("preset", "preset_name"),
    "dataset": ("dataset",),
}
"""Filters for rows, and the columns in which their values are searched."""


def build(
    rows_directories: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    only: Mapping[str, Collection[str]] | None = None,
) -> Path:
    """Read the rows, draw all figures into ``out/figures`` and write the pages. Returns the path of the main page.

    If there are several directories, the first contains one's own rows and the others contain rows to compare with. Own
    rows come first, and only their tasks are reported.

    Args:
        rows_directories: directories of rows.
        out: the folder of the report.
        only: values to keep, for some of `FILTERS`. A preset may be given without its changes, an estimator without its
            options.

    Raises:
        TableError: no such rows, or a damaged file.
    """
    whole = table.read(*rows_directories)
    if whole.empty:
        places = ", ".join(str(place) for place in rows_directories)
        raise table.TableError(f"no rows in {places}; measure some with python -m suites.run, or set --rows")
    whole = chosen(whole, only or {})
    own = _own(rows_directories, whole)
    out = Path(out)
    of_study = None
    if not own:
        of_study = study_page.write(whole, statements.judged(whole), out) if study_page.of_study(whole).any() else None
    whole = whole[~study_page.of_study(whole) | whole["hash"].isin(own)]  # it has its own page
    if whole.empty:
        return out / study_page.FILE
    frame = baselines.spread(whole)
    tasks = frame.loc[frame["hash"].isin(own), "task"] if own else frame["task"]
    checks = frame["suite"].isin(list(words.checks()))
    frame, of_checks = frame[frame["task"].isin(tasks) & ~checks], frame[frame["task"].isin(tasks) & checks]
    drawn = plots.draw_all(frame, out / "figures", present.own_contexts(frame, own) if own else frame)
    path = out / "REPORT.md"
    path.write_text(_page(frame, of_checks, own, drawn, of_study), encoding="utf-8")
    parallel.each(
        [
            partial(appendix.write, frame[frame["task"] == task], task, drawn, out / appendix.file(task))
            for task in words.ordered(frame["task"], "tasks")
        ]
    )
    return path


def chosen(frame: pd.DataFrame, only: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """The rows that match one of the given values of each filter.

    Raises:
        TableError: no row matches; the message lists the existing values.
    """
    for what, values in only.items():
        if what not in FILTERS:
            raise table.TableError(f"no filter {what!r}; there are {', '.join(FILTERS)}")
        keep = frame[list(FILTERS[what])].isin(list(values)).any(axis=1)
        if values and not keep.any():
            there = ", ".join(sorted(frame[FILTERS[what][-1]].dropna().unique()))
            raise table.TableError(f"no rows with {what} {', '.join(values)}; there are {there}")
        frame = frame[keep] if values else frame
    return frame


def _own(directories: Sequence[str | os.PathLike[str]], frame: pd.DataFrame) -> frozenset[str]:
    """The cells of the first directory, if there are several."""
    if len(directories) < 2:
        return frozenset()
    return frozenset(table.hashes(directories[0])) & frozenset(frame["hash"])


def _page(
    frame: pd.DataFrame,
    checks: pd.DataFrame,
    own: frozenset[str],
    drawn: Mapping[str, plots.Drawn],
    of_study: Mapping[str, Any] | None,
) -> str:
    tasks = words.ordered(frame["task"], "tasks")
    functions = [] if own else _functions(frame, tasks)
    everything = pd.concat([frame, checks])
    overviews = [one for name, one in drawn.items() if name == f"overview-{tasks[0]}" or name == "overview"]
    return words.render(
        "page.md.j2",
        cells=everything["hash"].nunique(),
        failed=everything.loc[everything["status"] != "ok", "hash"].nunique(),
        rows=len(everything),
        own=own,
        tasks=_measured(frame, tasks),
        overviews=[appendix.figure(one) for one in overviews[:1]],
        sections=[
            {"title": words.task(task), "tables": _compared(frame, own, task)}
            for task in tasks
            if task not in functions
        ],
        functions=_on_functions(frame, functions) if functions else None,
        study=of_study,
        verdicts=[] if of_study is not None else list(_verdicts(frame, own, tasks)),
        tables=_table_1(frame, own),
        figures=[appendix.figure(one) for one in _main(drawn, own)],
        checks=[
            {"title": words.suite(name), "lines": _check(checks[checks["suite"] == name])}
            for name in checks["suite"].unique()
        ],
        pages=[{"title": words.task(task), "path": appendix.file(task)} for task in tasks],
    )


def _measured(frame: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The number of cells, with tasks as lines and suites as columns."""
    cells = frame.drop_duplicates("hash").pivot_table(
        index="task", columns="suite", values="n", aggfunc="size", fill_value=0
    )
    cells = cells.loc[list(tasks), words.ordered(cells.columns, "suites")].map("{:,}".format)
    cells.insert(0, "estimators", frame.groupby("task")["estimator"].nunique().map("{:,}".format))
    return cells.replace("0", "").reset_index().rename(columns={"task": "cells of task"})


def _compared(frame: pd.DataFrame, own: frozenset[str], task: str) -> list[present.Shown]:
    if own:
        tables = present.own_first(frame, own, task)
    else:
        tables = [present.of_one(frame, task, *present.main(frame[frame["task"] == task]))]
    return [present.bold(present.shortened(one))._replace(title=one.title) for one in tables]


def _functions(frame: pd.DataFrame, tasks: Sequence[str]) -> list[str]:
    """Tasks without data whose optimum is known. If there are several, they share one table."""
    known = summary.measured(frame, "objective_gap")["task"]
    of_data = frame.loc[frame["dataset"] != summary.NO_DATA, "task"]
    found = [task for task in tasks if task in set(known) - set(of_data)]
    return found if len(found) > 1 else []


def _on_functions(frame: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """A table with two columns for each task and a line for each estimator."""
    columns = {}
    for task in tasks:
        lines = present.of_one(frame, task, *present.main(frame[frame["task"] == task])).lines.set_index("estimator")
        for name in ("relative bias", "objective gap"):
            columns[f"{task}: {name}"] = lines[name] if name in lines else pd.Series(dtype="str")
    rows = frame[frame["task"].isin(tasks)]
    table = pd.DataFrame(columns).reindex(summary.ordered(rows)).fillna("")
    table = table[(table != "").sum(axis=1) > 1]
    return table.replace(r" \(n = .*?\)", "", regex=True).rename_axis("estimator").reset_index()


def _verdicts(frame: pd.DataFrame, own: frozenset[str], tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Verdicts for the presets and data sets of own rows; without own rows, for the first task that has verdicts."""
    for task in tasks:
        rows = frame[frame["task"] == task]
        places = present.contexts(rows[rows["hash"].isin(own)])
        parts = {summary.label(*place): present.of_context(rows, *place) for place in places} if own else {"": rows}
        for place, part in parts.items():
            judged = claims.verdicts(part, task)
            if any(verdict.verdict != "not measured" for verdict in judged):
                title = f"{words.task(task)}{f'; {place}' if place else ''}"
                yield {"title": title, "lines": appendix.verdicts(judged)}
                if not own:
                    return


def _table_1(frame: pd.DataFrame, own: frozenset[str]) -> list[dict[str, Any]]:
    """Table 1 for the presets and data sets of own rows; otherwise the longest one of a data set from the paper."""
    rows = frame
    if own:
        places = present.contexts(frame[frame["hash"].isin(own)])
        rows = pd.concat([summary.in_context(frame, *place) for place in places])
    found = appendix.table_1(rows)
    if own or not found:
        return found
    return [max(found, key=lambda one: ("paper" in set(one["lines"]["source"]), len(one["lines"])))]


def _main(drawn: Mapping[str, plots.Drawn], own: frozenset[str]) -> Iterator[plots.Drawn]:
    """The figures of the main page: of each kind the one of the most important task with the most estimators. If there
    are own rows, only figures that contain some."""
    for kind in _MAIN:
        found = [one for one in drawn.values() if one.kind == kind and (not own or one.cells & own)]
        for task in ("width", *words.ordered({task for one in found for task in one.tasks}, "tasks")):
            if here := [one for one in found if task in one.tasks]:
                yield max(here, key=lambda one: one.estimators)
                break


def _check(rows: pd.DataFrame) -> pd.DataFrame:
    pooled = summary.pool(summary.measured(rows, list(rows["metric"].unique())), ["metric", "unit", "part"])
    named = [
        words.metric(line.metric, [line.unit]) + ("" if pd.isna(line.part) else f": {line.part}")
        for line in pooled.itertuples()
    ]
    return pd.DataFrame({"measured": named, "value": [summary.with_error(line) for line in pooled.itertuples()]})
