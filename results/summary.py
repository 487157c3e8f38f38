"""Summarises rows: one number with an interval per estimator, for figures, verdicts and tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy

from results import stats

CONTEXT = ["preset", "dataset"]
NO_DATA = "none"
"""The name of the data set for measurements that read no data."""
CONTROLS = ("random", "uniform", "scratch")
"""Names of the controls: networks trained for comparison, neither with an estimator nor as plain training."""
QUANTITIES = (
    "relative bias",
    "variance",
    "variance × cost",
    "peak memory",
    "step time",
    "test accuracy",
    "width",
    "layers",
    "objective gap",
    "test ELBO",
    "test objective",
)
"""The quantities that are compared between estimators, in the order of the tables."""
COMPARED = (
    "bias_sq", "variance", "peak_ratio", "time_ratio", "accuracy", "width_fraction", "layers", "objective_gap", "elbo",
    "objective",
)  # fmt: skip
"""The metrics that these quantities are computed from."""
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "relative bias": ("bias", ("bias_sq", "gradient_sq")),
    "variance": ("variance", ("variance",)),
    "variance × cost": ("variance", ("variance", "cost")),
    "peak memory": ("memory", ("peak_ratio",)),
    "step time": ("overhead", ("time_ratio",)),
    "test accuracy": ("accuracy", ("accuracy",)),
    "width": ("accuracy", ("width_fraction",)),
    "layers": ("accuracy", ("layers",)),
    "objective gap": ("accuracy", ("objective_gap",)),
    "test ELBO": ("accuracy", ("elbo",)),
    "test objective": ("accuracy", ("objective",)),
}
"""The suite that measures each quantity, and the metrics of the rows behind it."""
BY_SIZE = ("scaling",)
"""Suites that repeat a metric at several sizes; they are left out of the comparison."""
_MEASURE = ["task", *CONTEXT, "part", "point", "x", "estimator", "name", "metric"]
_AT = [*CONTEXT, "task", "part", "point", "seed", "network"]
"""What says at which network a gradient was measured."""
# The spread of training runs over seeds is far larger than the error of evaluating one of them.
_OVER_SEEDS = ("accuracy",)
_OF_PAIRS = ("time_ratio", "time_ratio_held")
_FIRST = {"plain": 0, "zero": 1, "exact": 2, "random": 4, "scratch": 5, "uniform": 5}


def measured(frame: pd.DataFrame, metric: str | Sequence[str], **where: str) -> pd.DataFrame:
    """Rows with this metric, status ok, a finite value and these column values."""
    metrics = [metric] if isinstance(metric, str) else list(metric)
    chosen = frame["metric"].isin(metrics) & (frame["status"] == "ok") & frame["value"].notna()
    for column, value in where.items():
        chosen &= frame[column] == value
    return frame[chosen]


def pool(rows: pd.DataFrame, by: Sequence[str] = _MEASURE) -> pd.DataFrame:
    """One line per group: value, low, high (95 % interval), n, seeds, and the hashes of its cells.

    For training runs with at least two seeds, the interval is a Student t interval over seeds and n is their number.
    Otherwise it is ± 1.96 standard errors, combined over seeds, and n is the number of draws. For ratios of times, n is
    the number of pairs, and Student t takes the place of 1.96.
    """
    keys = list(by)
    if rows.empty:  # most tasks lack most metrics, and an empty group-by takes as long as a full one
        return rows[[*keys, "value"]].assign(low=np.nan, high=np.nan, n=rows["n"], seeds=0, cells=None)
    paired = rows["metric"].isin(_OF_PAIRS) & (rows["n"] > 1)
    half_widths = rows["se"] * np.where(paired, scipy.stats.t.ppf(0.975, rows["n"].clip(lower=2) - 1), 1.96)
    found = rows.assign(
        _square=half_widths**2, _unknown=rows["se"].isna(), _run=rows["suite"].isin(_OVER_SEEDS)
    ).groupby(keys, dropna=False, sort=True)
    pooled = found.agg(
        value=("value", "mean"),
        n=("n", "sum"),
        seeds=("value", "size"),
        cells=("hash", tuple),
        sd=("value", "std"),
        square=("_square", "sum"),
        unknown=("_unknown", "any"),
        run=("_run", "all"),
    ).reset_index()
    seeds = pooled["seeds"]
    over_seeds = (seeds > 1) & (pooled["run"] | pooled["unknown"])
    half = np.sqrt(pooled["square"]) / seeds
    half = half.mask(pooled["unknown"]).mask(over_seeds, stats.t_half(pooled["sd"], seeds))
    pooled = pooled.assign(
        low=pooled["value"] - half, high=pooled["value"] + half, n=pooled["n"].mask(over_seeds, seeds)
    )
    return pooled[[*keys, "value", "low", "high", "n", "seeds", "cells"]].astype(rows[keys].dtypes.to_dict())


def relative_bias(frame: pd.DataFrame) -> pd.DataFrame:
    """Squared bias divided by the squared norm of the gradient of the same network, pooled over seeds.

    Left out where that norm is not significantly above zero, because the ratio would be meaningless. The interval
    includes the error of the norm, to first order.
    """
    rows = _with_networks(measured(frame, "bias_sq"), frame).merge(squared_norms(frame), on=_AT, how="inner")
    ratio = rows["value"] / rows["norm"]
    return pool(rows.assign(value=ratio, se=np.hypot(rows["se"], ratio * rows["norm_se"]) / rows["norm"]))


def squared_norms(frame: pd.DataFrame) -> pd.DataFrame:
    """‖∇‖² at each point of each reference run as the columns `norm` and `norm_se`, where it is significantly above 0.

    Estimators share the reference gradient of the logits. For the weights each has an estimate of its own; their mean
    is taken, weighted by the number of draws.
    """
    found = _with_networks(measured(frame, "gradient_sq"), frame).drop_duplicates([*_AT, "value", "se", "n"])
    draws = found["n"].astype(np.float64)
    sums = found.assign(n=draws, norm=draws * found["value"], square=(draws * found["se"].fillna(0)) ** 2)
    sums = sums.groupby(_AT, dropna=False)[["n", "norm", "square"]].sum()
    norms = pd.DataFrame({"norm": sums["norm"] / sums["n"], "norm_se": np.sqrt(sums["square"]) / sums["n"]})
    return norms[norms["norm"] - 1.96 * norms["norm_se"] > 0].reset_index()


def networks(frame: pd.DataFrame) -> pd.DataFrame:
    """The entropy of q at each point of each cell, as the column `network`.

    Reference runs on different processors end with different networks. Their entropies tell them apart.
    """
    found = measured(frame, "entropy_at")
    return found[["hash", "point", "value"]].rename(columns={"value": "network"}).drop_duplicates(["hash", "point"])


def _with_networks(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    return rows.merge(networks(frame), on=["hash", "point"], how="left")


def main_context(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the preset and data set with the most estimators."""
    if rows.empty:
        return rows
    learned = rows[~rows["name"].isin(CONTROLS)]
    sizes = (
        (rows if learned.empty else learned)
        .groupby(CONTEXT, dropna=False)
        .agg(names=("estimator", "nunique"), count=("n", "size"))
    )
    best = sizes.sort_values(["names", "count"], ascending=False, kind="stable").index[0]
    return in_context(rows, *best)


