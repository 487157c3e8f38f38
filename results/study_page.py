"""The page of the study: verdicts with their tests, the decomposition of the drop, all arms, and figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results import appendix, figures_study, paper, plots, rivals, statement, stats, study, words
from results.statement import Statement
from results.study_design import DEPTH_RATES, EPOCHS, FRESH, PARTS, PRESET, RATES, TUNED, Arm

FILE = "REPORT-study.md"
TUNINGS = ("tuning", "rivals-tuning")
DATASETS = ("cifar10_16", "cifar100_16", "cifar10", "cifar100")


def of_study(frame: pd.DataFrame) -> pd.Series:
    """A mask of the rows that only the page of the study shows: runs, the time of networks, and counted costs."""
    return (frame["preset_name"] == PRESET) & frame["suite"].isin(["accuracy", "latency", "overhead"])


def write(frame: pd.DataFrame, judged: Sequence[Statement], out: Path) -> dict[str, Any]:
    """Write the page and its figures. Returns what the main page shows of it.

    Args:
        frame: all rows.
        judged: the statements.
        out: the folder of the report.
    """
    mine = frame[of_study(frame)]
    runs = mine[(mine["suite"] == "accuracy") & (mine["status"] == "ok")]
    failed = appendix.failures(mine)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    figures = list(_figures(frame, out / "figures"))
    text = words.render(
        "study.md.j2",
        runs=runs["hash"].nunique(),
        failed=None if failed.empty else failed,
        hours=runs.drop_duplicates("hash")["wall_s"].sum() / 3600,
        epochs=EPOCHS,
        verdicts=pd.DataFrame(statement.lines(judged)),
        statements=[_one(one) for one in judged if one.evidence],
        decompositions=list(_decompositions(frame)),
        arms=list(_arms(frame)),
        tuning=_tuning(frame),
        tables=list(_tables_1(frame)),
        rivals=[(dataset, found) for dataset in DATASETS if (found := rivals.table(frame, dataset)) is not None],
        figures=figures,
    )
    (out / FILE).write_text(text, encoding="utf-8")
    first = [one for one in figures if one["kind"] == "waterfall"][:1] or figures[:1]
    return {"path": FILE, "verdicts": pd.DataFrame(statement.lines(judged)), "figures": first}


def _figures(frame: pd.DataFrame, directory: Path) -> Iterator[dict[str, str]]:
    for kind, draw in figures_study.FIGURES.items():
        for dataset in DATASETS:
            if (figure := draw(frame, dataset)) is not None:
                name = f"study-{kind}-{dataset}.png".replace("_", "-")
                plots.save(figure, directory / name)
                yield {
                    "kind": kind, "title": words.title(f"study_{kind}"), "caption": words.caption(f"study_{kind}"),
                    "place": f"figures/{name}", "note": "",
                }  # fmt: skip


def _one(of: Statement) -> dict[str, Any]:
    found = [
        {
            "measured": test.measure,
            "effect (95 %)": statement.effect(test),
            "threshold": statement.limit(test),
            "n": f"{test.n:,}",
            "where": test.where,
        }
        for test in of.evidence
        if not np.isnan(test.estimate)
    ]
    return {
        "number": of.number, "words": of.words, "rule": of.rule, "verdict": of.verdict, "open": of.open,
        "p": statement.p_of(of), "lines": pd.DataFrame(found) if found else None,
    }  # fmt: skip


def _decompositions(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for dataset in DATASETS:
        if (parts := study.decomposition(frame, dataset)) is None:
            continue
        lines = [("plain network, accuracy in %", parts.plain), *((step.name, step.lost) for step in parts.steps)]
        lines += [("in all", parts.drop), ("Concrete's network, accuracy in %", parts.concrete)]
        lines += [(f"interaction: {step.name}", step.lost) for step in parts.interactions]
        found = [
            {"step": name, "points lost (95 %)": f"{one.estimate:.2f} ({one.low:.2f} to {one.high:.2f})"}
            for name, one in lines
        ]
        share = f"{parts.share.estimate:.0%} ({parts.share.low:.0%} to {parts.share.high:.0%})"
        yield {
            "title": dataset,
            "lines": pd.DataFrame(found),
            "blamed": parts.blamed,
            "share": share,
            "n": parts.drop.n,
        }


def _arms(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """All arms with runs, by part of the study."""
    for part, make in PARTS.items():
        if part in (*TUNINGS, "gradient", "tests"):  # the arms of tests are in other parts too
            continue
        seeds = FRESH if part == "replication" else None
        lines = [line for arm in make() if (line := _arm(frame, arm, seeds)) is not None]
        if lines:
            yield {"title": part, "lines": pd.DataFrame(lines)}


def _arm(frame: pd.DataFrame, of: Arm, seeds: range | None = None) -> dict[str, str] | None:
    """A line of the table of arms, from the runs with these seeds; None: all seeds of the arm."""
    seeds = range(of.seeds) if seeds is None else seeds

    def values(metric: str = "accuracy", part: str | None = "test") -> pd.Series:
        found = study.values(frame, of, metric, part)
        return found[found.index.isin(seeds)]

    if "accuracy" not in of.suites or (test := values()).empty:
        return None
    train = values(part="train")
    macs = 100 * values("macs_ratio", None)
    parameters = values("parameters", None)
    changed = {name.partition(".")[2]: value for name, value in of.changed.items() if name != "train.weights"}
    return {
        "task": of.task,
        "φ by": f"`{of.estimator}`",
        "weights on": f"`{of.changed.get('train.weights', 'own')}`",
        "changed": ", ".join(f"{name} = {value}" for name, value in changed.items()),
        "test accuracy, %": stats.plus_minus(test, 2),
        "train − test, points": stats.plus_minus(train - test, 2),
        "MACs, %": f"{macs.mean():.1f}",
        "parameters": f"{parameters.mean():,.0f}",
        "seeds": f"{len(test)} of {len(seeds)}",
    }


def _tuning(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Validation accuracy of every estimator at every learning rate, in %."""
    lines: dict[str, dict[str, str]] = {}
    for arm in itertools.chain.from_iterable(PARTS[part]() for part in TUNINGS):
        found = study.values(frame, arm, part="validation")
        if len(found):
            rate = arm.changed["train.phi_lr"]
            lines.setdefault(arm.estimator, {})[rate] = f"{found.mean():.2f}"
    if not lines:
        return None
    rates = sorted({*RATES, *DEPTH_RATES}, key=float)
    table = pd.DataFrame([{rate: found.get(rate, "") for rate in rates} for found in lines.values()], index=list(lines))
    return table.rename_axis(f"φ by; {TUNED['train.epochs']} epochs").reset_index()


def _tables_1(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The paper's Table 1 and ours with the paper's penalty."""
    for dataset in DATASETS:
        arms = [one for part in PARTS.values() for one in part() if one.dataset == dataset and _is_literal(one)]
        rows = pd.concat([frame.iloc[:0], *(study.runs(frame, one) for one in arms)])
        if ((rows["metric"] == "accuracy") & (rows["part"] == "test")).any():
            ours = paper.ours(rows.drop_duplicates(["hash", "metric", "part", "x"]))
            published = paper.published(dataset.partition("_")[0])
            yield {"title": dataset, "lines": pd.concat([published, ours]).reset_index()}


def _is_literal(of: Arm) -> bool:
    """Whether it is an arm of Table 1: the penalty of the paper, and weights on the estimator's own sample."""
    if of.estimator == "plain":
        return not of.changed
    return of.changed.get("penalty.kind") == "literal" and "train.weights" not in of.changed
