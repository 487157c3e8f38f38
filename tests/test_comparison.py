"""`compare`: what it says of an objective whose true gradient, biases and variances are known."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import refused
from torch import Tensor, nn

import estimators
from estimators import Estimator
from results.comparison import Comparison
from results.contest import Contestant
from suites import Monitor, compare
from suites.__main__ import main
from suites.problem import LONGEST, Problem, _sketch
from suites.race import Race

SIZES = (2, 3)
LOGITS = [torch.tensor([0.3, -0.2]), torch.tensor([0.0, 0.5, -0.4])]
SEVERAL = ["reinforce[baseline=none]", "rloo", "straight_through", "exact", "nvil"]


def cubic(sample: Sequence[Tensor]) -> Tensor:
    return (sample[0][..., 0] - 0.7 * sample[1][..., 1] + sample[1][..., 2]) ** 3 + 1


def enumerated() -> tuple[np.ndarray, float, np.ndarray]:
    """The true gradient of `cubic` `(5,)`, the variance of REINFORCE without a baseline, and the mean of straight-
    through `(5,)`, by enumeration in float64."""
    logits = [site.double() for site in LOGITS]
    p = [torch.softmax(site, -1) for site in logits]
    gradient, square, through = torch.zeros(5).double(), torch.zeros(()).double(), torch.zeros(5).double()
    for i, j in itertools.product(*map(range, SIZES)):
        weight = p[0][i] * p[1][j]
        z = [torch.eye(2).double()[i].requires_grad_(), torch.eye(3).double()[j].requires_grad_()]
        value = cubic(z)
        slopes = torch.autograd.grad(value, z)
        score = torch.cat([a.detach() - b for a, b in zip(z, p, strict=True)])
        gradient += weight * value.detach() * score
        square += weight * value.detach() ** 2 * score @ score
        through += weight * torch.cat([q * (v - q @ v) for q, v in zip(p, slopes, strict=True)])
    return gradient.numpy(), float(square - gradient @ gradient), through.numpy()


@pytest.fixture(scope="module")
def known() -> Comparison:
    return compare(cubic, LOGITS, estimators=SEVERAL, seconds=3, quiet=True)


def line(result: Comparison, label: str, part: str = "logits") -> pd.Series:
    frame = result.frame
    return frame[(frame["estimator"] == label) & (frame["part"] == part)].iloc[0]


def within(row: pd.Series, name: str, truth: float, sigmas: float = 5.0) -> bool:
    error = (row[f"{name}_high"] - row[name]) / 1.96
    return abs(row[name] - truth) <= sigmas * error + 1e-9


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


def test_without_slopes_biased_estimators_are_not_applicable_and_say_why() -> None:
    table = torch.arange(6.0).reshape(2, 3) ** 2

    def looked_up(sample: Sequence[Tensor]) -> Tensor:
        return table[sample[0].argmax(-1), sample[1].argmax(-1)]

    names = ["reinmax", "averaged", "rloo", "double_cv"]
    found = compare(looked_up, LOGITS, estimators=names, seconds=1.5, quiet=True)
    assert [found.measured[label].status[:14] for label in names] == ["not applicable", "not applicable", "ok", "ok"]
    assert found.measured["double_cv"].slopes == "yes, f has none"
    assert "reinmax, averaged: not applicable: it needs ∂f/∂sample, and f has none" in str(found)
    assert "f has no slope" in str(found)


class Encoder(nn.Module):
    """Logits of two categoricals and the loss of a decoder, for rows of inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.decode = nn.Linear(4, 5), nn.Linear(5, 1)
        self.x = torch.randn(64, 4)
        self.at = 0

    def logits(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encode(x).split((2, 3), -1))

    def f(self, x: Tensor):  # type: ignore[no-untyped-def]
        return lambda sample: (self.decode(torch.cat(tuple(sample), -1))[..., 0] - x.sum(-1)) ** 2

    def minibatch(self):  # type: ignore[no-untyped-def]
        self.at += 1
        x = self.x[torch.arange(8 * self.at, 8 * self.at + 8) % 64]
        return self.f(x), self.logits(x)