def in_context(rows: pd.DataFrame, preset: str, dataset: str) -> pd.DataFrame:
    """The rows of one preset and data set."""
    return rows[(rows["preset"] == preset) & (rows["dataset"] == dataset)]


def context_label(rows: pd.DataFrame) -> str:
    """``preset, dataset`` of some rows, for titles; only the preset if no data are read."""
    names = rows[CONTEXT].drop_duplicates().itertuples(index=False)
    return "; ".join(label(*name) for name in names)


def label(preset: str, dataset: str) -> str:
    """``preset, dataset`` of a context, for titles; only the preset if no data are read."""
    return preset if dataset == NO_DATA else f"{preset}, {dataset}"


def data_notes(rows: pd.DataFrame) -> str:
    """Notes on the data sets of some rows, once for each data set; empty if there are none."""
    noted = rows.loc[rows["data_note"].fillna("") != "", ["dataset", "data_note"]].drop_duplicates()
    said = [f"{name}: {note}" for name, note in sorted(noted.itertuples(index=False, name=None))]
    return "; ".join(said)


def one_point(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one point of training: "mid" if it exists, else the first."""
    points = list(rows["point"].dropna().unique())
    return rows[rows["point"] == ("mid" if "mid" in points else points[0])] if points else rows


def quantities(frame: pd.DataFrame, task: str) -> dict[str, pd.DataFrame]:
    """The compared quantities on one task: from name to pooled rows of one preset, data set and point."""
    frame = frame[frame["task"] == task]
    bias, variance = relative_bias(frame), pool(measured(frame, "variance"))
    found = {
        "relative bias": one_point(bias[bias["part"] == "logits"]),
        "variance": (logits := one_point(variance[variance["part"] == "logits"])),
        "variance × cost": _times(logits, pool(measured(frame, "cost", suite="variance"))),
        "peak memory": pool(measured(frame, "peak_ratio", suite="memory")),
        "step time": pool(measured(frame, "time_ratio", suite="overhead")),
        "test accuracy": pool(measured(frame, "accuracy", part="test")),
        "width": pool(measured(frame, "width_fraction")),
        "layers": pool(measured(frame, "layers")),
        "objective gap": pool(measured(frame, "objective_gap")),
        "test ELBO": pool(measured(frame, "elbo", part="test")),
        "test objective": pool(measured(frame, "objective", part="test")),
    }
    return {name: main_context(rows) for name, rows in found.items() if not rows.empty}


def _times(rows: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """Pooled rows, multiplied by the cost of one estimate. The error of the cost is neglected, as it is small."""
    both = rows.merge(cost[["task", *CONTEXT, "estimator", "value"]].rename(columns={"value": "cost"}), how="inner")
    return both.assign(**{name: both[name] * both["cost"] for name in ("value", "low", "high")})


def summary(frame: pd.DataFrame, task: str) -> pd.DataFrame:
    """A table for ``task``: one line per estimator, one column per quantity, as text with ± and n.

    If cells failed, a last column "failed" has their statuses, with "partly" if other rows of the cell are ok.
    """
    columns = {}
    for name, rows in quantities(frame, task).items():
        columns[name] = {line.estimator: with_error(line) for line in rows.itertuples()}
    tried = frame[frame["task"] == task]
    names = ordered(tried)
    table = pd.DataFrame(columns, index=pd.Index(names, name="estimator"), dtype="str")
    if (failed := failures(tried)).any():
        table["failed"] = failed.reindex(names)
    return table.fillna("")


def failures(rows: pd.DataFrame) -> pd.Series:
    """The statuses of failed cells of each estimator, as text; "partly" if some rows of the cell are ok."""
    failed = rows[rows["status"] != "ok"]
    partly = failed["hash"].isin(rows.loc[rows["status"] == "ok", "hash"])
    words = failed["status"].mask(partly, "partly " + failed["status"])
    return words.groupby(failed["estimator"]).agg(lambda s: ", ".join(sorted(set(s))))


def with_error(line: object) -> str:
    """``0.81 ± 0.02 (n = 5)``; ± is half the width of the interval."""
    value, low, high, n = (getattr(line, name) for name in ("value", "low", "high", "n"))
    half = (high - low) / 2
    return f"{_short(value)} (n = {n:,})" if np.isnan(half) else f"{_short(value)} ± {_short(half, 2)} (n = {n:,})"


def _short(number: float, digits: int = 3) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.{digits}g}"


def ordered(rows: pd.DataFrame) -> list[str]:
    """Distinct labels: ``plain``, ``zero`` and ``exact`` first, then the rest by name, controls last."""
    pairs = rows[["estimator", "name"]].drop_duplicates("estimator").itertuples(index=False, name=None)
    return [label for label, _ in sorted(pairs, key=lambda pair: (_FIRST.get(pair[1], 3), pair[0]))]
