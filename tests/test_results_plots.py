"""Figures from made-up rows: each is drawn and says what it must; that the bytes repeat is test_results_report's."""

import itertools

import made_rows
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from results import claims, drawing, families, figures_scaling, labels, palette, plots, summary, table

NAMES = ["exact", "reinforce", "rloo", "concrete", "straight_through", "rebar", "relax", "zero"]
NAMES += [f"concrete[temperature={t}]" for t in ("0.03", "0.1", "0.3", "1")]
#                            bias, ln variance, evaluations, memory, time, accuracy, width
LIKE = {
    "plain": (0, 0, 1, 1.0, 1.0, 0.955, 1.0),
    "exact": (0, -11, 16, 4.0, 9.0, 0.954, 0.93),
    "reinforce": (0, -3, 1, 1.0, 1.02, 0.921, 0.51),
    "rloo": (0, -6, 2, 1.01, 1.05, 0.946, 0.81),
    "concrete": (0.6, -8.3, 1, 1.16, 1.18, 0.937, 0.74),
    "straight_through": (4.0, -12, 1, 1.1, 1.17, 0.925, 0.62),
    "rebar": (0, -7.6, 3, 1.9, 2.5, 0.951, 0.88),
    "relax": (0, -7.2, 3, 1.95, 2.8, 0.949, 0.86),
    "zero": (1.0, 0, 1, 1.0, 1.0, 0.93, 0.5),
}

#         values, base, exponent of seconds, and the part of the bytes at the base that is fixed
SIZES = {
    "batch": ((16, 32, 64, 128), 16, 0.9, 0.3),
    "widen": ((1, 2, 3, 4), 1, 1.7, 0.0),
    "blocks": ((3, 6, 9, 12), 3, 1.0, 0.1),
    "K": ((8, 16, 32, 64), 8, 0.02, 1.0),
    "samples": ((2, 4, 8), 2, 1.0, 0.2),
}


def growing(name, what, values, base, exponent, fixed):
    """Rows of a size that is varied; plain training has no K, and some have no samples."""
    time, memory = LIKE[name][4], LIKE[name][3]
    if (what == "K" and name == "plain") or (what == "samples" and name not in ("rloo", "relax")):
        return []
    rows = [table.row("base", base, point=what)]
    for x in values:
        seconds = 0.02 * time * (x / base) ** exponent
        peak = memory * 2**24 * (fixed + (1 - fixed) * x / base)
        rows += [
            table.row("seconds", seconds, se=seconds / 20, n=4, point=what, x=x, unit="s"),
            table.row("time_ratio", 77.0, se=1.0, n=4, point=what, x=x),
            table.row("bytes", peak, part="peak", point=what, x=x, unit="bytes"),
            table.row("peak_ratio", 77.0, point=what, x=x),
        ]
    return rows


def contesting(bias, variance, cost):
    """Rows of the contest at one point."""
    sizes = {"mse_variance": np.exp(variance), "mse_bias_sq": bias * 1e-3, "mse_gradient_sq": 2e-3}
    rows = [
        table.row(metric, value, se=0.1 * value, n=80, part=part, point="mid")
        for metric, value in sizes.items()
        for part in ("logits", "weights")
    ]
    rows += [table.row("mse_bias_p", 0.5, n=80, part=part, point="mid") for part in ("logits", "weights")]
    rows += [table.row("descent_gain", 0.01, se=0.001, n=9, x=x) for x in (0, 1)]
    rows += [table.row("descent_steps", 30, x=x) for x in (0, 1)]
    rows.append(table.row("mse_unbiased", float(bias == 0), point="mid"))
    return [*rows, table.row("mse_cost", cost, se=0.05, n=12, point="mid")]


