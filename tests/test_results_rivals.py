"""VMO beside its rivals: a table and a figure, on made-up rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_rows import PROVENANCE, cell

from results import figures_study, rivals, study_page, table
from results.study_design import COST, DEFAULTS, EPOCHS, GATES, PARTS, PRESET, RATES, RIVALS, SWEEP, Arm
from results.study_design import rivals as arms
from suites.labels import parse
from suites.rivals import available
from vmo.config import WideResNetConfig
from vmo.space import Space, normalised_penalty

GPU = {**PROVENANCE, "device": "NVIDIA H100"}
COSTS = {"VMO: sweep, weights on the mode": 1.63, "VMO: Concrete of the paper": 1.0, "random widths": 0.59}


def put(out: Path, about: dict[str, object], *rows: dict[str, object]) -> None:
    name = f"{abs(hash(json.dumps(about, sort_keys=True))):016x}"[:16]
    table.write(out, name, [{**row, "cell": about, "provenance": PROVENANCE} for row in rows])


def run(out: Path, of: Arm, seed: int, accuracy: float) -> None:
    settings: dict[str, dict[str, object]] = {}
    changed = {key: value if key == "train.weights" else json.loads(value) for key, value in of.changed.items()}
    for name, value in {**DEFAULTS, **changed}.items():
        group, key = name.split(".")
        settings.setdefault(group, {})[key] = value
    about = cell("accuracy", of.task, of.estimator, preset=PRESET, dataset=of.dataset, seed=seed, settings=settings)
    rows = [table.row("accuracy", accuracy / 100 + more, part=part) for part, more in (("test", 0.0), ("train", 0.2))]
    rows += [table.row("parameters", 90_000.0), table.row("macs_ratio", 1.0 if of.estimator == "plain" else 0.5)]
    rows += [table.row("curve_accuracy", accuracy / 100 * share, x=round(EPOCHS * share)) for share in (0.25, 0.75, 1)]
    if of.estimator in RIVALS:
        rows.append(table.row("training_cost", 2.0 if of.estimator == "l0_arm" else 0.75))
    put(out, about, *rows)
    if of.estimator != "plain":
        times = [table.row("latency_ratio", value, x=batch) for batch, value in ((1, 0.9), (128, 0.5 + 0.1 * seed))]
        put(out, {**about, "suite": "latency"}, *times)
        elsewhere = {**about, "suite": "latency", "device": "cuda"}
        rows = [{**table.row("latency_ratio", 9.0, x=x), "cell": elsewhere, "provenance": GPU} for x in (1, 128)]
        table.write(out, f"{abs(hash(json.dumps(elsewhere, sort_keys=True))):016x}"[:16], rows)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    for place, (_, of) in enumerate(arms().items()):
        for seed in range(3):
            run(tmp_path, of, seed, 75.0 - place + 0.1 * seed)
    for name in ("plain network", "VMO: Concrete of the paper"):
        run(tmp_path, arms()[name], 3, 10.0)  # a run of another part, whose seed the rivals lack
    for widen, value in (("1", 1.63), ("4", 9.0)):
        handed: dict[str, dict[str, object]] = {}
        for key, text in {**COST.changed, "timed.widen": widen}.items():
            group, field = key.split(".")
            handed.setdefault(group, {})[field] = text if field == "weights" else json.loads(text)
        about = cell("overhead", "width", COST.estimator, preset=PRESET, dataset="none", settings=handed)
        half = [table.row("macs_ratio_held", value + more, x=x) for x, more in ((0.5, 0.0), (0.75, 0.3))]
        put(tmp_path, about, *half, table.row("macs_ratio", 5.0))
    return table.read(tmp_path)


def test_the_page_of_the_study_shows_its_counted_costs_too(frame: pd.DataFrame) -> None:
    """So that they have no figure of their own in the main report."""
    assert set(frame["suite"]) == {"accuracy", "latency", "overhead"}
    assert study_page.of_study(frame).all()
    assert not study_page.of_study(frame.assign(preset_name="quick")).any()


def test_the_part_is_the_last_and_has_every_rival() -> None:
    assert list(PARTS)[-2:] == ["rivals-tuning", "rivals"]
    assert set(RIVALS) == set(available())
    labels = [str(parse(one.estimator)) for one in PARTS["rivals"]()]
    assert set(RIVALS) <= set(labels) and labels[0] == "plain"


def test_rates_are_tried_on_validation_images_and_the_network_trained_alone_is_that_of_the_reference() -> None:
    tuning = list(PARTS["rivals-tuning"]())
    assert {one.estimator for one in tuning} == set(GATES)
    assert all(float(one.changed["train.validation"]) > 0 for one in tuning)
    for name in GATES:
        tried = {one.changed["train.phi_lr"] for one in tuning if one.estimator == name}
        assert tried == set(RATES) and arms()[name].changed["train.phi_lr"] in tried
    vmo, alone = (arms()[name] for name in ("VMO: sweep, weights on the mode", "sweep's network, trained alone"))
    assert parse(alone.estimator).of == parse(vmo.estimator) and alone.changed == vmo.changed


def test_the_table_has_accuracy_difference_and_cost_of_every_network(frame: pd.DataFrame) -> None:
    found = rivals.table(frame)
    assert found is not None
    lines = found.set_index("network")
    assert list(lines.index) == list(arms())
    assert lines.loc["plain network", "test accuracy, %"].startswith("75.10 ± ")
    assert lines.loc["l0", "minus VMO by sweep, points"] == "-5.00 ± 0.00"
    assert set(lines["seeds"]) == {"3"}
    assert lines["time of 1"].to_list() == ["1", *["0.90 ± 0.00"] * (len(lines) - 1)]
    assert lines.loc["VMO: Concrete of the paper", "time of 128"] == "0.60 ± 0.25", "of three of its four seeds"
    assert lines.loc["l0", "time of 128"] == "0.60 ± 0.25"  # the mean of 0.5, 0.6 and 0.7
    costs = lines["training MACs, plain runs"].astype(float).to_dict()
    expected = {**COSTS, "plain network": 1.0, "uniform width": 0.5, "sweep's network, trained alone": 0.5}
    assert costs == {**expected, **dict.fromkeys(RIVALS, 0.75), "l0_arm": 2.0}


def test_the_cost_of_random_is_that_of_uniform_widths() -> None:
    config = WideResNetConfig(16, 1)
    space = Space("width", config.widths, 4)
    uniform = [torch.full((size,), 1 / size, dtype=torch.float64) for size in space.sizes]
    expected = float(normalised_penalty(space, 1.0, config.macs(16)).expected(space, uniform))
    assert rivals.FIXED["random"] == pytest.approx(expected, abs=5e-4)


def test_the_figure_has_at_most_eight_series_and_a_line_that_does_not_fall(frame: pd.DataFrame) -> None:
    drawn = rivals.figure(frame)
    assert drawn is not None
    (ax,) = drawn.axes
    names = [text.get_text() for text in ax.texts if text.get_gid() == "series"]
    assert len(names) == 8 and set(RIVALS) <= set(names)
    stairs = next(line for line in ax.lines if line.get_drawstyle() == "steps-post")
    x, y = (np.asarray(one, float) for one in stairs.get_data())
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()


def test_accuracy_along_training_stands_at_the_cost_until_then(frame: pd.DataFrame) -> None:
    drawn = rivals.training(frame)
    assert drawn is not None
    (ax,) = drawn.axes
    names = [text.get_text() for text in ax.texts if text.get_gid() == "series"]
    assert len(names) == 8 and set(RIVALS) < set(names)
    curves = [line.get_data() for line in ax.lines if len(line.get_xdata()) == 3]
    order = [name for name in arms() if name in names]
    at = dict(zip(order, curves, strict=True))
    for name, cost in {**COSTS, "l0_arm": 2.0, "uniform width": 0.5}.items():
        if name in order:
            np.testing.assert_allclose(at[name][0], [0.25 * cost, 0.75 * cost, cost])
    np.testing.assert_allclose(at["pruned"][0], [0.25, 0.625, 0.75])  # the full network, then half of it
    np.testing.assert_allclose(at["plain network"][1], [0.25 * 75.1, 0.75 * 75.1, 75.1])  # seeds 0 to 2 only


def test_both_figures_are_on_the_page_of_the_study() -> None:
    assert figures_study.FIGURES["rivals"] is rivals.figure
    assert figures_study.FIGURES["rivals_training"] is rivals.training


def test_nothing_is_shown_without_a_run_of_a_rival(frame: pd.DataFrame) -> None:
    others = frame[~frame["estimator"].isin(RIVALS)]
    assert rivals.table(others) is None and rivals.figure(others) is None and rivals.training(others) is None
    assert rivals.table(frame, "cifar10") is None
    without = frame[(frame["suite"] == "accuracy") & (frame["estimator"] != SWEEP)]
    found = rivals.table(without)
    assert found is not None and "VMO: sweep, weights on the mode" not in set(found["network"])
    assert rivals.figure(without) is not None


def test_the_page_lists_runs_only(frame: pd.DataFrame) -> None:
    part = {one["title"]: one["lines"] for one in study_page._arms(frame)}["rivals"]
    assert len(part) == len(arms())