def test_nothing_that_was_there_before_is_disturbed() -> None:
    model = Encoder()
    logits = model.logits(model.x[:8])
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 7.0)
    own = estimators.get("nvil", sizes=SIZES)
    before, state = copy.deepcopy(own.state_dict()), torch.random.get_rng_state()
    weights = copy.deepcopy(model.state_dict())
    compare(model.f(model.x[:8]), logits, estimators=["rloo", own], weights=model.parameters(), seconds=1, quiet=True)
    assert all(bool((weight.grad == 7).all()) for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert own.training
    assert all(torch.equal(own.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    sum(site.sum() for site in logits).backward()  # the graph of the logits is still there


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


def test_what_cannot_work_is_refused_in_one_line() -> None:
    model = Encoder()
    with pytest.raises(ValueError, match="give weights="):
        compare(model.minibatch, fresh=True, seconds=1, quiet=True)
    with pytest.raises(ValueError, match="logits are missing"):
        compare(cubic, seconds=1, quiet=True)
    with pytest.raises(ValueError, match="one value per sample"):
        compare(lambda sample: sample[0].sum(), LOGITS, seconds=1, quiet=True)
    with pytest.raises(ValueError, match="did you mean 'rloo'"):
        compare(cubic, LOGITS, estimators=["rlo"], seconds=1, quiet=True)
    with pytest.raises(ValueError, match="named twice"):
        compare(cubic, LOGITS, estimators=["rloo", "rloo[samples=2]"], seconds=1, quiet=True)
    with pytest.raises(ValueError, match="seconds must be a number greater than 0"):
        compare(cubic, LOGITS, seconds=0, quiet=True)
    with pytest.raises(ValueError, match="write \\(logits,\\)"):
        compare(cubic, LOGITS[0], seconds=1, quiet=True)  # type: ignore[arg-type]


def test_logits_of_a_wrong_kind_are_refused_by_all_who_take_them() -> None:
    wrong: list[tuple[object, str]] = [
        ([], "an empty sequence"),
        ([[0.0, 0.0], [0.0, 0.0, 0.0]], "an object of type list"),
        ([torch.zeros(2, dtype=torch.int64), LOGITS[1]], "a tensor of int64"),
        ([torch.tensor(0.0), LOGITS[1]], "at least one row and one category"),
        ([torch.zeros(0, 2), torch.zeros(0, 3)], "at least one row and one category"),
        ([torch.zeros(4, 2), torch.zeros(5, 3)], "same rows"),
        ([LOGITS[0], torch.zeros(3, device="meta")], "on one device, got cpu, meta"),
    ]
    for logits, message in wrong:
        for taken in (Problem, estimators.pick, lambda f, at: estimators.surrogate("rloo", f, at)):
            with pytest.raises(ValueError, match=message):
                taken(cubic, logits)  # type: ignore[arg-type]
    for taken in (Problem, estimators.pick, estimators.get("rloo", sizes=SIZES).backward):
        with pytest.raises(ValueError, match="write \\(logits,\\)"):
            taken(cubic, LOGITS[0])  # type: ignore[arg-type]
    assert Problem(cubic, iter(LOGITS)).sizes == SIZES  # type: ignore[arg-type]


def test_arguments_of_a_wrong_kind_are_refused_in_one_line() -> None:
    model = nn.Linear(2, 2)
    for weights in (model, model.weight, "weights", model.state_dict(), model.named_parameters()):
        with pytest.raises(ValueError, match=r"such as model\.parameters"):
            Problem(cubic, LOGITS, weights=weights)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of the weights requires a gradient"):
        Problem(cubic, LOGITS, weights=[torch.zeros(3)])
    for wanted in ("rloo", estimators.get("rloo", sizes=SIZES)):
        with pytest.raises(ValueError, match=r"got .*loo.* alone"):
            compare(cubic, LOGITS, estimators=wanted, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an estimator is a label"):
        compare(cubic, LOGITS, estimators=[Broken], quiet=True)  # type: ignore[list-item]
    for seconds in ("10", float("inf"), float("nan")):
        with pytest.raises(ValueError, match="seconds must be a number"):
            compare(cubic, LOGITS, seconds=seconds, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must give a tensor, one value per sample, got an object of type float"):
        Problem(lambda sample: 1.0, LOGITS)
    with pytest.raises(ValueError, match="NaN or infinity"):
        Problem(lambda sample: cubic(sample) * torch.nan, LOGITS)
    with pytest.raises(ValueError, match="limit is 16,777,216"):
        estimators.get("sweep", sizes=(5000,))


def test_a_function_of_the_next_minibatch_is_told_from_a_function_of_a_sample() -> None:
    with pytest.raises(ValueError, match="set fresh=True"):
        Problem(lambda: cubic, LOGITS)
    with pytest.raises(ValueError, match="this one needs an argument"):
        Problem(cubic, LOGITS, fresh=True)
    batches = iter([cubic] * 2)
    problem = Problem(lambda: next(batches), LOGITS, fresh=True)
    problem.by_hand()
    with pytest.raises(ValueError, match="the minibatches have ended"):
        problem.by_hand()


def test_a_graph_from_outside_of_f_is_named_as_the_reason() -> None:
    scale = torch.ones(2, requires_grad=True)
    square = scale.square()
    with pytest.raises(ValueError, match="made outside of f"):
        compare(lambda sample: cubic(sample) * square[0], LOGITS, estimators=["rloo"], seconds=1, quiet=True)


def test_noise_in_f_and_a_mixture_of_samples_are_said_to_the_reader() -> None:
    torch.manual_seed(0)
    rows = [site.expand(8, -1) for site in LOGITS]
    layer = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def noisy(sample: Sequence[Tensor]) -> Tensor:
        return layer(torch.cat(tuple(sample), -1))[..., 0]  # type: ignore[no-any-return]

    found = compare(noisy, rows, estimators=["exact", "rloo"], seconds=1, quiet=True)
    assert "f is random" in str(found)
    assert found.truth.startswith("estimates by ")  # one enumeration would be a random number
    layer.eval()
    assert not Problem(noisy, rows).random

    norm = nn.BatchNorm1d(1)

    def mixed(sample: Sequence[Tensor]) -> Tensor:
        value = cubic(sample)
        return norm(value.reshape(-1, 1)).reshape(value.shape)  # type: ignore[no-any-return]

    problem = Problem(mixed, rows)
    assert problem.mixes and not problem.random and not problem.together
    assert "batch norm" in str(compare(mixed, rows, estimators=["rloo"], seconds=1, quiet=True))
    norm.eval()
    assert not Problem(mixed, rows).mixes


def test_a_gradient_of_zero_is_said_to_be_zero() -> None:
    weight = torch.ones(2, requires_grad=True)
    found = compare(lambda s: 0 * s[0].sum(-1), LOGITS, estimators=["rloo"], weights=[weight], seconds=1, quiet=True)
    assert "enumeration of 6 configurations; it is 0" in str(found)
    assert "The gradient of the logits is 0: f is the same for every sample." in str(found)
    assert "The gradient of the weights is 0: neither f nor the logits depend on them." in str(found)
    with pytest.raises(ValueError, match="'encoder' was not measured, only that of logits, weights"):
        found.best(part="encoder")


class Broken(Estimator):
    unbiased = True

    def _estimate(self, objective, logits, noise):  # type: ignore[no-untyped-def]
        raise RuntimeError("this estimator\nis broken")


class Infinite(Estimator):
    unbiased = False

    def _estimate(self, objective, logits, noise):  # type: ignore[no-untyped-def]
        loss = objective.hard(tuple(site.argmax(-1) for site in logits))
        return estimators.Estimate(loss, tuple(torch.full_like(site, torch.inf) for site in logits))


def test_an_estimator_that_fails_ends_itself_and_not_the_comparison() -> None:
    wanted = {"broken": Broken(SIZES), "infinite": Infinite(SIZES), "rloo": "rloo"}
    found = compare(cubic, LOGITS, estimators=wanted, seconds=1, quiet=True)
    assert found.measured["broken"].status == "failed: RuntimeError: this estimator is broken"
    assert "not finite" in found.measured["infinite"].status
    assert found.best() == "rloo"
    with pytest.raises(ValueError, match="could be measured: failed: RuntimeError: this estimator is broken"):
        compare(cubic, LOGITS, estimators={"broken": Broken(SIZES)}, seconds=1, quiet=True)


def test_estimates_are_made_together_only_where_samples_do_not_influence_each_other() -> None:
    assert Problem(cubic, LOGITS).together
    assert not Problem(lambda sample: cubic(sample) + sample[0][..., 0].mean(), LOGITS).together


def test_estimates_made_together_are_those_made_one_by_one() -> None:
    problem = Problem(cubic, [site.expand(3, -1) for site in LOGITS])
    rloo = estimators.get("rloo", sizes=SIZES)
    together = problem.estimates(rloo, problem.generator("a"), 4000)
    alone = np.stack([problem.estimate(rloo, problem.generator("b", i))[0]["logits"] for i in range(400)])
    assert together.shape == (4000, 15)
    assert alone.shape == (400, 15)
    error = np.sqrt(together.var(0) / 4000 + alone.var(0) / 400)
    assert (np.abs(together.mean(0) - alone.mean(0)) < 5 * error).all()
    assert together.var(0).sum() == pytest.approx(alone.var(0).sum(), rel=0.3)


def test_what_a_constant_in_the_logits_would_add_is_left_out() -> None:
    problem = Problem(cubic, LOGITS)
    estimator = estimators.get("straight_through", sizes=SIZES, through="identity")  # ∂f/∂z as it is
    found = problem.estimate(estimator, problem.generator())[0]["logits"]
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose([found[:2].sum(), found[2:].sum()], 0, atol=1e-5)


def test_a_projection_of_long_gradients_keeps_sums_and_squared_norms() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50_000, generator=generator, dtype=torch.float64)
    x[2] = 1  # numbers of one sign, which would add up in every entry if none were turned
    short = _sketch(x)
    assert short.shape == (3, LONGEST)
    np.testing.assert_allclose(_sketch(x[0] + x[1]), short[0] + short[1], rtol=1e-4, atol=1e-3)
    norms = (short.astype(np.float64) ** 2).sum(1) / (x**2).sum(1).numpy()
    assert (np.abs(norms - 1) < 5 * np.sqrt(2 / LONGEST)).all()


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


OWN = """
import torch
logits = [torch.zeros(k) for k in (2, 3)]
def objective(sample):
    return (sample[0][..., 0] - sample[1][..., 1]) ** 2
"""


def test_the_command_measures_an_objective_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_own_model.py"
    file.write_text(OWN, encoding="utf-8")
    words = ["compare", f"{file}:objective", "--estimator", "rloo", "reinmax", "--seconds", "1", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "Take " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.txt",
        "comparison.csv",
        "comparison.png",
    }
    assert set(pd.read_csv(tmp_path / "out" / "comparison.csv")["estimator"]) == {"rloo", "reinmax"}
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] in {"rloo", "reinmax"}


def test_a_file_may_have_the_name_of_a_module_that_is_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "json.py"
    file.write_text(OWN, encoding="utf-8")
    before = sys.modules["json"]
    assert main(["compare", str(file), "--estimator", "rloo", "--seconds", "0.5", "--quiet", "--json"]) == 0
    assert sys.modules["json"] is before
    assert capsys.readouterr().out


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken_model.py"
    file.write_text("1 / 0", encoding="utf-8")
    assert "broken_model.py, line 1: ZeroDivisionError" in refused(capsys, "compare", str(file), by=main)
    file.write_text(OWN, encoding="utf-8")
    assert "has no 'other' at its top level" in refused(capsys, "compare", f"{file}:other", by=main)
    assert "has no 'phi' at its top level" in refused(capsys, "compare", str(file), "--logits", "phi", by=main)
    assert "there is no file" in refused(capsys, "compare", str(tmp_path / "none.py"), by=main)
    assert "name a Python file" in refused(capsys, "compare", "rloo", by=main)
    file.write_text(f"{OWN}    return sample[7]\n".replace("return (", "(lambda *_: 0)("), encoding="utf-8")
    assert "broken_model.py, line 6: IndexError" in refused(capsys, "compare", str(file), by=main)


# --- what must not go wrong -----------------------------------------------------------------------------------------


def statuses(result: Comparison) -> dict[str, str]:
    return {label: one.status for label, one in result.measured.items()}


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


def test_a_graph_from_outside_f_is_refused_in_one_line() -> None:
    outside = nn.Linear(2, 5)(torch.ones(2)) ** 2
    with pytest.raises(ValueError, match=r"compute the tensor inside f, or detach it$"):
        compare(lambda sample: torch.cat(tuple(sample), -1) @ outside, LOGITS, seconds=0.3, quiet=True)


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


def test_an_objective_that_draws_is_not_enumerated() -> None:
    def noisy(sample: Sequence[Tensor]) -> Tensor:
        return cubic(sample) + sample[1][..., 0] * torch.randn(sample[0].shape[:-1])

    found = compare(noisy, LOGITS, estimators=["rloo", "straight_through"], seconds=1, quiet=True)
    assert found.truth.startswith("estimates by rloo")
    mixed = Problem(lambda sample: cubic(sample) + sample[0][..., 0].mean(), LOGITS)
    assert not mixed.steady
    assert Problem(cubic, LOGITS).steady


def test_what_an_estimator_knew_of_another_objective_does_not_count() -> None:
    own = estimators.get("reinmax", sizes=SIZES)
    with pytest.warns(UserWarning, match="f has no slope"):
        own.estimate(lambda sample: sample[0].argmax(-1) * 1.0, LOGITS, own.draw(LOGITS))
    before = dict(own.blind)
    found = compare(cubic, LOGITS, estimators={"own": own, "rloo": "rloo"}, seconds=0.3, quiet=True)
    assert found.measured["own"].slopes == "yes"
    assert statuses(found)["own"] == "ok"
    assert own.blind == before


def test_an_objective_that_ignores_a_categorical_is_measured_all_the_same() -> None:
    found = compare(lambda sample: sample[0][..., 0] ** 2, LOGITS, estimators=["reinmax"], seconds=0.3, quiet=True)
    assert statuses(found) == {"reinmax": "ok"}
    assert found.measured["reinmax"].slopes == "yes, f has some"


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


def test_nothing_is_left_behind_where_gradients_are_switched_off() -> None:
    weight, logits = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor([0.3, -0.2]))
    with torch.no_grad():
        found = compare(
            lambda sample: (sample[0] @ weight + sample[0][..., 0]) ** 2,
            [logits],
            estimators=["rloo"],
            weights=[weight, logits],
            seconds=0.3,
            quiet=True,
        )
    assert weight.grad is None
    assert logits.grad is None
    gradient_sq = found.frame.set_index("part")["gradient_sq"]
    p = torch.softmax(logits.detach(), -1)
    assert gradient_sq["weights"] == pytest.approx(float(((p * torch.tensor([4.0, 2.0])) ** 2).sum()), rel=1e-4)


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


# --- the race -------------------------------------------------------------------------------------------------------


def silent(_: str) -> None:
    pass


def test_the_reference_shares_no_estimate_with_what_is_compared_with_it() -> None:
    """Whatever the label is."""
    sizes = (30, 30, 30)
    problem = Problem(lambda sample: cubic(sample) + sample[2][..., 3], [torch.zeros(k) for k in sizes])
    race = Race(problem, {"reference": estimators.get("rloo", sizes=sizes)}, 0.5, silent)
    race.run()
    (entrant,) = race.entrants
    assert race.by == "estimates by reference"
    draws, truth = entrant.values("logits"), race.truth["logits"]
    assert len(truth) > 1
    rows = [{row.tobytes() for row in of if row.any()} for of in (draws, truth)]  # two equal samples give 0
    assert min(map(len, rows)) > 1
    assert not rows[0] & rows[1]


def contestant(race: Race, at: int, variance: float, bias: float = 0.0, error: float = 0.1) -> Contestant:
    name = race.entrants[at].label
    part = (variance, error * variance)
    return Contestant(name, name, race.entrants[at].unbiased, part, (bias, 0.1 * bias), (1.0, 0.01), 1.0, 9, 1.0, at)


def test_who_is_certainly_worse_everywhere_drops_out_and_no_one_else() -> None:
    names = ["rloo", "reinforce", "unordered", "straight_through", "concrete", "gumbel_rao"]
    made = {name: estimators.get(name, sizes=SIZES) for name in names}
    race = Race(Problem(cubic, LOGITS), made, 1, silent)
    best, worse, unclear, biased, worse_biased, new = race.entrants
    known = {
        best: contestant(race, 0, 1.0),
        worse: contestant(race, 1, 100.0),
        unclear: contestant(race, 2, 1.2, error=0.3),
        biased: contestant(race, 3, 1000.0, 0.5),  # worse than the best, but the best of its kind
        worse_biased: contestant(race, 4, 1000.0, 5.0),
        new: contestant(race, 5, 1000.0, 5.0),
    }
    race.truth = {"logits": np.ones((1, 5))}
    for entrant in race.entrants:
        entrant.ratios = [1.0] * (2 if entrant is new else 4)
    race.contestant = lambda entrant, part, norm: known[entrant]  # type: ignore[method-assign]
    race._drop(5)
    assert [entrant.dropped for entrant in race.entrants] == [None, 5, None, None, 5, None]


def test_minibatches_that_come_in_turn_are_all_seen() -> None:
    """An estimate and the evaluation that is timed beside it take a minibatch each: of two minibatches in turn, an
    estimator must see both."""
    turn = itertools.count()

    def minibatch():  # type: ignore[no-untyped-def]
        sign = (-1) ** next(turn)
        return lambda sample: 1 + sign * sample[0][..., 0]

    problem = Problem(minibatch, [torch.zeros(2)], fresh=True)
    race = Race(problem, {"straight_through": estimators.get("straight_through", sizes=(2,))}, 1, silent)
    (entrant,) = race.entrants
    entrant.noise = problem.generator()
    for _ in range(20):
        race._round(entrant, 0.0)  # one estimate
    signs = np.sign(entrant.values("logits")[:, 0])
    assert 4 <= int((signs > 0).sum()) <= 16


def test_weights_still_train_where_only_logits_are_measured() -> None:
    net = nn.Linear(5, 1)
    net.bias.requires_grad_(False)

    def f(sample: Sequence[Tensor]) -> Tensor:
        return net(torch.cat(tuple(sample), -1))[..., 0]

    problem = Problem(f, LOGITS)
    assert problem.together
    problem.estimates(estimators.get("rloo", sizes=SIZES), problem.generator(), 3)
    assert net.weight.requires_grad
    assert not net.bias.requires_grad
    assert net.weight.grad is None


def test_an_estimator_is_measured_in_the_state_in_which_it_comes() -> None:
    own = estimators.get("nvil", sizes=SIZES).train()
    before = copy.deepcopy(own.state_dict())
    race = Race(Problem(cubic, LOGITS), {"own": own}, 0.5, silent, ready=["own"])
    race.run()
    assert race.entrants[0].n > 10
    for name, value in own.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
