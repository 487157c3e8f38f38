"""The results of the study, from its rows: values of arms, and the decomposition of the drop in accuracy.

`results.study_design` defines the arms. All accuracies here are percentages, all differences percentage points. Arms
are compared seed by seed.

The drop from the plain network to Concrete's network is the sum of the steps below. v(φ, weights) is the test accuracy
of a run with this estimator of φ's gradient and these samples for the weights.

    smaller network         plain − scratch; scratch: the learned architecture, trained alone from new weights
    exploration             scratch − v(sweep, mode): the weights train while the architecture is still being chosen
    bias of φ's gradient,   from v(sweep, mode) to v(concrete, soft), by three switches that can be set in any order
    variance of it,
    soft weights
    one sample for both     v(concrete, soft) − Concrete: φ and weights learn from the same sample

The share of each switch is its Shapley value: the change from setting it, averaged over the six orders of setting all
three. With n switches, and v(S) the accuracy with the switches S set,

    φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! (v(S ∪ i) − v(S)).

The interaction of two switches i and j is the Shapley interaction index (Grabisch and Roubens 1999): the mean over the
third switch of v(S ∪ ij) − v(S ∪ i) − v(S ∪ j) + v(S). It is 0 if the two effects are additive.

A data set that lacks arms of the switches, but has those of `results.study_design.of_deciding`, has four steps. The
first two are as above, then

    bias and variance       v(sweep, mode) − v(concrete, mode)
    soft weights and        v(concrete, mode) − Concrete
    one sample for both
"""

from __future__ import annotations

import itertools
import json
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from results import reading, stats
from results.study_design import AVERAGED, DEFAULTS, PAPER, RLOO, SWEEP, Arm, arm

SWITCHES = ("bias", "variance", "soft weights")
BIAS = "bias of φ's gradient"
BIAS_AND_VARIANCE = "bias and variance of φ's gradient"
_OF_PHI = {(): SWEEP, ("bias",): AVERAGED, ("variance",): RLOO, ("bias", "variance"): PAPER}


class Step(NamedTuple):
    """A part of the drop in accuracy: percentage points lost, with a 95 % interval over seeds."""

    name: str
    lost: stats.Interval


class Decomposition(NamedTuple):
    """The decomposition of the drop from the plain network to Concrete's, on the seeds that have all runs.

    Attributes:
        plain: accuracy of the plain network, in %.
        concrete: accuracy of Concrete's network, in %.
        drop: plain − concrete.
        steps: the steps in the order of the waterfall figure; their sum is the drop.
        blamed: the step that has the bias: `BIAS`, or `BIAS_AND_VARIANCE` if there are no runs to tell them apart.
        share: fraction of the drop due to `blamed`, with Fieller's interval.
        interactions: interactions of pairs of switches; none without runs for every switch.
        per_seed: the steps and "drop", with seeds as rows.
    """

    plain: stats.Interval
    concrete: stats.Interval
    drop: stats.Interval
    steps: list[Step]
    blamed: str
    share: stats.Interval
    interactions: list[Step]
    per_seed: pd.DataFrame


def runs(frame: pd.DataFrame, of: Arm, suite: str = "accuracy") -> pd.DataFrame:
    """The rows of an arm's finished runs, one run per seed of the arm; of several the one with the latest version.

    Args:
        frame: all rows.
        of: the arm.
        suite: "accuracy", or "latency" for the rows on the time of the learned networks, on a CPU.
    """
    wanted = {**DEFAULTS, **{name: _typed(value) for name, value in of.changed.items()}}
    here = _finished(frame).get((suite, of.estimator, of.dataset, of.task), frame.iloc[:0])
    if suite == "latency":
        here = here[here["device"].str.startswith("cpu")]
    alike = {text: _agrees(json.loads(text), wanted) for text in here["settings"].unique()}
    found = here[here["settings"].map(alike).astype(bool) & (here["seed"] < of.seeds)]
    cells = found.drop_duplicates("hash").sort_values(["suite_version", "task_version", "hash"])
    found = found[found["hash"].isin(cells.drop_duplicates("seed", keep="last")["hash"])]
    reading.note(found["hash"])
    return found.drop_duplicates(["hash", "metric", "part", "x"])  # plain training may appear under several presets


def _finished(frame: pd.DataFrame) -> dict[tuple[str, str, str, str], pd.DataFrame]:
    """The rows of finished cells by suite, estimator, data set and task. Kept for the last frame: every number needs
    them."""
    if not _LAST or _LAST[0]() is not frame:
        here = frame[frame["suite"].isin(["accuracy", "latency"]) & (frame["status"] == "ok")]
        by = ["suite", "estimator", "dataset", "task"]
        _LAST[:] = weakref.ref(frame), dict(iter(here.groupby(by, sort=False)))
    found: dict[tuple[str, str, str, str], pd.DataFrame] = _LAST[1]
    return found


_LAST: list[Any] = []


def values(frame: pd.DataFrame, of: Arm, metric: str = "accuracy", part: str | None = "test") -> pd.Series:
    """A metric of an arm, by seed; accuracies in %."""
    rows = runs(frame, of)
    rows = rows[(rows["metric"] == metric) & rows["x"].isna()]
    rows = rows if part is None else rows[rows["part"] == part]
    factor = 100.0 if metric in ("accuracy", "sampled_accuracy") else 1.0
    return factor * rows.set_index("seed")["value"].sort_index()


