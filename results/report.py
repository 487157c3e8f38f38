"""Tables to one document: REPORT.md with its figures beside it, complete and the same for the same rows.

What failed is listed and never dropped; nothing says when or where the report was built.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from results import claims, contest, paper, plots, summary, table, targets

_SUITES = ("bias", "variance", "memory", "overhead", "accuracy")
_TASKS = ("width", "depth", "joint", "vae", "polynomial", "toy")  # in this order, and others after them


def build(rows_directories: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Read the rows, draw every figure into ``out/figures`` and write ``out/REPORT.md``, whose path is returned.

    Of the tasks only those that the first directory has: the others are there to compare its rows with.

    Raises TableError when there are no rows or a file of them is damaged.
    """
    frame = table.read(*rows_directories)
    if frame.empty:
        places = ", ".join(str(place) for place in rows_directories)
        raise table.TableError(f"no rows in {places}; python -m suites.run makes them")
    own = table.read(rows_directories[0])
    frame = frame if own.empty else frame[frame["task"].isin(own["task"])]
    out = Path(out)
    figures = plots.draw_all(frame, out / "figures")
    path = out / "REPORT.md"
    path.write_text("\n\n".join(_sections(frame, figures)) + "\n", encoding="utf-8")
    return path


def _sections(frame: pd.DataFrame, figures: dict[str, Path]) -> Iterator[str]:
    yield "# Gradient estimators for learning the architecture of a network"
    cells = frame.drop_duplicates("hash")
    failed = frame.loc[frame["status"] != "ok", "hash"].nunique()
    yield f"{len(cells):,} cells, {failed:,} of them failed; {len(frame):,} rows. After ± is half of a 95 % interval."
    if "overview" in figures:
        yield _figure("overview", figures["overview"])
    there = set(frame["task"])
    tasks = [*(task for task in _TASKS if task in there), *sorted(there - {*_TASKS})]
    for task in tasks:
        yield f"## {task.capitalize()}, estimator by estimator"
        yield summary.summary(frame, task).to_markdown(disable_numparse=True)
    yield "## What the paper says"
    yield f"{claims.__doc__}".partition("\n\n")[2].replace("\n", " ").strip()
    for task in tasks:
        judged = [verdict for verdict in claims.verdicts(frame, task) if verdict.verdict != "not measured"]
        if judged or task == "width":
            yield f"### On the task {task}"
            yield claims_table(judged if task != "width" else claims.verdicts(frame, task))
    if not (lines := targets.table(frame)).empty:
        yield "## What a step may cost"
        yield f"{targets.__doc__}".partition("\n\n")[2].replace("\n", " ").strip()
        yield _markdown(lines)
    yield from _contest(frame)
    for place, lines, noise in paper.beside(frame):
        yield f"## Table 1 of the paper, and ours: {place}"
        yield _markdown(lines.reset_index())
        yield noise
    yield "## Figures"
    yield from (_figure(name, path) for name, path in figures.items() if name != "overview")
    for suite in _SUITES:
        yield from _suite(frame[frame["suite"] == suite], suite)
    if failed:
        yield "## Cells that failed"
        keys = ["suite", "task", "estimator", "preset", "dataset", "seed", "status", "message"]
        yield _markdown(frame.loc[frame["status"] != "ok", keys].drop_duplicates().sort_values(keys[:6]))
    yield from _seconds(cells)
    yield "## Provenance"
    yield _provenance(cells)


def _contest(frame: pd.DataFrame) -> Iterator[str]:
    """What is left of a gradient's error at equal compute, where crossings lie, and what φ gains by it."""
    found = list(contest.groups(frame))
    if not found:
        return
    yield "## The contest: error at equal compute"
    yield f"{contest.__doc__}".partition("\n\n")[2].strip()
    for where, group in found:
        yield f"### {where['part'].capitalize()}, {where['point']} q"
        context = ", ".join(where[key] for key in ("task", *summary.CONTEXT))
        yield f"{context}. ‖∇‖² = {group[0].norm:.3g}; the error at C in its units:"
        yield _markdown(contest.errors_table(group))
        yield "C*, from which on the unbiased estimator (line) is ahead of the biased one (column):"
        yield _markdown(contest.crossings_table(group))
    if not (gains := contest.descents_table(frame)).empty:
        yield "### φ alone, weights frozen, equal time"
        yield _markdown(gains)


