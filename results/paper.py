"""The paper's Table 1 and ours, with the same columns.

Grathwohl, Creager, Seyed Ghasemipour and Zemel, "Gradient-based optimization of neural network architecture" (2018):
WRN-28-10, 200 epochs, median accuracy of five runs. Its two baselines equal the published errors of the Wide ResNet's
authors. Its ± on the width is taken as the spread over blocks. Parameters and MACs are computed here from the stated
depth; if only an average width is stated, this is not possible. The paper states no training accuracy.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy

from results import stats, summary

TASKS = ("depth", "width", "joint")
_COLUMNS = [
    "accuracy, % (median)",
    "accuracy, % (mean)",
    "layers",
    "width, %",
    "± over blocks",
    "± over seeds",
    "parameters",
    "MACs",
    "train − test, points",
    "runs",
]
_METRICS = ("accuracy", "layers", "width_fraction", "width_sd_blocks", "parameters", "macs")
_PARAMETERS = {"cifar10": (36_479_194, 29_103_834), "cifar100": (36_536_884, 29_161_524)}  # for 28 and 26 layers
_MACS = (5.243e9, 4.771e9)
_PUBLISHED = {
    "cifar10": [
        ("WRN-28-10", 96.00, 28, "100", ""),
        ("depth", 96.01, 26, "100", ""),
        ("width", 95.22, 28, "81.89", "12.51"),
        ("joint", 95.00, 28, "77.14", "12.72"),
    ],
    "cifar100": [
        ("WRN-28-10", 80.75, 28, "100", ""),
        ("depth", 80.21, 26, "100", ""),
        ("width", 77.15, 28, "75.98", "17.58"),
        ("joint", 76.23, 28, "77.83", "17.03"),
    ],
}


def published(dataset: str) -> pd.DataFrame:
    """The paper's lines for a data set, indexed by (source, model); empty if the paper does not use it."""
    lines = {}
    for model, accuracy, layers, width, blocks in _PUBLISHED.get(dataset, []):
        place = (28, 26).index(layers)
        counted = width == "100"
        lines["paper", model] = [
            f"{accuracy:.2f}",
            "",
            str(layers),
            width,
            blocks,
            "",
            _count(_PARAMETERS[dataset][place]) if counted else "",
            _count(_MACS[place]) if counted else "",
            "",
            "5",
        ]
    return _frame(lines)


def ours(frame: pd.DataFrame) -> pd.DataFrame:
    """Our lines for one preset and data set, indexed by (task, estimator)."""
    lines = {}
    final = _final(frame)
    for task in TASKS:
        here = final[final["task"] == task]
        for name in summary.ordered(here):
            wide = here[here["estimator"] == name].pivot_table(index="seed", columns="metric", values="value")
            test, train = (100 * wide[f"accuracy {part}"] for part in ("test", "train"))
            width = 100 * wide["width_fraction"]
            lines[task, name] = [
                f"{test.median():.2f}",
                stats.plus_minus(test, 2),
                f"{wide['layers'].mean():.4g}",
                f"{width.mean():.1f}",
                f"{100 * wide['width_sd_blocks'].mean():.1f}",
                f"{width.std(ddof=1):.1f}" if len(width) > 1 else "",
                _count(wide["parameters"].mean()),
                _count(wide["macs"].mean()),
                stats.plus_minus(train - test, 1),
                str(len(wide)),
            ]
    return _frame(lines)


def beside(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str, str]]:
    """For every preset and data set with trained networks: its label, the paper's lines followed by ours, the sentence
    of `noise`, and notes on the data."""
    for _, part in frame.groupby(summary.CONTEXT, dropna=False):
        if _final(part).empty:
            continue
        table = pd.concat([published(str(part["dataset"].iloc[0])), ours(part)])
        yield summary.context_label(part), table, noise(part), summary.data_notes(part)


def noise(frame: pd.DataFrame) -> str:
    """One sentence: how large a difference of two mean accuracies must be to exceed noise.

    Runs with equal seeds have equal initial weights and see the same images, so the mean effect of each seed is
    subtracted. The remaining variance is assumed equal for all tasks and estimators, which pools the few seeds of each.
    The control `random` has another network for every seed and is left out.
    """
    test = _final(frame)
    test = test[(test["metric"] == "accuracy test") & (test["name"] != "random")]
    # plain training is one run, although it is the baseline of several tasks
    test = test.assign(task=test["task"].mask(test["name"] == "plain", ""))
    table = test.pivot_table(index=["task", "estimator"], columns="seed", values="value").dropna()
    freedom = (len(table) - 1) * (len(table.columns) - 1)
    if freedom < 2:
        return "Too few seeds to say which differences are noise."
    residual = table.sub(table.mean(axis=1), axis=0).sub(table.mean(axis=0) - table.stack().mean(), axis=1)
    spread = 100 * np.sqrt(float((residual**2).to_numpy().sum()) / freedom)
    n = len(table.columns)
    least = scipy.stats.t.ppf(0.975, freedom) * spread * np.sqrt(2 / n)
    return (
        f"Without the mean effect of each seed, accuracies have a standard deviation of {spread:.2f} points (pooled "
        f"over {len(table)} networks with {n} seeds each, {freedom} degrees of freedom). A difference of two means "
        f"below {least:.2f} points may be noise (95 %, one comparison)."
    )


def _final(frame: pd.DataFrame) -> pd.DataFrame:
    """Final results of finished training runs of networks; the metric's name includes the part."""
    rows = summary.measured(frame, _METRICS, suite="accuracy")
    rows = rows[rows["task"].isin(TASKS) & rows["x"].isna()]
    tested = rows.loc[(rows["metric"] == "accuracy") & (rows["part"] == "test"), "hash"]
    rows = rows[rows["hash"].isin(tested)]  # leaves out runs on validation images
    part = rows["part"].map(lambda name: "" if pd.isna(name) else f" {name}")
    return rows.assign(metric=rows["metric"] + part)


def _count(number: float) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def _frame(lines: dict[tuple[str, str], list[str]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(lines), names=["source", "model"])
    return pd.DataFrame(list(lines.values()), index=index, columns=_COLUMNS, dtype="str")