def curve(frame: pd.DataFrame, of: Arm, metric: str) -> pd.DataFrame:
    """A metric of an arm during training: seeds as rows, epochs as columns."""
    rows = runs(frame, of)
    return rows[rows["metric"] == metric].pivot_table(index="seed", columns="x", values="value")


def decomposition(frame: pd.DataFrame, dataset: str = "cifar10_16") -> Decomposition | None:
    """The decomposition of the drop on the width task; None if fewer than two seeds have the runs.

    Every switch has its own step if two seeds have all of its arms. Otherwise the deciding arms give four steps.
    """
    arms = arms_of(dataset)
    chosen: tuple[object, ...] = ("plain", "scratch", "concrete", (), ("bias", "variance"))
    deciding = {key: arms[key] for key in chosen}
    if (table := _cells(frame, arms)) is not None:
        parts, interactions = _by_switch(table)
        blamed = BIAS
    elif (table := _cells(frame, deciding)) is not None:
        parts, interactions = _by_arm(table), {}
        blamed = BIAS_AND_VARIANCE
    else:
        return None
    parts = {"smaller network": table["plain"] - table["scratch"], "exploration": table["scratch"] - table[()], **parts}
    drop = table["plain"] - table["concrete"]
    return Decomposition(
        stats.t_interval(table["plain"]),
        stats.t_interval(table["concrete"]),
        stats.t_interval(drop),
        [Step(name, stats.t_interval(lost)) for name, lost in parts.items()],
        blamed,
        stats.fieller(parts[blamed], drop),
        [Step(name, stats.t_interval(lost)) for name, lost in interactions.items()],
        pd.DataFrame({**parts, "drop": drop}),
    )


def _by_switch(table: pd.DataFrame) -> tuple[dict[str, pd.Series], dict[str, pd.Series]]:
    """Points lost from `sweep` on the mode to Concrete, and the interactions of the switches, by seed."""
    parts = {
        "soft weights": _shapley(table, "soft weights"),
        "variance of φ's gradient": _shapley(table, "variance"),
        BIAS: _shapley(table, "bias"),
        "one sample for both": table[SWITCHES] - table["concrete"],
    }
    return parts, {f"{a} × {b}": _interaction(table, a, b) for a, b in itertools.combinations(SWITCHES, 2)}


def _by_arm(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Points lost from `sweep` on the mode to Concrete, by seed, without runs for every switch."""
    return {
        BIAS_AND_VARIANCE: table[()] - table["bias", "variance"],
        "soft weights, one sample for both": table["bias", "variance"] - table["concrete"],
    }


def arms_of(dataset: str) -> Mapping[object, Arm]:
    """The arms of the decomposition: "plain", "scratch", "concrete", and one for each set of switches."""
    found: dict[object, Arm] = {
        "plain": arm("plain", dataset=dataset),
        "scratch": arm(f"scratch[of='{SWEEP}']", "mode", dataset=dataset),
        "concrete": arm(PAPER, dataset=dataset),
    }
    for phi, estimator in _OF_PHI.items():
        found[phi] = arm(estimator, "mode", dataset=dataset)
        found[*phi, "soft weights"] = arm(estimator, PAPER, dataset=dataset)
    return found


def _cells(frame: pd.DataFrame, arms: Mapping[object, Arm]) -> pd.DataFrame | None:
    """Test accuracy of every arm, with seeds as rows; None if fewer than two seeds have all arms."""
    columns = {key: values(frame, one) for key, one in arms.items()}
    table = pd.concat(list(columns.values()), axis=1, join="inner")
    table.columns = pd.Index(list(columns), tupleize_cols=False)
    return table if len(table) > 1 else None


def _shapley(table: pd.DataFrame, player: str) -> pd.Series:
    """Points lost to a switch (its Shapley value), by seed."""
    others = [name for name in SWITCHES if name != player]
    total = pd.Series(0.0, index=table.index)
    for size in range(len(others) + 1):
        weight = math.factorial(size) * math.factorial(len(others) - size) / math.factorial(len(others) + 1)
        for chosen in itertools.combinations(others, size):
            total += weight * (table[_set(chosen)] - table[_set((*chosen, player))])
    return total


def _interaction(table: pd.DataFrame, one: str, other: str) -> pd.Series:
    """Points lost to two switches together beyond the sum of both, by seed."""
    rest = [name for name in SWITCHES if name not in (one, other)]
    total = pd.Series(0.0, index=table.index)
    for size in range(len(rest) + 1):
        weight = math.factorial(size) * math.factorial(len(rest) - size) / math.factorial(len(rest) + 1)
        for chosen in itertools.combinations(rest, size):
            both, a, b, none = (table[_set((*chosen, *more))] for more in ((one, other), (one,), (other,), ()))
            total -= weight * (both - a - b + none)
    return total


def _set(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in SWITCHES if name in names)


def _agrees(settings: Mapping[str, Mapping[str, object]], wanted: Mapping[str, object]) -> bool:
    """Whether the settings of a run agree with the wanted ones. Settings that the run does not have are ignored."""
    return all(
        settings[group][name] == value
        for (group, name), value in ((key.split("."), value) for key, value in wanted.items())
        if name in settings.get(group, {})
    )


def _typed(text: str) -> object:
    """The value of a setting in the type used in rows."""
    try:
        return json.loads(text)
    except ValueError:
        return text