def synthetic(directory, tasks=("width", "depth"), seeds=5, names=("plain", *NAMES)):
    """Write rows of every suite, shaped like real ones, and return the frame."""
    rng = np.random.default_rng(0)
    number = itertools.count()

    def cell(suite, task, name, seed, rows):
        options = {"temperature": float(name.partition("=")[2].rstrip("]"))} if "=" in name else {}
        dataset = "none" if task == "toy" else "digits"
        described = made_rows.cell(suite, task, name, options=options, dataset=dataset, seed=seed)
        full = [{"cell": described, "provenance": made_rows.PROVENANCE, **row} for row in rows]
        table.write(directory, f"{next(number):016x}", full)

    for task, name in itertools.product(tasks, names):
        bias, log_variance, evaluations, memory, time, accuracy, width = LIKE[name.partition("[")[0]]
        if "=" in name:
            t = float(name.partition("=")[2].rstrip("]"))
            bias, log_variance = 4 * t**1.5, -10 - 2 * np.log(t)
        if name != "plain":
            bias_rows, variance_rows = [], []
            for i, point in enumerate(("uniform", "mid", "peaked")):
                norm = 4e-3 * 2.0**-i
                for part in ("logits", "weights"):
                    draw = norm * (bias + 0.02 * rng.standard_normal())
                    p = 0.5 if bias == 0 else 1e-6
                    bias_rows += [
                        table.row("bias_sq", draw, se=norm * (0.02 + 0.1 * bias), n=400, part=part, point=point),
                        table.row("gradient_sq", norm, se=norm / 20, n=400, part=part, point=point),
                        table.row("bias_p", p, n=400, part=part, point=point),
                    ]
                    variance = 0.0 if name == "zero" else np.exp(log_variance - i) * (3 if part == "weights" else 1)
                    variance_rows.append(
                        table.row("variance", variance, se=variance / 12, n=400, part=part, point=point)
                    )
            variance_rows += [table.row("evaluations", evaluations), table.row("cost", evaluations * 1.0)]
            cell("bias", task, name, 0, bias_rows)
            cell("variance", task, name, 0, variance_rows)
        if name == "exact" and task == "width":
            cell("memory", task, name, 0, [table.row("bytes", None, n=0, status="infeasible", message="16^12 terms")])
        else:
            sizes = {
                "parameters": 0.14,
                "gradients": 0.14,
                "optimizer": 0.14,
                "activations": memory * 1.6,
                "other": 0.05,
            }
            sizes["peak"] = sum(sizes.values())
            rows = [table.row("bytes", size * 2**30, unit="B", part=part) for part, size in sizes.items()]
            cell("memory", task, name, 0, [*rows, table.row("peak_ratio", sizes["peak"] / 2.07)])
        timing = [table.row("time_ratio", time, se=0.02 * time, n=30), table.row("macs_ratio", time * 0.97)]
        cell("overhead", task, name, 0, timing)
        if task == "width" and name not in ("plain", "zero"):
            cell("contest", task, name, 0, contesting(bias, variance, evaluations))
        if name != "zero" and "=" not in name:
            cell("scaling", task, name, 0, [one for what, size in SIZES.items() for one in growing(name, what, *size)])
        for seed in range(seeds if "=" not in name else 0):
            shift = 0.004 * rng.standard_normal()
            k = np.clip(width + 0.04 * rng.standard_normal(), 0.05, 1)
            rows = [
                table.row("accuracy", accuracy + shift, n=360, part="test"),
                table.row("accuracy", min(1, accuracy + 0.035 + shift / 2), n=1437, part="train"),
                table.row("width_fraction", k),
                table.row("parameters", 175_066 * k**1.4),
                table.row("layers", 16),
                table.row("width_sd_blocks", 0.1),
                table.row("macs", 25e6 * k),
                table.row("macs_ratio", k),
                *(table.row("block_width", round(k * full), x=x) for x, full in ((1, 16), (2, 64))),
            ]
            for epoch in range(0, 21):
                done = 1 - np.exp(-epoch / 7)
                rows.append(table.row("curve_width", 0.53 + (k - 0.53) * done, x=epoch))
                rows.append(table.row("curve_entropy", 2.77 * (1 - done) + 0.05 * k, x=epoch))
                if task == "depth":
                    rows.append(table.row("curve_depth", 6.5 + 4 * k * done, x=epoch))
            cell("accuracy", task, name, seed, rows)
    for name, seed in itertools.product(
        [n for n in names if n not in ("plain", "zero") and "=" not in n], range(seeds)
    ):
        speed = {"relax": 900, "rebar": 1500, "exact": 500, "rloo": 2500}.get(name, 6000) * (
            1 + 0.1 * rng.standard_normal()
        )
        rows = [table.row("curve_objective", 0.2497 + 0.0013 * np.exp(-s / speed), x=s) for s in range(0, 5001, 100)]
        cell("accuracy", "toy", name, seed, [*rows, table.row("objective_gap", 1e-3 * np.exp(-5000 / speed))])
    k = np.arange(1, 17)
    logits = -(((k - 10) / 4.0) ** 2)
    rows = []
    for sample in range(4):
        gumbel = rng.gumbel(size=16)
        hard = np.eye(16)[np.argmax(logits + gumbel)]
        for t in ("1", "0.1", "0.01"):
            soft = np.exp((logits + gumbel - (logits + gumbel).max()) / float(t))
            soft /= soft.sum()
            q = np.exp(logits) / np.exp(logits).sum()
            shown = {"probability": q, "soft_sample": soft, "soft_mask": soft[::-1].cumsum()[::-1], "hard_sample": hard,
                     "hard_mask": hard[::-1].cumsum()[::-1]}  # fmt: skip
            rows += [
                table.row(metric, v, part=str(sample), point=t, x=float(x))
                for metric, values in shown.items()
                for x, v in zip(k, values, strict=True)
            ]
    cell("sampling", "width", "concrete", 0, rows)
    return table.read(directory)


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return synthetic(tmp_path_factory.mktemp("rows"))


