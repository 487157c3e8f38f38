"""`compare`: what it says of an objective whose true gradient, biases and variances are known."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from comparing import LOGITS, SEVERAL, SIZES, Encoder, cubic, enumerated, line, statuses, within
from torch import Tensor, nn

import estimators
from results.comparison import Comparison
from suites import Monitor, compare
from suites.problem import Problem


@pytest.fixture(scope="module")
def known() -> Comparison:
    return compare(cubic, LOGITS, estimators=SEVERAL, seconds=3, quiet=True)


def test_bias_and_variance_are_those_of_enumeration(known: Comparison) -> None:
    gradient, variance, through = enumerated()
    size = gradient @ gradient
    assert line(known, "rloo")["gradient_sq"] == pytest.approx(size, rel=1e-5)
    assert within(line(known, "reinforce[baseline='none']"), "variance", variance / size)
    bias = ((through - gradient) ** 2).sum() / size
    assert bias > 0.01  # otherwise the next line would say nothing
    row = line(known, "straight_through")
    assert within(row, "bias_sq", bias)
    assert row["bias_p"] < 1e-6
    assert line(known, "rloo")["bias_p"] > 1e-4


def test_the_error_is_bias_and_variance_at_equal_compute(known: Comparison) -> None:
    row = line(known, "straight_through")
    assert row["error"] == pytest.approx(row["bias_sq"] + row["variance"] * row["cost"] / 100, rel=1e-6)
    row = line(known, "rloo")  # its bias counts as none
    assert row["error"] == pytest.approx(row["variance"] * row["cost"] / 100, rel=1e-6)
    assert known.frame["rank"].dropna().tolist() == sorted(known.frame["rank"].dropna())


def test_enumeration_wins_where_it_is_cheap_and_the_text_says_so(known: Comparison) -> None:
    assert known.best(1e5) == "exact"
    assert known.recommendation(1e5).startswith("Take exact: it has no error")
    assert "enumeration of 6 configurations" in str(known)
    for label in known.measured:
        assert label in str(known)
    with pytest.raises(ValueError, match="less than one estimate"):
        known.best(1e-3)


def test_slopes_that_an_estimator_asks_for_are_seen(known: Comparison) -> None:
    needs = {label: one.slopes for label, one in known.measured.items()}
    assert needs["straight_through"] == "yes"
    assert needs["rloo"] == needs["nvil"] == needs["exact"] == "no"
    assert 0 < known.measured["nvil"].adapted <= 200
    assert known.measured["rloo"].adapted == 0


def test_evaluations_time_and_memory_of_one_estimate(known: Comparison) -> None:
    assert [known.measured[label].evaluations for label in ("rloo", "exact", "straight_through")] == [2, 6, 1]
    assert all(one.seconds > 0 and one.bytes > 0 for one in known.measured.values())


def test_a_biased_best_is_named_with_where_an_unbiased_one_overtakes_it() -> None:
    found = compare(cubic, LOGITS, estimators=["rloo", "straight_through"], seconds=2, quiet=True)
    row, other = line(found, "rloo"), line(found, "straight_through")
    star = (row["variance"] * row["cost"] - other["variance"] * other["cost"]) / other["bias_sq"]
    assert star > 0
    budget = max(row["cost"], other["cost"], star / 2)
    assert found.best(budget) == "straight_through"
    assert "the best unbiased one, rloo, has the smaller error" in found.recommendation(budget)
    assert found.best(1e5) == found.best(budget, unbiased=True) == "rloo"
    crossing = found.crossings.iloc[0]
    assert [crossing["unbiased"], crossing["biased"]] == ["rloo", "straight_through"]
    assert crossing["budget"] == pytest.approx(star, rel=1e-6)
    assert crossing["low"] < star < crossing["high"]


def test_the_gradient_of_weights_includes_what_comes_through_the_logits() -> None:
    model = Encoder()
    x = model.x[:8]
    sample = estimators.get("exact", sizes=SIZES)
    sample.backward(model.f(x), model.logits(x))
    truth = torch.cat([weight.grad.flatten() for weight in model.parameters()])  # type: ignore[union-attr]
    problem = Problem(model.f(x), model.logits(x), weights=model.parameters())
    for weight in model.parameters():
        weight.grad = None
    for _ in range(2):  # the graph of the logits is kept
        found, _ = problem.estimate(sample, problem.generator())
        torch.testing.assert_close(torch.from_numpy(found["weights"]), truth)


def test_fresh_minibatches_with_logits_of_their_own() -> None:
    model = Encoder()
    names = ["rloo[samples=4]", "reinforce", "straight_through"]
    found = compare(model.minibatch, estimators=names, weights=model.parameters(), fresh=True, seconds=2, quiet=True)
    assert list(found.parts) == ["weights"]
    truth = torch.zeros(sum(weight.numel() for weight in model.parameters()))
    exact = estimators.get("exact", sizes=SIZES)
    for start in range(0, 64, 8):  # the minibatches go round
        model.zero_grad()
        x = model.x[start : start + 8]
        exact.backward(model.f(x), model.logits(x))
        truth += torch.cat([weight.grad.flatten() for weight in model.parameters()]) / 8  # type: ignore[union-attr]
    row = line(found, "reinforce", "weights")
    norm, known = found.norms["weights"]
    assert known is not None
    assert abs(norm - float(truth @ truth)) < 5 * known.se
    assert row["variance"] > line(found, "rloo[samples=4]", "weights")["variance"] > 0
    assert "a new minibatch for every estimate" in str(found)


def test_a_gradient_of_zero_is_said_to_be_zero() -> None:
    weight = torch.ones(2, requires_grad=True)
    found = compare(lambda s: 0 * s[0].sum(-1), LOGITS, estimators=["rloo"], weights=[weight], seconds=1, quiet=True)
    assert "enumeration of 6 configurations; it is 0" in str(found)
    assert "The gradient of the logits is 0: f is the same for every sample." in str(found)
    assert "The gradient of the weights is 0: neither f nor the logits depend on them." in str(found)
    with pytest.raises(ValueError, match="'encoder' was not measured, only that of logits, weights"):
        found.best(part="encoder")


def test_a_monitor_compares_every_so_many_steps() -> None:
    monitor = Monitor(every=10, seconds=0.5, estimators=["rloo", "reinforce"])
    made = [step for step in range(21) if monitor(step, cubic, LOGITS) is not None]
    assert made == [0, 10, 20]
    assert monitor.frame.columns[0] == "step"
    assert set(monitor.frame["step"]) == {0, 10, 20}
    with pytest.raises(ValueError, match="at least 1"):
        Monitor(every=0)


def test_the_figure_has_at_most_eight_curves_and_a_label_for_each(known: Comparison, tmp_path: Path) -> None:
    figure = known.plot(tmp_path / "error.png")
    assert (tmp_path / "error.png").stat().st_size > 10_000
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert {"rloo", "straight_through"} <= labels
    assert "exact" not in labels  # an error of 0 has no place on a logarithmic axis
    assert len(figure.axes[0].lines) <= 8


def test_logits_of_half_precision_beside_weights_of_single_precision() -> None:
    net = nn.Linear(5, 1)
    half = [site.bfloat16() for site in LOGITS]
    found = compare(
        lambda sample: net(torch.cat(tuple(sample), -1))[..., 0],
        half,
        estimators=["rloo", "reinmax"],
        seconds=0.3,
        quiet=True,
    )
    assert set(statuses(found).values()) == {"ok"}


def test_a_gradient_of_zero_is_known_to_be_zero(tmp_path: Path) -> None:
    """Rounding leaves 1e-16 of it, which is no unit to measure errors in."""

    def constant(sample: Sequence[Tensor]) -> Tensor:
        return 2 + 0 * sum(site.sum(-1) for site in sample)

    found = compare(constant, LOGITS, estimators=["rloo", "reinmax", "exact"], seconds=0.3, quiet=True)
    assert "it is 0, so that" in str(found)
    assert "unbiased by proof" not in str(found)
    assert (found.frame[["gradient_sq", "bias_p"]] == 1).all(axis=None)
    assert (found.frame[["bias_sq", "variance", "error"]] == 0).all(axis=None)
    found.plot(tmp_path / "nothing.png")  # and there is nothing to be seen on logarithmic axes


def test_small_variances_around_a_gradient_of_zero_are_not_rounded_away() -> None:
    def saddle(sample: Sequence[Tensor]) -> Tensor:
        return 1e-7 * (sample[0][..., 0] - 0.5) * (sample[1][..., 0] - 0.5)

    logits = [torch.zeros(2), torch.zeros(2)]
    found = compare(saddle, logits, estimators=["reinforce[baseline=none]"], seconds=0.3, quiet=True)
    # f² = (1e-7 / 4)² always, and so does the squared norm of the score, 1/2 + 1/2
    assert found.frame["variance"][0] == pytest.approx((1e-7 / 4) ** 2, rel=0.01)


def test_fixed_logits_of_an_encoder_with_fresh_minibatches() -> None:
    model = Encoder()
    logits = model.logits(model.x[:8])
    found = compare(
        lambda: model.f(model.x[:8]),
        logits,
        estimators=["rloo"],
        weights=model.parameters(),
        fresh=True,
        seconds=0.5,
        quiet=True,
    )
    assert statuses(found) == {"rloo": "ok"}
    assert list(found.parts) == ["logits", "weights"]


def test_an_objective_that_waits_is_timed_with_its_waiting() -> None:
    def waiting(sample: Sequence[Tensor]) -> Tensor:
        time.sleep(0.02)
        return cubic(sample)

    found = compare(waiting, [*LOGITS, torch.zeros(10)], estimators=["rloo", "exact"], seconds=3, quiet=True)
    assert found.unit >= 0.02
    assert found.measured["rloo"].seconds >= 0.02
    assert 0.5 < line(found, "rloo")["cost"] < 2  # both samples are evaluated in one call
    assert "too slow" in statuses(found)["exact"]


def test_a_budget_that_pays_for_nothing_is_said_and_not_raised(known: Comparison) -> None:
    dear = {label: one._replace(cost=(1000.0 + one.rng, 1.0)) for label, one in known.parts["logits"].items()}
    found = dataclasses.replace(known, parts={"logits": dear})
    assert "the cheapest, reinforce[baseline='none'], costs 1e+03" in str(found)
    assert "over budget" in str(found)
    assert found.frame["rank"].isna().all()
