"""The appendix of a task: all presets and data sets, all pooled numbers and figures, failed cells, and time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import claims, contest, paper, plots, present, summary, targets, words

_FEW = 4  # up to this many values of x have a column each; more are a curve in a figure
_OWN_TABLES = ("contest", "scaling", "sampling")  # suites whose numbers are shown in other ways
_AT_POINTS = ("bias", "variance")  # suites with one line for each estimator and point of training


def file(task: str) -> str:
    """The file name of a task's page."""
    return f"REPORT-{task}.md"


def write(frame: pd.DataFrame, task: str, drawn: Mapping[str, plots.Drawn], path: Path) -> None:
    """Write the page of a task. All rows of the frame must belong to it."""
    cells = frame.drop_duplicates("hash")
    judged = claims.verdicts(frame, task)
    allowed = targets.table(frame)
    gains = contest.descents_table(frame)
    failed = failures(frame)
    text = words.render(
        "task.md.j2",
        title=words.task(task),
        task=task,
        summaries=[present.of_one(frame, task, *place) for place in present.contexts(frame)],
        verdicts=verdicts(judged) if any(one.verdict != "not measured" for one in judged) else None,
        targets=None if allowed.empty else allowed,
        contests=list(_contests(frame)),
        descents=None if gains.empty else gains,
        tables=table_1(frame),
        suites=list(_suites(frame)),
        figures=[figure(one) for one in drawn.values() if task in one.tasks],
        failed=None if failed.empty else failed,
        seconds_note="Sum over all cells and seeds. Shared work, such as reference runs and reference gradients, is "
        "counted for the estimator that was measured first.",
        seconds=_seconds(cells),
        provenance=_provenance(cells),
    )
    path.write_text(text, encoding="utf-8")


def figure(one: plots.Drawn) -> dict[str, str]:
    """A figure, for the templates."""
    return {
        "title": words.title(one.kind),
        "caption": words.caption(one.kind),
        "place": f"figures/{one.path.name}",
        "note": one.note,
    }


def verdicts(judged: Sequence[claims.Verdict]) -> pd.DataFrame:
    """The verdicts as a table of text."""
    lines = [(v.statement, v.measure, _interval(v), str(v.n), f"**{v.verdict}**", v.note) for v in judged]
    return pd.DataFrame(lines, columns=["statement", "measured", "estimate (95 %)", "n", "verdict", "note"])


def table_1(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The paper's Table 1 and ours, for every preset and data set with trained networks."""
    return [
        {"title": place, "lines": lines.reset_index(), "noise": noise, "note": note}
        for place, lines, noise, note in paper.beside(frame)
    ]


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """Failed cells, with one line for each status and message of a cell."""
    keys = ["suite", "estimator", "preset", "dataset", "seed", "status", "message"]
    found = frame.loc[frame["status"] != "ok", keys].drop_duplicates().sort_values(keys[:6])
    return found.assign(message=found["message"].fillna(""))


def _interval(verdict: claims.Verdict) -> str:
    if np.isnan(verdict.estimate):
        return ""
    bounds = "" if np.isnan([verdict.low, verdict.high]).any() else f" ({verdict.low:.3g} to {verdict.high:.3g})"
    return f"{verdict.estimate:.3g}{bounds}"


def _contests(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for where, group in contest.groups(frame):
        place = summary.label(where["preset"], where["dataset"])
        yield {
            "title": f"{where['part'].capitalize()}, {where['point']} q; {place}; ‖∇‖² = {group[0].norm:.3g}",
            "errors": contest.errors_table(group),
            "crossings": contest.crossings_table(group),
        }


def _suites(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Tables of all pooled numbers, with estimators as lines. Curves are in the figures."""
    for suite in words.ordered(set(frame["suite"]) - {*_OWN_TABLES}, "suites"):
        rows = frame[(frame["suite"] == suite) & (frame["status"] == "ok") & frame["value"].notna()]
        pooled = _columns(rows, suite)
        tables = [
            {"title": summary.context_label(part), "lines": _wide(part, suite), "note": _of_networks(part)}
            for _, part in pooled.groupby(summary.CONTEXT, dropna=False)
        ]
        if tables:
            yield {"title": words.suite(suite), "tables": tables}


def _of_networks(pooled: pd.DataFrame) -> str:
    """A sentence, if the estimators of a table were not all measured at the same networks."""
    at = pooled[pooled["metric"] == "entropy_at"].groupby("point")["value"].nunique()
    mixed = list(at.index[at > 1])
    return (
        f"The estimators were measured on several reference runs, which differ at {' and '.join(mixed)} q. There,"
        " compare only estimators with the same entropy of q."
        if mixed
        else ""
    )


def _columns(rows: pd.DataFrame, suite: str) -> pd.DataFrame:
    """Pooled rows, with the heading of their column."""
    few = rows.groupby("metric")["x"].transform("nunique") <= _FEW
    rows = rows[few & ~rows["metric"].str.startswith("curve_")]
    in_bytes = rows["unit"] == "bytes"
    scale = np.where(in_bytes, 2.0**20, 1.0)
    rows = rows.assign(value=rows["value"] / scale, se=rows["se"] / scale, unit=rows["unit"].mask(in_bytes, "MiB"))
    units = rows.groupby("metric")["unit"].agg(lambda found: sorted(set(found)))
    pooled = summary.pool(rows)
    headings = pd.Series({name: words.metric(name, found) for name, found in units.items()}, dtype="str")
    headings = headings.mask(headings.duplicated(keep=False), headings.index.to_series())
    pooled = pooled.assign(column=pooled["metric"].map(headings).astype("str"))
    named = ["x"] if suite in _AT_POINTS else ["x", "part", "point"]
    of_line = pooled[["column", *named]].to_dict("records")
    return pooled.assign(column=[one["column"] + "".join(_said(name, one[name]) for name in named) for one in of_line])


def _said(name: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    return f" at {value:g}" if name == "x" else f": {value}"


def _wide(pooled: pd.DataFrame, suite: str) -> pd.DataFrame:
    lines = ["estimator", "point", "part"] if suite in _AT_POINTS else ["estimator"]
    text = [summary.with_error(line) for line in pooled.itertuples()]
    filled = pooled.assign(text=text, **{name: pooled[name].fillna("") for name in lines})
    wide = filled.pivot(index=lines, columns="column", values="text").fillna("")
    return wide[list(dict.fromkeys(pooled["column"]))].reset_index()


def _seconds(cells: pd.DataFrame) -> pd.DataFrame:
    """Seconds for each estimator, by suite."""
    spent = cells.pivot_table(index="estimator", columns="suite", values="wall_s", aggfunc="sum")
    spent = spent.reindex(index=summary.ordered(cells), columns=words.ordered(cells["suite"], "suites"))
    return spent.map(lambda seconds: "" if np.isnan(seconds) else f"{seconds:,.0f}").reset_index()


def _provenance(cells: pd.DataFrame) -> pd.DataFrame:
    said = {}
    for name in ("device", "dtype", "processor", "python", "torch", "numpy", "commit"):
        values = cells[name].fillna("unknown").value_counts().sort_index()
        said[name] = ", ".join(f"{value} ({count:,} cells)" for value, count in values.items())
    said["with uncommitted changes"] = f"{int(cells['dirty'].fillna(False).sum()):,} cells"
    said["time"] = f"{cells['wall_s'].sum() / 3600:.2f} hours in total"
    return pd.DataFrame({"what": list(said), "": list(said.values())})
