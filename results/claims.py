"""Statements of the paper about estimators, each with a measurement and a verdict for one task.

Grathwohl, Creager, Seyed Ghasemipour and Zemel, "Gradient-based optimization of neural network architecture" (2018).
The paper gives no threshold for "too much"; here it is twice a plain step. A verdict holds for the preset and data set
in its note.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from results import stats, summary

TOO_MUCH = 2.0  # times a step of plain training
NEGLIGIBLE = 0.01  # squared bias as a fraction of the squared gradient
EFFECTIVE = 20  # least effective number of draws behind a variance, for a verdict on a mean
LEVEL = 0.05  # after Benjamini-Hochberg, if a statement is about several estimators
_UNBIASED = ("exact", "reinforce", "rloo", "rebar", "relax", "sweep")


@dataclass(frozen=True)
class Verdict:
    """A statement, its measurement with a 95 % interval, and the verdict."""

    statement: str
    measure: str
    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    verdict: str = "not measured"
    note: str = ""


def verdicts(frame: pd.DataFrame, task: str = "width") -> list[Verdict]:
    """A verdict on every statement for one task; "not measured" if rows are missing."""
    frame = frame[frame["task"] == task]
    return [*_bias(frame), *_variance(frame), *_cost(frame), *_accuracy(frame)]


def _bias(frame: pd.DataFrame) -> Iterator[Verdict]:
    rows = summary.relative_bias(frame)
    tests = adjusted(summary.measured(frame, "bias_p"))
    for part in ("logits", "weights"):
        statement, measure = "Concrete is biased", f"squared bias / ‖∇‖², {part}"
        found = summary.main_context(
            summary.one_point(rows[(rows["part"] == part) & (rows["estimator"] == "concrete")])
        )
        if found.empty:
            yield Verdict(statement, measure)
            continue
        line = found.iloc[0]
        family = _same_context(tests, line)
        here = (family["part"] == part) & (family["estimator"] == "concrete") & (family["point"] == line["point"])
        p = family.loc[here, "value"]
        rule = f"supported above 0, contradicted below {NEGLIGIBLE}; {line['point']} point"
        rule += f", p = {p.min():.1g} adjusted over {len(family)} tests" if len(p) else ""
        carried = _effective(_same_context(frame, line), part, line["point"])
        enough = carried is None or carried >= EFFECTIVE
        if not enough:
            rule += f", but only {carried:.0f} draws carry the variance, too few for an interval or a p value"
        yes, no = line["low"] > 0 and enough, line["high"] < NEGLIGIBLE and enough
        yield _judge(statement, measure, line, yes, no, rule, found)


def adjusted(tests: pd.DataFrame) -> pd.DataFrame:
    """Rows of p values, adjusted by Benjamini-Hochberg within each task, preset and data set."""
    families = tests.groupby(["task", *summary.CONTEXT], dropna=False)["value"]
    return tests.assign(value=families.transform(lambda p: stats.adjust(p.to_numpy())))


def _same_context(rows: pd.DataFrame, line: pd.Series) -> pd.DataFrame:
    return summary.in_context(rows, *line[summary.CONTEXT])


def _effective(frame: pd.DataFrame, part: str, point: str) -> float | None:
    """The effective number of draws behind Concrete's variance: (Σ d²)² / Σ d⁴ for deviations d, from value, se and n.

    At low temperatures nearly all gradients are close to 0 and a few are huge. A mean of few such draws has no normal
    error.
    """
    rows = summary.measured(frame, "variance", part=part, estimator="concrete", point=point)
    rows = rows[rows["se"] > 0]
    return None if rows.empty else float((1 / ((rows["se"] / rows["value"]) ** 2 + 1 / rows["n"])).sum())


def _variance(frame: pd.DataFrame) -> Iterator[Verdict]:
    rows = summary.measured(frame, "variance", part="logits")
    rows = summary.main_context(summary.one_point(summary.pool(rows)))
    lines = rows.set_index("estimator")
    for name in ("reinforce", "rloo", "rebar", "relax"):
        statement, measure = f"The variance of {name} is prohibitive", "variance / that of Concrete, logits"
        if not {name, "concrete"} <= set(lines.index) or (lines.loc[[name, "concrete"], "value"] <= 0).any():
            yield Verdict(statement, measure)
            continue
        pair = lines.loc[[name, "concrete"]]
        ratio = pair["value"].iloc[0] / pair["value"].iloc[1]
        relative = (pair["high"] - pair["low"]) / 2 / pair["value"]
        half = np.sqrt((relative**2).sum(skipna=False))  # of the log ratio, to first order
        line = pd.Series(
            {"value": ratio, "low": ratio * np.exp(-half), "high": ratio * np.exp(half), "n": pair["n"].min()}
        )
        rule = f"supported above 1, contradicted below 1; {pair['point'].iloc[0]} point; no threshold in the paper"
        carried = _effective(_same_context(frame, pair.iloc[0]), "logits", pair["point"].iloc[0])
        enough = carried is None or carried >= EFFECTIVE
        rule += "" if enough else f", but only {carried:.0f} draws carry Concrete's variance, too few for an interval"
        yield _judge(statement, measure, line, line["low"] > 1 and enough, line["high"] < 1 and enough, rule, rows)


def _cost(frame: pd.DataFrame) -> Iterator[Verdict]:
    for metric, suite, what in (("peak_ratio", "memory", "memory"), ("time_ratio", "overhead", "compute")):
        rows = summary.main_context(summary.pool(summary.measured(frame, metric, suite=suite)))
        forms = {str(label) for label in rows.loc[rows["name"].isin(["rebar", "relax"]), "estimator"]}
        for label in sorted({"rebar", "relax"} | forms):
            statement = f"{label} costs too much {what}"
            measure = f"{'peak bytes' if what == 'memory' else 'time'} of a step / plain"
            found = rows[rows["estimator"] == label]
            if found.empty:
                yield Verdict(statement, measure)
                continue
            line = found.iloc[0].copy()
            if what == "memory":  # bytes are counted, not sampled
                line["low"], line["high"] = line[["low", "high"]].fillna(line["value"])
            rule = f"supported above {TOO_MUCH:g}, contradicted below; our threshold"
            yield _judge(statement, measure, line, line["low"] > TOO_MUCH, line["high"] < TOO_MUCH, rule, found)


def _accuracy(frame: pd.DataFrame) -> Iterator[Verdict]:
    rows = summary.main_context(summary.measured(frame, "accuracy"))
    where = summary.context_label(rows)
    seeds = rows.pivot_table(index="seed", columns=["part", "estimator"], values="value") * 100
    test = seeds["test"] if "test" in seeds else pd.DataFrame()
    gap = seeds["train"] - test if "train" in seeds else pd.DataFrame()

    def compare(statement: str, measure: str, table: pd.DataFrame, a: str, b: str, sign: int) -> tuple[Verdict, float]:
        if not {a, b} <= set(table.columns) or len(pairs := table[[a, b]].dropna()) == 0:
            return Verdict(statement, measure), np.nan
        found = stats.paired(pairs[a], pairs[b])
        better = sign * found.estimate > 0
        decided = "undecided" if not found.p < LEVEL else "supported" if better else "contradicted"
        how = f"t test paired by seed, p = {found.p:.2g}" if found.n > 1 else "one seed is not enough"
        note = f"{how}; {where}"
        return Verdict(statement, measure, found.estimate, found.low, found.high, found.n, decided, note), found.p

    points = "test accuracy, points: "
    yield compare("Learning with Concrete loses accuracy", f"{points}concrete − plain", test, "concrete", "plain", -1)[
        0
    ]
    several = [
        compare("An unbiased estimator improves on Concrete", f"{points}{name} − concrete", test, name, "concrete", 1)
        for name in _UNBIASED
    ]
    for (verdict, p), adjusted in zip(several, stats.adjust([p for _, p in several]), strict=True):
        if p < LEVEL <= adjusted:
            note = f"{verdict.note}; adjusted over the {sum(p == p for _, p in several)} estimators p = {adjusted:.2g}"
            verdict = replace(verdict, verdict="undecided", note=note)
        yield verdict
    gaps = "train − test accuracy, points: concrete − plain"
    yield compare("The learned network generalises worse", gaps, gap, "concrete", "plain", 1)[0]


def _judge(
    statement: str, measure: str, line: pd.Series, yes: bool, no: bool, rule: str, rows: pd.DataFrame
) -> Verdict:
    verdict = "supported" if yes else "contradicted" if no else "undecided"
    numbers = (float(line["value"]), float(line["low"]), float(line["high"]), int(line["n"]))
    return Verdict(statement, measure, *numbers, verdict, f"{rule}; {summary.context_label(rows)}")