def words(figure):
    texts = [text.get_text() for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)]
    texts += [text.get_text() for legend in figure.legends for text in legend.texts]
    texts += [tick.get_text() for ax in figure.axes for tick in ax.get_yticklabels()]
    return " ".join([*texts, figure.get_suptitle()])


@pytest.mark.parametrize("name", plots.FIGURES)
def test_every_figure_names_axes_and_counts(frame, name):
    part = frame[frame["task"] == "toy"] if name == "objective" else frame[frame["task"] != "toy"]
    figure = plots.FIGURES[name](part)
    assert all(ax.get_xlabel() or not ax.get_visible() for ax in figure.axes[-1:])
    said = words(figure)
    if name not in ("concrete_widths", "memory"):
        assert "n = " in said
    if name in (
        "overview",
        "contest",
        "bias_variance",
        "overhead",
        "scaling_time",
        "scaling_memory",
        "accuracy_parameters",
        "accuracy_macs",
        "curves",
        "objective",
    ):
        assert all(label in said for label in ("rloo", "concrete"))
    assert not pyplot.get_fignums()


@pytest.mark.parametrize("name", plots.FIGURES)
def test_no_rows_no_figure(frame, name):
    assert plots.FIGURES[name](frame.iloc[:0]) is None


def test_cost_of_a_step_and_cost_of_what_was_learned_are_kept_apart(frame):
    """Both suites have a macs_ratio."""
    trained = frame[frame["suite"] == "accuracy"]
    assert plots.FIGURES["overhead"](trained) is None
    assert plots.FIGURES["accuracy_macs"](frame[frame["suite"] == "overhead"]) is None


def test_widths_by_block_are_those_of_estimators_and_parts_of_plain(frame):
    part = frame[(frame["task"] == "width") & (frame["suite"] == "accuracy")]
    control = part[part["estimator"] == "rloo"].assign(estimator="scratch[of=rloo]", name="scratch")
    figure = plots.block_widths(plots.pd.concat([part, control]))
    said = words(figure)
    assert "rloo" in said
    assert "plain" not in said
    assert "scratch" not in said
    widths = part[(part["metric"] == "block_width") & (part["estimator"] == "rloo")]
    full = part[(part["metric"] == "block_width") & (part["estimator"] == "plain")].groupby("x")["value"].max()
    expected = widths.groupby("x")["value"].mean() / full
    drawn = [line.get_ydata() for line in figure.axes[0].lines if line.get_linewidth() > 1]
    assert any(np.allclose(y, expected) for y in drawn)
    assert plots.block_widths(part[part["estimator"] != "plain"]) is None  # of what would it be a part?


