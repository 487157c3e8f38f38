"""From rows to one number with an interval per estimator: what figures, verdicts and the final table all start from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from results import stats

CONTEXT = ["preset", "dataset"]
_MEASURE = ["task", *CONTEXT, "part", "point", "x", "estimator", "metric"]
# Training runs differ from seed to seed by far more than the error of evaluating one of them.
_OVER_SEEDS = ("accuracy",)


def measured(frame: pd.DataFrame, metric: str | Sequence[str], **where: str) -> pd.DataFrame:
    """The finite rows of finished cells with this metric and these column values."""
    metrics = [metric] if isinstance(metric, str) else list(metric)
    chosen = frame["metric"].isin(metrics) & (frame["status"] == "ok") & frame["value"].notna()
    for column, value in where.items():
        chosen &= frame[column] == value
    return frame[chosen]


def pool(rows: pd.DataFrame, by: Sequence[str] = _MEASURE) -> pd.DataFrame:
    """One line per group: value, low, high (95 %), n, and seeds.

    With two seeds or more of a training run the interval is Student t over the seeds and n counts them; otherwise it
    is ± 1.96 standard errors, those of several seeds taken together, and n counts the draws.
    """
    lines = []
    for keys, group in rows.groupby(list(by), dropna=False, sort=True):
        values = group["value"].to_numpy()
        seeds = len(group)
        if seeds > 1 and (group["suite"].isin(_OVER_SEEDS).all() or group["se"].isna().any()):
            interval = stats.t_interval(values)
        else:
            half = 1.96 * np.sqrt((group["se"] ** 2).sum(skipna=False)) / seeds
            mean = float(values.mean())
            interval = stats.Interval(mean, mean - half, mean + half, int(group["n"].sum()))
        lines.append((*keys, *interval, seeds))
    pooled = pd.DataFrame(lines, columns=[*by, "value", "low", "high", "n", "seeds"])
    return pooled.astype(rows[list(by)].dtypes.to_dict())  # a column of nothing but nulls would lose its own


def relative_bias(frame: pd.DataFrame) -> pd.DataFrame:
    """Squared bias as a part of the squared norm of the gradient it is a bias of, pooled over seeds.

    Only where that norm is itself significantly above zero: elsewhere the ratio means nothing.
    """
    keys = [*CONTEXT, "task", "part", "point", "seed"]
    norms = measured(frame, "gradient_sq")
    norms = norms[norms["value"] - 1.96 * norms["se"].fillna(0) > 0].groupby(keys, dropna=False)["value"].mean()
    rows = measured(frame, "bias_sq").merge(norms.rename("norm").reset_index(), on=keys, how="inner")
    rows = rows.assign(value=rows["value"] / rows["norm"], se=rows["se"] / rows["norm"])
    return pool(rows)


def is_control(label: str) -> bool:
    """Whether a label is of a network trained for comparison, and not of an estimator or of plain training."""
    return label.partition("[")[0] in ("random", "uniform", "scratch")


def main_context(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the one preset and data set that most estimators were measured with."""
    if rows.empty:
        return rows
    learned = rows[~rows["estimator"].map(is_control)]
    sizes = (
        (rows if learned.empty else learned)
        .groupby(CONTEXT, dropna=False)
        .agg(names=("estimator", "nunique"), count=("n", "size"))
    )
    best = sizes.sort_values(["names", "count"], ascending=False, kind="stable").index[0]
    same = [
        rows[column].isna() if pd.isna(value) else rows[column] == value
        for column, value in zip(CONTEXT, best, strict=True)
    ]
    return rows[same[0] & same[1]]


def context_label(rows: pd.DataFrame) -> str:
    """``preset, dataset`` of some rows, for titles; the preset alone for what needs no data."""
    names = rows[CONTEXT].drop_duplicates().itertuples(index=False)
    return "; ".join(", ".join(str(part) for part in name if not pd.isna(part) and part != "none") for name in names)


def one_point(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one point of training: "mid" where there is one, else the first."""
    points = list(rows["point"].dropna().unique())
    return rows[rows["point"] == ("mid" if "mid" in points else points[0])] if points else rows


def quantities(frame: pd.DataFrame, task: str) -> dict[str, pd.DataFrame]:
    """What is compared between estimators on one task: name to pooled rows of one preset, data set and point."""
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
    }
    return {name: main_context(rows) for name, rows in found.items() if not rows.empty}


def _times(rows: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """Pooled rows, multiplied by what one estimate costs; the error of a cost is small beside that of a variance."""
    both = rows.merge(cost[["task", *CONTEXT, "estimator", "value"]].rename(columns={"value": "cost"}), how="inner")
    return both.assign(**{name: both[name] * both["cost"] for name in ("value", "low", "high")})


def summary(frame: pd.DataFrame, task: str) -> pd.DataFrame:
    """One line per estimator that was tried on ``task``, one column per quantity, as text with ± and n.

    A cell that failed shows its status where nothing else was measured.
    """
    columns = {}
    for name, rows in quantities(frame, task).items():
        columns[name] = {line.estimator: with_error(line) for line in rows.itertuples()}
    tried = frame[frame["task"] == task]
    names = ordered(tried["estimator"])
    table = pd.DataFrame(columns, index=pd.Index(names, name="estimator"), dtype="str")
    failed = tried[tried["status"] != "ok"].groupby("estimator")["status"].agg(lambda s: ", ".join(sorted(set(s))))
    if not failed.empty:
        table["failed"] = failed.reindex(names)
    return table.fillna("")


def with_error(line: object) -> str:
    """``0.81 ± 0.02 (n = 5)``, the half width of the interval after the sign."""
    value, low, high, n = (getattr(line, name) for name in ("value", "low", "high", "n"))
    half = (high - low) / 2
    return f"{_short(value)} (n = {n:,})" if np.isnan(half) else f"{_short(value)} ± {_short(half, 2)} (n = {n:,})"


def _short(number: float, digits: int = 3) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.{digits}g}"


def ordered(labels: pd.Series) -> list[str]:
    """Distinct labels: ``plain``, ``zero`` and ``exact`` first, the rest by name, and what is a control last."""
    first = {"plain": 0, "zero": 1, "exact": 2, "random": 4, "scratch": 5, "uniform": 5}
    return sorted(labels.dropna().unique(), key=lambda name: (first.get(name.partition("[")[0], 3), name))
