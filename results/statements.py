"""The ten statements of the paper, each with its measurements and a verdict.

Grathwohl, Creager, Seyed Ghasemipour and Zemel, "Gradient-based optimization of neural network architecture" (2018).

Rows are from the preset `study`; costs are from the preset `cpu`, which has the larger network. `results.statement`
explains how verdicts follow from tests. The thresholds are in `results.study_design`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from results import reading, study, summary
from results.statement import (
    Evidence,
    Statement,
    apart,
    concluded,
    holm,
    of_interval,
    of_seeds,
    p_values,
    replicated,
)
from results.study_design import (
    EPOCHS,
    FRESH,
    LITERAL,
    LOOKS,
    MARGIN,
    MINIMAL,
    MOST,
    PAPER,
    PRESET,
    RLOO,
    SCHEDULES,
    SWEEP,
    TEMPERATURES,
    TOO_MUCH,
    WARM,
    Arm,
    arm,
)

C10, C100 = "cifar10_16", "cifar100_16"
LARGE = "cpu"
"""The preset whose costs are used."""
TASKS = ("depth", "width", "joint")


def judged(frame: pd.DataFrame) -> list[Statement]:
    """All ten statements with their verdicts."""
    found = []
    for make in _STATEMENTS:
        with reading.recorded() as cells:
            made = make(frame)
        found.append(replace(made, cells=tuple(sorted(cells))))
    p = [min(p_values(one)) for one in found]
    adjusted = holm(p)
    return replicated([concluded(one, q) for one, q in zip(found, adjusted, strict=True)])


def _where(task: str, dataset: str = C10, preset: str = PRESET) -> str:
    return f"{task}, {summary.label(preset, dataset)}"


def _looks(measure: str, effect: Callable[[int], pd.Series], *, above: bool = True) -> tuple[Evidence, ...]:
    """A test against `MARGIN` on the width task at every look that has all of its runs, the latest last.

    Args:
        measure: what the effect is, with its unit.
        effect: the effect by seed, for a number of seeds.
        above: whether the statement claims that the effect is above the margin.
    """
    first, *further = (of_seeds(measure, _where("width"), effect(n), MARGIN, above) for n in LOOKS)
    return first, *(test for test, n in zip(further, LOOKS[1:], strict=True) if test.n == n)


def _again(measure: str, effect: Callable[[int], pd.Series]) -> Evidence:
    """The replication of such a test, on the fresh seeds alone; no effect is shown before all have run.

    Args:
        measure: what the effect is, with its unit.
        effect: the effect by seed, for a number of seeds.
    """
    fresh = effect(FRESH.stop)
    fresh = fresh[fresh.index.isin(FRESH)].dropna()
    measure = f"{measure}; replication, seeds {FRESH.start} to {FRESH[-1]}"
    if len(fresh) < len(FRESH):
        return Evidence(measure, _where("width"), n=len(fresh))
    return of_seeds(measure, _where("width"), fresh, MARGIN)


def _gap(frame: pd.DataFrame, of: Arm) -> pd.Series:
    """Training minus test accuracy of the learned network, in points."""
    return apart(study.values(frame, of, part="train"), study.values(frame, of))


def _first(frame: pd.DataFrame) -> Statement:
    never = study.values(frame, arm("random"))
    beside = []
    for name in (RLOO, SWEEP, "reinforce[baseline='none']"):
        learned = study.values(frame, arm(name))
        beside.append(
            of_seeds(f"test accuracy, points: {name} − q never learned", _where("width"), apart(learned, never), None)
        )
    *earlier, test = _looks(
        "test accuracy, points: reinforce − q never learned",
        lambda n: apart(*(study.values(frame, arm(name, seeds=n)) for name in ("reinforce", "random"))),
        above=False,
    )
    return Statement(
        1,
        "The score function has prohibitively high variance",
        f"supported if q learned by `reinforce` gains less than {MARGIN:g} points over a q that is never learned;"
        " both need one evaluation per step",
        (test,),
        tuple(beside),
        tuple(earlier),
    )


def _second(frame: pd.DataFrame) -> Statement:
    score = "reinforce[baseline='none']"
    rows, where = _gradients(frame, "variance", ("rebar", "relax", score))
    tests: list[Evidence] = []
    beside: list[Evidence] = []
    for name in ("rebar", "relax"):
        if (line := _ratio(rows, name, score)) is not None:
            measure = f"log10 of variance of {name} / that of the score function, logits"
            tests.append(of_interval(measure, where, line, 0.0, above=False))
    biases, where = _gradients(frame, "bias", ("rebar", "relax"))
    for name in ("rebar", "relax"):
        for _, line in biases[biases["estimator"] == name].iterrows():
            reading.note(line["cells"])
            beside.append(of_interval(f"squared bias / ‖∇‖² of {name}, logits", where, line, None))
    return Statement(
        2,
        "REBAR and RELAX are unbiased and have less variance than the score function",
        "supported if both have less variance; the project's tests verify by enumeration that they are unbiased",
        tuple(tests) if len(tests) == 2 else (),
        tuple(beside),
    )


def _third(frame: pd.DataFrame) -> Statement:
    tests: list[Evidence] = []
    beside: list[Evidence] = []
    costs = {}
    for metric, suite, what in (("peak_ratio", "memory", "peak bytes"), ("time_ratio", "overhead", "time")):
        rows = summary.pool(summary.measured(frame[frame["task"] == "width"], metric, suite=suite))
        rows = rows[rows["preset"] == LARGE]
        costs[what] = rows[rows["name"].isin(["rebar", "relax"])]
    for name in ("rebar", "relax"):
        forms = [set(rows.loc[rows["name"] == name, "estimator"]) for rows in costs.values()]
        both = set.intersection(*forms)
        if not both:
            continue
        greatest = {form: max(_line(rows, form)["value"] for rows in costs.values()) for form in both}
        cheapest = min(greatest, key=lambda form: greatest[form])
        for what, rows in costs.items():
            for form in sorted(both):
                decides = form == cheapest and _line(rows, form)["value"] == greatest[form]
                test = of_interval(
                    f"{what} of a step / plain: {form}", _where("width", summary.NO_DATA, LARGE), _line(rows, form),
                    TOO_MUCH if decides else None,
                )  # fmt: skip
                (tests if decides else beside).append(test)
    return Statement(
        3,
        "REBAR and RELAX are too expensive in memory and compute for a large network",
        f"supported if the cheapest form of each needs more than {TOO_MUCH:g} plain steps in time or memory",
        tuple(tests) if len(tests) == 2 else (),
        tuple(beside),
    )


def _fourth(frame: pd.DataFrame) -> Statement:
    names = [f"concrete[temperature={t}]" for t in TEMPERATURES]
    tests: list[Evidence] = []
    beside = []
    for metric, what, sign in (("variance", "log10 of variance", -1), ("bias", "squared bias / ‖∇‖²", 1)):
        rows, where = _gradients(frame, metric, names)
        lines = [_line(rows, name) for name in names if (rows["estimator"] == name).any()]
        if len(lines) < len(names):
            continue
        for t, line in zip(TEMPERATURES, lines, strict=True):
            if metric == "variance":
                line = _log(line)
            beside.append(of_interval(f"{what} of Concrete at t = {t}, logits", where, line, None))
        for (s, one), (t, other) in itertools.pairwise(zip(TEMPERATURES, lines, strict=True)):
            line = _difference(_log(other), _log(one)) if metric == "variance" else _difference(other, one)
            # at the lowest temperatures there is almost no bias, so only one pair of higher ones is a test
            if metric == "variance" or (s, t) == ("0.3", "1.0"):
                tests.append(of_interval(f"{what}: t = {t} − t = {s}, logits", where, line, 0.0, above=sign > 0))
    return Statement(
        4,
        "Concrete has low variance and is biased, and its temperature t trades one for the other",
        "supported if the variance falls with every increase of t, and the bias is larger at t = 1 than at t = 0.3",
        tuple(tests) if len(tests) == len(TEMPERATURES) else (),
        tuple(beside),
    )


def _fifth(frame: pd.DataFrame) -> Statement:
    rule = (
        f"supported if bias accounts for more than {MOST:.0%} of the drop from plain to Concrete's accuracy,"
        " contradicted if for less"
    )
    words = "The bias of Concrete is responsible for most of the accuracy lost against the plain network"
    one, other = (arm(name, "mode", seeds=LOOKS[-1]) for name in (SWEEP, PAPER))
    beside = [
        of_seeds(
            f"test accuracy lost, points: bias and variance together, weights on the mode ({SWEEP} − {PAPER})",
            _where("width"),
            apart(study.values(frame, one), study.values(frame, other)),
            None,
        )
    ]
    tests: list[Evidence] = []
    for dataset in (C10, C100):
        if (parts := study.decomposition(frame, dataset)) is None:
            continue
        blamed, drop = parts.per_seed[parts.blamed], parts.per_seed["drop"]
        decides = dataset == C10 and parts.blamed == study.BIAS
        share = replace(
            of_seeds("", _where("width", dataset), blamed - MOST * drop, 0.0 if decides else None),
            measure=f"share of the drop that is due to the {parts.blamed}",
            estimate=parts.share.estimate, low=parts.share.low, high=parts.share.high,
            threshold=MOST if decides else None,
        )  # fmt: skip
        (tests if decides else beside).append(share)
        beside.append(
            of_seeds(
                f"test accuracy lost, points: {parts.blamed}, minus {MOST:.0%} of the drop", _where("width", dataset),
                blamed - MOST * drop, None,
            )
        )  # fmt: skip
        beside += [
            Evidence(
                f"test accuracy lost, points: {step.name}", _where("width", dataset), *step.lost[:3], int(step.lost.n)
            )
            for step in (*parts.steps, study.Step("in all", parts.drop), *parts.interactions)
        ]
    return Statement(5, words, rule, tuple(tests), tuple(beside))


def _sixth(frame: pd.DataFrame) -> Statement:
    def wider(n: int) -> pd.Series:
        return apart(*(_gap(frame, arm(name, "mode", seeds=n)) for name in (PAPER, SWEEP)))

    measure = "train − test accuracy, points: concrete − sweep, weights on the mode"
    *earlier, test = _looks(measure, wider)
    pairs = (
        ("concrete − sweep, weights on their own samples", arm(PAPER), arm(SWEEP)),
        ("concrete − plain", arm(PAPER), arm("plain")),
        ("concrete − its network trained from scratch", arm(PAPER), arm(f"scratch[of='{PAPER}']")),
    )
    beside = [
        of_seeds(f"train − test accuracy, points: {what}", _where("width"), apart(_gap(frame, a), _gap(frame, b)), None)
        for what, a, b in pairs
    ]
    return Statement(
        6,
        "Biased estimators widen the generalisation gap",
        f"supported if the gap with Concrete is more than {MARGIN:g} points wider than with sweep, at equal MACs and"
        " equal training of the weights",
        (test,),
        tuple(beside),
        tuple(earlier),
        _again(measure, wider),
    )


def _seventh(frame: pd.DataFrame) -> Statement:
    tests: list[Evidence] = []
    for task in TASKS:
        rows = summary.pool(summary.measured(frame[frame["task"] == task], "time_ratio", suite="overhead"))
        rows = rows[(rows["preset"] == LARGE) & (rows["estimator"] == PAPER)]
        for _, line in rows.iterrows():
            reading.note(line["cells"])
            test = of_interval(
                "time of a step / plain: concrete", _where(task, summary.NO_DATA, LARGE), line, MINIMAL, above=False
            )
            tests.append(test)
    return Statement(
        7,
        "Variational model optimisation adds minimal overhead to plain training",
        f"supported if a step with Concrete takes less than {MINIMAL:g} plain steps on every task",
        tuple(tests) if len(tests) == len(TASKS) else (),
    )


def _eighth(frame: pd.DataFrame) -> Statement:
    where = _where("width")
    ours = 1 - study.curve(frame, arm(PAPER), "curve_accuracy")  # errors, which fall
    alone = 1 - study.curve(frame, arm(f"scratch[of='{PAPER}']"), "curve_accuracy")
    epochs = {}
    for seed in ours.index.intersection(alone.index):
        both = ours.loc[seed], alone.loc[seed]
        level = max(errors.iloc[-1] for errors in both)  # both reach it, so neither of them has an advantage
        epochs[seed] = _reached(both[0], level) / _reached(both[1], level)
    slower = of_seeds(
        "log of epochs to the lower of two final test accuracies: of Concrete / of its network alone", where,
        np.log(pd.Series(epochs, dtype=float)), 0.0,
    )  # fmt: skip
    base = study.values(frame, arm(PAPER))
    twice = {"train.epochs": str(2 * EPOCHS)}
    longer = study.values(frame, arm(PAPER, changed=twice))

    def gained(what: str, changed: dict[str, str], other: pd.Series, threshold: float | None = None) -> Evidence:
        found = apart(study.values(frame, arm(PAPER, changed=changed)), other)
        return of_seeds(f"test accuracy, points: Concrete, {what}", where, found, threshold)

    return Statement(
        8,
        "Exploration slows the convergence of the weights, and longer training after the choice would recover it",
        "supported if the network of Concrete, trained alone, reaches the lower of both final test accuracies in fewer"
        " epochs than Concrete, and if freezing q for the second half of the epochs gains accuracy",
        (
            slower,
            gained(
                f"q frozen for the last {EPOCHS // 2} of {EPOCHS} epochs − q never frozen",
                _frozen(EPOCHS // 2),
                base,
                0.0,
            ),
        ),
        (
            gained(
                f"q frozen for the last {EPOCHS // 4} of {EPOCHS} epochs − q never frozen", _frozen(EPOCHS // 4), base
            ),
            gained(
                f"{EPOCHS} epochs and {EPOCHS} of the chosen network − {2 * EPOCHS} epochs", _continued(EPOCHS), longer
            ),
            gained(
                f"q frozen for the last {EPOCHS} of {2 * EPOCHS} epochs − q never frozen",
                {**twice, **_frozen(EPOCHS)},
                longer,
            ),
        ),
    )


def _frozen(epochs: int) -> dict[str, str]:
    return {"train.freeze": str(epochs)}


def _continued(epochs: int) -> dict[str, str]:
    return {"train.continued": str(epochs)}


def _ninth(frame: pd.DataFrame) -> Statement:
    def better(n: int) -> pd.Series:
        return apart(*(study.values(frame, arm(name, "mode", seeds=n)) for name in (SWEEP, PAPER)))

    where = _where("width")
    measure = "test accuracy, points: φ by sweep − φ by concrete, weights on the mode"
    *earlier, unbiased = _looks(measure, better)
    base = study.values(frame, arm(PAPER))
    beside = [
        of_seeds(f"test accuracy, points: {name} − concrete", where, apart(study.values(frame, arm(name)), base), None)
        for name in (SWEEP, RLOO, "reinforce", "relax")
    ]
    for what, t in SCHEDULES.items():
        if (name := f"concrete[temperature={t}]") == WARM:
            continue  # it is a test
        other = study.values(frame, arm(name))
        beside.append(
            of_seeds(
                f"test accuracy, points: concrete, t: {what}, minus t: 0.1 → 0.001", where, apart(other, base), None
            )
        )
    constant = of_seeds(
        "test accuracy, points: concrete, t: constant 1, minus t: 0.1 → 0.001", where,
        apart(study.values(frame, arm(WARM)), base), MARGIN,
    )  # fmt: skip
    return Statement(
        9,
        "An unbiased estimator would improve on Concrete, and so would another annealing of the temperature",
        f"supported if sweep in place of Concrete, for φ's gradient alone, gains more than {MARGIN:g} points, and if"
        f" t = 1 in place of the paper's annealing of t gains more than {MARGIN:g} points",
        (unbiased, constant),
        tuple(beside),
        (*earlier, constant) if earlier else (),
        _again(measure, better),
    )


def _tenth(frame: pd.DataFrame) -> Statement:
    tests, beside = [], []
    losses = {}
    for dataset in (C10, C100):
        plain = study.values(frame, arm("plain", dataset=dataset))
        for task in TASKS:
            learned = arm(PAPER, task=task, dataset=dataset, changed=LITERAL)
            lost = apart(plain, study.values(frame, learned))
            measure = f"test accuracy lost, points: plain − {task}"
            if task != "depth":
                tests.append(of_seeds(measure, _where(task, dataset), lost, 0.0))
            elif dataset == C10:  # on CIFAR-100 the paper loses half a point
                tests.append(of_seeds(measure, _where(task, dataset), lost, MARGIN, above=False))
            else:
                beside.append(of_seeds(measure, _where(task, dataset), lost, None))
            full = study.values(frame, arm("plain", dataset=dataset), "parameters", None)
            kept = 100 * (study.values(frame, learned, "parameters", None) / full)
            beside.append(of_seeds(f"parameters kept, %: {task}", _where(task, dataset), kept, None))
            losses[dataset, task] = lost
    for task in TASKS:
        more = apart(losses[C100, task], losses[C10, task])
        where = f"{task}, {PRESET}"
        beside.append(of_seeds(f"test accuracy lost, points: on CIFAR-100 − on CIFAR-10: {task}", where, more, None))
    return Statement(
        10,
        "Depth loses a block and no accuracy; width and joint lose accuracy and parameters, more on CIFAR-100",
        f"supported if width and joint lose accuracy on both data sets, and depth loses less than {MARGIN:g} points on"
        " CIFAR-10",
        tuple(tests),
        tuple(beside),
    )


_STATEMENTS: tuple[Callable[[pd.DataFrame], Statement], ...] = (
    _first, _second, _third, _fourth, _fifth, _sixth, _seventh, _eighth, _ninth, _tenth,
)  # fmt: skip


def _gradients(frame: pd.DataFrame, metric: str, names: Collection[str]) -> tuple[pd.DataFrame, str]:
    """Pooled rows of bias or variance of the logits half-way through training, of the preset `study` if it has any.

    There are none unless these estimators were measured at the same network.
    """
    frame = frame[
        (frame["task"] == "width") & frame["suite"].isin(["bias", "variance"]) & frame["estimator"].isin(names)
    ]
    if not (study_rows := frame[frame["preset_name"] == PRESET]).empty:
        frame = study_rows
    at = summary.networks(frame).merge(frame[["hash", "preset", "dataset", "seed"]].drop_duplicates("hash"))
    if at.groupby(["preset", "dataset", "seed", "point"])["network"].nunique().gt(1).any():
        frame = frame.iloc[:0]
    rows = summary.relative_bias(frame) if metric == "bias" else summary.pool(summary.measured(frame, metric))
    rows = summary.main_context(summary.one_point(rows[rows["part"] == "logits"]))
    place = rows[summary.CONTEXT].iloc[0] if len(rows) else None
    where = "" if place is None else f"width, {summary.label(place['preset'], place['dataset'])}"
    return rows, where


def _line(rows: pd.DataFrame, estimator: str) -> pd.Series:
    line = rows[rows["estimator"] == estimator].iloc[0]
    reading.note(line["cells"])
    return line


def _log(line: pd.Series) -> pd.Series:
    """log10 of a positive number and its interval, to first order."""
    half = (line["high"] - line["low"]) / 2 / line["value"] / np.log(10)
    value = np.log10(line["value"])
    return pd.Series({"value": value, "low": value - half, "high": value + half, "n": line["n"]})


def _difference(one: pd.Series, other: pd.Series) -> pd.Series:
    """one − other, for independent numbers with intervals."""
    half = np.hypot(one["high"] - one["low"], other["high"] - other["low"]) / 2
    value = one["value"] - other["value"]
    return pd.Series({"value": value, "low": value - half, "high": value + half, "n": min(one["n"], other["n"])})


def _ratio(rows: pd.DataFrame, one: str, other: str) -> pd.Series | None:
    """log10 of the ratio of two variances."""
    if not {one, other} <= set(rows["estimator"]):
        return None
    return _difference(_log(_line(rows, one)), _log(_line(rows, other)))


def _reached(losses: pd.Series, level: float) -> float:
    """The epoch at which a curve first falls to a level, with linear interpolation; the last epoch if it never does."""
    epochs = losses.index.to_numpy(np.float64)
    values = losses.to_numpy(np.float64)
    below = np.flatnonzero(values <= level)
    if not below.size:
        return float(epochs[-1])
    at = int(below[0])
    if at == 0:
        return float(epochs[0])
    part = (values[at - 1] - level) / (values[at - 1] - values[at])
    return float(epochs[at - 1] + part * (epochs[at] - epochs[at - 1]))