def test_two_data_sets_are_two_figures(frame, tmp_path):
    part = frame[(frame["task"] == "width") & (frame["suite"] == "overhead")]
    both = plots.pd.concat([part, part.assign(dataset="cifar10")])
    assert set(plots.draw_all(both, tmp_path)) == {"overview", "overhead-small-digits", "overhead-small-cifar10"}


def test_the_conditions_show_where_the_first_axes_do_not(frame):
    """A task whose first panel never changes has no axes there."""
    part = frame[(frame["suite"] == "accuracy") & frame["task"].isin(["width", "depth"])]
    constant = part["metric"].eq("curve_width") & part["task"].eq("depth")
    figure = plots.curves(part.assign(value=part["value"].mask(constant, 1.0)))
    assert not figure.axes[0].get_visible()
    notes = [text for ax in figure.axes if ax.get_visible() for text in ax.texts]
    assert any("95 % t intervals" in text.get_text() for text in notes)


def test_growth_says_the_exponents_that_were_put_in(frame):
    """Of powers exactly; of a sum of a fixed part and one that grows, less than of that one, with a width."""
    width = frame[(frame["task"] == "width") & (frame["suite"] == "scaling")]
    figure = plots.scaling_time(width)
    columns = dict(zip(SIZES, figure.axes[5:], strict=True))
    names = [tick.get_text() for tick in figure.axes[5].get_yticklabels()]
    assert names == summary.ordered(width)
    for what, ax in columns.items():
        fitted = [text.get_text() for text in ax.texts]
        there = width.loc[(width["point"] == what) & (width["metric"] == "seconds"), "estimator"].nunique()
        assert fitted == [f"{SIZES[what][2]:.2f} ± 0.00"] * there
    bytes_ = summary.pool(summary.measured(width, "bytes"))
    found = figures_scaling.exponents(bytes_)
    assert found["rloo", "K"].estimate == pytest.approx(0, abs=1e-9)
    assert found["rloo", "widen"].estimate == pytest.approx(1)
    affine = found["rloo", "batch"]
    assert 0.7 < affine.estimate < 0.95
    assert affine.high - affine.low > 0.02
    assert ("plain", "K") not in found
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(drawn) == len(names)
    assert all(np.allclose(np.diff(np.log(line.get_ydata())) / np.log(2), 0.9) for line in drawn)


def test_growth_is_not_taken_for_the_cost_of_a_step(frame):
    """Both have time_ratio, bytes and peak_ratio; here those of growth are 77."""
    cost = summary.quantities(frame, "width")
    assert max(cost["step time"]["value"].max(), cost["peak memory"]["value"].max()) < 10
    assert "77" not in words(plots.memory(frame[frame["task"] == "width"]))
    assert plots.memory(frame[frame["suite"] == "scaling"]) is None
    estimates = [v.estimate for v in claims.verdicts(frame) if "costs too much" in v.statement]
    assert max(estimates) < 10


def test_memory_marks_what_is_infeasible(frame):
    assert "infeasible" in words(plots.memory(frame[frame["task"] == "width"]))


def test_labels_are_moved_apart_in_order():
    placed = labels.apart([1.0, 1.0, 0.99, 5.0], [0.1] * 4)
    assert np.argsort(placed, kind="stable").tolist() == [2, 0, 1, 3]
    assert (np.diff(np.sort(placed)) > 0.0999).all()
    assert placed[3] == 5.0, "what has room stays"
    assert labels.within(np.array([0.0, 1.0]), [1.0, 1.0], 0.0, 9.0).tolist() == [0.5, 1.5]
    assert labels.within(np.array([8.0, 9.0]), [1.0, 1.0], 0.0, 9.0).tolist() == [7.5, 8.5]