def claims_table(verdicts: Sequence[claims.Verdict]) -> str:
    """The verdicts as a Markdown table."""
    lines = [
        (v.statement, v.measure, _interval(v), v.n, f"**{v.verdict}**", v.note) for v in verdicts
    ]  # fmt: skip
    return _markdown(pd.DataFrame(lines, columns=["statement", "measured", "estimate (95 %)", "n", "verdict", "note"]))


def _interval(verdict: claims.Verdict) -> str:
    if np.isnan(verdict.estimate):
        return ""
    bounds = "" if np.isnan([verdict.low, verdict.high]).any() else f" ({verdict.low:.3g} to {verdict.high:.3g})"
    return f"{verdict.estimate:.3g}{bounds}"


def _suite(rows: pd.DataFrame, suite: str) -> Iterator[str]:
    """Every pooled number of a suite: estimators as lines; curves are in the figures."""
    held = rows["metric"].str.endswith("_held")
    named = rows["metric"].str.removesuffix("_held") + rows["x"].map(" at {:g} of the width".format)
    rows = rows.assign(metric=rows["metric"].mask(held, named), x=rows["x"].mask(held))
    rows = rows[(rows["status"] == "ok") & rows["value"].notna() & rows["x"].isna()]
    if rows.empty:
        return
    in_bytes = rows["metric"] == "bytes"
    scale = np.where(in_bytes, 2.0**20, 1.0)
    rows = rows.assign(value=rows["value"] / scale, se=rows["se"] / scale, metric=rows["metric"].mask(in_bytes, "MiB"))
    pooled = summary.pool(rows)
    lines = ["estimator", "point", "part"] if suite in ("bias", "variance") else ["estimator"]
    if len(lines) == 1:
        extra = pooled[["part", "point"]].apply(lambda pair: ", ".join(pair.dropna()), axis=1)
        pooled["metric"] += extra.map(lambda text: f" {text}" if text else "")
    pooled["text"] = [summary.with_error(line) for line in pooled.itertuples()]
    yield f"## Suite {suite}"
    for _, part in pooled.groupby(["task", *summary.CONTEXT], dropna=False):
        yield f"{part['task'].iloc[0]}, {summary.context_label(part)}"
        part = part.assign(**{name: part[name].fillna("") for name in lines})
        yield _markdown(part.pivot(index=lines, columns="metric", values="text").fillna("").reset_index())


def _seconds(cells: pd.DataFrame) -> Iterator[str]:
    """What each estimator took on each task, with the preset of most cells."""
    cells = cells[cells["suite"].isin(_SUITES)]
    if cells.empty:
        return
    preset = cells["preset"].mode()[0]
    spent = cells[cells["preset"] == preset].pivot_table(
        index="estimator", columns="task", values="wall_s", aggfunc="sum"
    )
    spent = spent.reindex(summary.ordered(spent.index.to_series())).map("{:.0f}".format)
    yield "## Seconds"
    yield (
        f"Of all cells of the suites {', '.join(_SUITES)} and all seeds, preset {preset}. What estimators share, "
        "a run's points and the gradients there, whoever came first has paid for."
    )
    yield _markdown(spent.reset_index())


def _provenance(cells: pd.DataFrame) -> str:
    said = []
    for name in ("device", "dtype", "python", "torch", "numpy", "commit"):
        values = cells[name].fillna("unknown").value_counts().sort_index()
        said.append(f"- {name}: " + ", ".join(f"{value} ({count:,} cells)" for value, count in values.items()))
    dirty = int(cells["dirty"].fillna(False).sum())
    said.append(f"- measured with uncommitted changes: {dirty:,} cells")
    said.append(f"- time: {cells['wall_s'].sum() / 3600:.2f} hours in all")
    return "\n".join(said)


def _figure(name: str, path: Path) -> str:
    paragraph = (plots.FIGURES[name.partition("-")[0]].__doc__ or "").partition("\n\n")[0]
    caption = " ".join(paragraph.split())
    return f"![{caption}](figures/{path.name})\n\n*{caption}*"


def _markdown(frame: pd.DataFrame) -> str:
    text = frame.astype("str").replace("nan", "").replace({r"\|": r"\\|"}, regex=True)
    markdown: str = text.to_markdown(index=False, disable_numparse=True)
    return markdown
