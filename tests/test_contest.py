"""The contest: what its rows say, the arithmetic of errors and crossings, and that it runs by name only."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import planned, workshop

from results import contest, plots, report, table
from suites import contest as suite
from suites.engine.plan import suite_names
from suites.run import main

NORM = 2.0


def contestant(
    name: str, variance: float, cost: float, bias: float | None, error: float = 1e-3, seed: int = 0
) -> contest.Contestant:
    measured = ((variance, error * variance), (bias or 0.3, error), (cost, error))
    return contest.Contestant(name, name, bias is None, *measured, 0.5, 100, NORM, seed)


def test_the_error_is_squared_bias_and_variance_over_compute() -> None:
    biased, free = contestant("b", 8.0, 1.5, 0.5), contestant("u", 8.0, 1.5, None)
    for one, bias in ((biased, 0.5), (free, 0.0)):  # the bias measured of one that claims none is not counted
        value, low, high = one.error(np.array([1.0, 100.0]))
        np.testing.assert_allclose(value, (bias + 12.0 / np.array([1.0, 100.0])) / NORM)
        assert (low < value).all() and (value < high).all()
        np.testing.assert_allclose(high, value, rtol=0.02)
    assert biased.useful_from() == pytest.approx(12 / (1 - 0.5))
    assert free.useful_from() == pytest.approx(12)
    assert contestant("b", 8.0, 1.5, 1.01).useful_from() == math.inf


def test_bias_below_zero_counts_as_none() -> None:
    value, low, _ = contestant("b", 8.0, 1.0, -0.2)._replace(bias=(-0.2, 1e-3)).error(np.array([1e12]))
    assert value[0] == pytest.approx(0, abs=1e-9) and low[0] >= 0


@pytest.mark.parametrize(
    ("unbiased", "biased", "star", "verdict"),
    [
        # less variance × cost: ahead at once
        (contestant("u", 1.0, 2.0, None), contestant("b", 3.0, 1.0, 0.1, seed=1), 0.0, "ahead"),
        # (20 − 10) / 0.5 = 20; of use from 20 and from 10 / (1 − 0.5) = 20 on
        (contestant("u", 10.0, 2.0, None), contestant("b", 10.0, 1.0, 0.5, seed=1), 20.0, "inconclusive"),
        # the biased one is of use from 10 / (1 − 0.1) on, long before they cross at 100
        (contestant("u", 10.0, 2.0, None), contestant("b", 10.0, 1.0, 0.1, seed=1), 100.0, "behind"),
        # it is never of use: they cross before the unbiased one is
        (contestant("u", 10.0, 2.0, None), contestant("b", 10.0, 1.0, 1.5, seed=1), 10 / 1.5, "ahead"),
    ],
)
def test_crossings(unbiased: contest.Contestant, biased: contest.Contestant, star: float, verdict: str) -> None:
    found = contest.crossing(unbiased, biased)
    assert found.value == pytest.approx(star)
    assert found.low <= found.value <= found.high
    assert found.verdict == verdict
    if star:
        c = np.array([star])
        np.testing.assert_allclose(unbiased.error(c)[0], biased.error(c)[0])


def test_a_bias_that_may_be_none_may_never_be_overtaken() -> None:
    unbiased = contestant("u", 10.0, 2.0, None)
    biased = contestant("b", 10.0, 1.0, 0.1, seed=1)._replace(bias=(0.01, 0.1))
    assert contest.crossing(unbiased, biased).high == math.inf


def test_intervals_cover() -> None:
    """95 % intervals of C* from measurements drawn about a truth hold it in 92 to 98 % of 400 cases (5 σ: ± 5.4 %)."""
    rng, inside = np.random.default_rng(0), 0
    truth = (3.0 * 2.0 - 2.0 * 1.0) / 0.25
    for case in range(400):
        v_u, v_b, bias = rng.normal([3.0, 2.0, 0.25], [0.3, 0.2, 0.04])
        mine = contest.Contestant("u", "u", True, (v_u, 0.3), (0, 1), (2.0, 0.0), 0.5, 9, NORM, 2 * case)
        other = contest.Contestant("b", "b", False, (v_b, 0.2), (bias, 0.04), (1.0, 0.0), 0.5, 9, NORM, 2 * case + 1)
        found = contest.crossing(mine, other)
        inside += found.low <= truth <= found.high
    assert 0.92 * 400 <= inside <= 0.98 * 400


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """The suite itself, for an estimator of each kind, at the smallest size."""
    out = tmp_path_factory.mktemp("contest")
    given = ["trajectory.steps=6", "trajectory.ride=2", "truth.minibatches=3"]
    given += ["contest.estimates=10", "contest.steps=2", "contest.runs=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.run.REFERENCE", out / "no reference")
        patch.setattr(suite, "MINIBATCHES", 3)
        names = ["sweep", "concrete[temperature=0.5]"]
        arguments = ["--task", "width", "--suite", "contest", "--preset", "smoke", "--out", str(out), "--set", *given]
        assert main([*arguments, "--estimator", *names]) == 0
    return table.read(out / "rows"), out


def test_rows_of_the_suite(rows: tuple[pd.DataFrame, Path]) -> None:
    frame, _ = rows
    assert set(frame["status"]) == {"ok"}
    of_point = {"mse_variance", "mse_bias_sq", "mse_bias_p", "mse_gradient_sq"}
    for (_, point), here in frame[frame["point"].notna()].groupby(["estimator", "point"]):
        for part in ("logits", "weights"):
            assert set(here.loc[here["part"] == part, "metric"]) == of_point
        assert set(here.loc[here["part"].isna(), "metric"]) == {"mse_cost", "mse_unbiased", "mse_entropy"}
        assert point in ("uniform", "mid", "peaked")
    claims = frame[frame["metric"] == "mse_unbiased"].groupby("estimator")["value"].agg(set)
    assert claims.to_dict() == {"sweep": {1.0}, "concrete[temperature=0.5]": {0.0}}
    hard = frame[(frame["metric"] == "mse_bias_sq") & (frame["part"] == "weights") & (frame["estimator"] == "sweep")]
    assert (hard["value"] == 0).all() and (hard["n"] == 8).all()  # it trains on vertices, and no more were looked at
    norms = frame[(frame["metric"] == "mse_gradient_sq") & (frame["part"] == "logits")]
    assert (norms.groupby("point")["value"].nunique() == 1).all()  # one reference for all
    gains = frame[frame["metric"] == "descent_gain"]
    assert gains.groupby("estimator")["x"].agg(list).map([0.0, 1.0].__eq__).all() and (gains["n"] == 3).all()
    assert (frame.loc[frame["metric"] == "descent_steps", "value"] >= suite.BUNDLE).all()


def test_the_report_has_tables_and_the_figure(rows: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    frame, out = rows
    page = report.build([out / "rows"], tmp_path)
    assert "REPORT-width.md" in page.read_text()
    text = (tmp_path / "REPORT-width.md").read_text()
    for part in ("Logits", "Weights"):
        for point in ("uniform", "mid", "peaked"):
            assert f"### {part}, {point} q; smoke" in text
    assert text.count("| `zero` ") == 6
    assert "### Optimising only the logits, with frozen weights, in equal time" in text
    assert (tmp_path / "figures" / "contest.png").exists()
    assert plots.FIGURES["contest"](frame[frame["suite"] != "contest"]) is None
    found = {where["point"]: group for where, group in contest.groups(frame) if where["part"] == "logits"}
    assert [one.estimator for one in found["mid"]] == ["concrete[temperature=0.5]", "sweep"]
    lines = contest.descents_table(frame)
    assert set(lines["estimator"]) == {"sweep", "concrete[temperature=0.5]"}
    assert (lines["behind the best"] == "").sum() == 1


def test_it_runs_by_name_only_and_on_networks_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "contest" not in suite_names([]) and suite.Contest.by_name
    assert not planned(workshop(tmp_path), "toy", ["sweep"], ["contest"])
    arguments = ["--estimator", "sweep", "--task", "toy", "--suite", "contest", "--preset", "smoke"]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert "contest does not apply to sweep on toy" in capsys.readouterr().err