@pytest.fixture(scope="module")
def many(frame):
    """Variants of the estimators of one task, more than any figure could name."""
    found = frame[frame["task"].isin(["width", "toy"])]
    parts = [found]
    for name in ("rloo", "reinforce", "relax", "rebar", "straight_through"):
        mine = found[found["estimator"] == name]
        for i in range(1, 6):
            label, value = f"{name}[samples={i}]", mine["value"] * (1 + 0.07 * i)
            parts.append(mine.assign(estimator=label, value=value, hash=mine["hash"].str[:-1] + str(i)))
    return plots.pd.concat(parts, ignore_index=True)


def drawn(name, frame):
    task = "toy" if name == "objective" else "width"
    return plots.FIGURES[name](frame[frame["task"] == task])


def said_labels(texts, known):
    """Which of the texts are names of estimators, in lines or not."""
    return [one for text in texts if (one := " ".join(text.get_text().split())) in known]


def named_in(ax, known):
    """The names in one panel, those of rows by family where there are several."""
    rows = [" ".join(tick.get_text().split()) for tick in ax.get_yticklabels()]
    heads = [i for i, row in enumerate(rows) if row in families.FAMILIES]
    blocks = [rows[a:b] for a, b in itertools.pairwise([*heads, len(rows)])] if heads else [rows]
    of_rows = [[row for row in block if row in known] for block in blocks]
    return [*of_rows, said_labels(ax.texts, known)]


@pytest.mark.parametrize("name", [name for name in plots.FIGURES if name not in ("concrete_widths", "temperature")])
def test_no_panel_names_more_than_eight_of_many_estimators(many, name):
    known = {palette.text(label) for label in many["estimator"]}
    assert len(known) > 30
    figure = drawn(name, many)
    panels = [named for ax in figure.axes for named in named_in(ax, known)]
    panels += [said_labels(legend.texts, known) for legend in figure.legends]
    assert max(map(len, panels)) <= 8
    assert sum(map(len, panels)) >= 6, "some are named"
    assert any({"rloo", "concrete"} <= set(named) for named in panels) or name == "overview"
    assert "the best of each family" in " ".join(words(figure).split())


def boxes(figure):
    """Every text of a figure with its box, but for the headline, which keeps room for the notes below it."""
    figure.draw_without_rendering()
    texts = [text for ax in figure.axes if ax.get_visible() for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    texts += [text for ax in figure.axes if ax.get_visible() for text in ax.texts]
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            inside = [tick for tick in axis.get_major_ticks() if axis.get_view_interval().min() <= tick.get_loc()]
            texts += [tick.label1 for tick in inside if tick.get_loc() <= axis.get_view_interval().max()]
    shown = [text for text in texts if text.get_text().strip() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


@pytest.mark.parametrize("name", ["overview", "bias_variance", "frontier", "curves", "objective", "accuracy_macs"])
def test_no_text_is_on_top_of_another_or_cut_off(many, name):
    figure = drawn(name, many)
    found = boxes(figure)
    assert len(found) > 10
    for (one, a), (other, b) in itertools.combinations(found, 2):
        room = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(room) < 1.5, (one, other)
    for text, box in found:
        assert box.x0 > -1 and box.x1 < figure.bbox.width + 1, text
        assert box.y0 > -1 and box.y1 < figure.bbox.height + 1, text


def test_what_is_biased_beyond_the_scale_is_written_and_not_drawn(frame):
    """Unless it is all there is; and noise, however large, is not beyond it."""
    rows = (frame["metric"] == "bias_sq") & (frame["estimator"] == "concrete") & (frame["part"] == "logits")
    far = frame.copy()
    far.loc[rows, "value"] *= 1e6
    assert max(ax.get_ylim()[1] for ax in plots.bias_variance(far).axes) < 100
    assert "concrete: " in words(plots.bias_variance(far)) and "off the scale" in words(plots.bias_variance(far))
    noisy = far.copy()
    noisy.loc[rows, "se"] = noisy.loc[rows, "value"]
    assert "off the scale" not in words(plots.bias_variance(noisy))
    alone = far[(far["estimator"] == "concrete") | (far["metric"] == "gradient_sq")]
    assert "off the scale" not in words(plots.bias_variance(alone))
    assert plots.overview(alone) is not None


def test_of_many_tasks_each_has_a_figure_of_its_objective(frame, tmp_path):
    rows = frame[(frame["task"] == "toy") & (frame["metric"] == "curve_objective")]
    tasks = ["toy", "quadratic", "multilinear", "halves", "spelling"]
    every = pd.concat([rows.assign(task=task, hash=rows["hash"] + task) for task in tasks], ignore_index=True)
    found = [one.tasks for one in plots.draw_all(every, tmp_path).values() if one.kind == "objective"]
    assert sorted(found, key=min) == [{task} for task in sorted(tasks)]
    few = every[every["task"].isin(tasks[:2])]
    assert [one.tasks for one in plots.draw_all(few, tmp_path).values() if one.kind == "objective"] == [set(tasks[:2])]


def test_figures_of_a_task_without_points_seeds_or_errors(frame):
    """A toy run on nothing: no data set, no point, one seed, no standard errors."""
    part = frame[(frame["task"] == "width") & (frame["seed"] == 0) & (frame["suite"] != "sampling")]
    bare = part[part["point"].isna() | (part["point"] == "mid")].assign(
        dataset="none", data=None, point=None, se=np.nan
    )
    bare = bare.astype(frame.dtypes.to_dict())
    for name in ("overview", "bias_variance", "temperature", "memory", "overhead", "accuracy_parameters", "curves"):
        assert plots.FIGURES[name](bare) is not None, name
    assert plots.memory(bare[bare["part"] != "peak"]) is not None


def test_what_is_zero_or_constant_is_said_or_left_out(frame):
    assert "zero: no variance" in words(plots.bias_variance(frame[frame["task"] == "width"]))
    part = frame[(frame["task"] == "width") & (frame["metric"] == "curve_width")]
    constant = part.assign(metric="curve_depth", value=16.0)
    said = words(plots.curves(plots.pd.concat([part, constant])))
    assert "expected width" in said
    assert "expected depth" not in said


def test_a_name_is_joined_to_the_end_of_its_curve_where_ticks_have_widened_the_axes():
    with drawing.style():
        figure, axes = drawing.grid(1, 1, 3.0)
        ax = axes[0, 0]
        ax.plot([1.0, 2.0], [0.1, 0.8])
        ax.set_yticks([0.0, 10.0])
        labels.at_ends(figure, [labels.Named(ax, 2.0, 0.8, "one", "black")])
        figure.canvas.draw()
        end = ax.transAxes.inverted().transform(ax.transData.transform((2.0, 0.8)))
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(end[1], abs=1e-6)


@pytest.mark.parametrize(("high", "scale"), [(0.3, "linear"), (1.9, "linear"), (30.0, "symlog")])
def test_an_axis_whose_values_are_all_near_zero_is_linear_and_has_ticks(high: float, scale: str) -> None:
    rows = pd.DataFrame({"value": [0.0, 0.1, 0.1], "low": [-0.3, -0.2, 0.0], "high": [0.3, 0.2, high]})
    figure, ax = pyplot.subplots()
    drawing.symlog(ax.yaxis, rows)
    ax.set_ylim(-0.3, high)
    assert ax.get_yscale() == scale
    assert sum(-0.3 <= tick <= high for tick in ax.get_yticks()) > 2
    pyplot.close(figure)


def test_ratios_that_hardly_differ_are_not_enlarged(tmp_path):
    for i, (name, ratio) in enumerate([("plain", 1.0), ("concrete", 1.00001)]):
        about = made_rows.cell("overhead", "joint", name)
        rows = [table.row("time_ratio", ratio, n=12), table.row("macs_ratio", ratio, n=12)]
        table.write(tmp_path, f"{i:016}", [{**row, "cell": about, "provenance": made_rows.PROVENANCE} for row in rows])
    figure = plots.FIGURES["overhead"](table.read(tmp_path))
    for ax in figure.axes:
        low, high = ax.get_xlim()
        assert low < 1 < high and high - low == pytest.approx(0.05)
    pyplot.close(figure)
