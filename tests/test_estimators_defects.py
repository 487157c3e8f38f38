"""Planted defects: for each, the check of the contract suite that rejects it.

The checks are those of `oracles` that `test_contract` runs on every registered estimator, here on small broken copies.
Where a defect sits in an estimator with parameters these are random, since a surrogate that starts at zero hides it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import oracles
import pytest
import torch
from oracles import LOGITS, Multilinear, logits_like, randomise, seeded, sizes_of
from torch import Tensor

from estimators import Estimate, Estimator, Objective, control_variate, tuning
from estimators.base import train_weights
from estimators.concrete import Concrete
from estimators.exact import Exact
from estimators.noise import gumbel_argmax, one_hot, uniform
from estimators.objective import Sites
from estimators.rebar import Rebar
from estimators.reinforce import Reinforce
from estimators.relax import Relax
from estimators.rloo import Rloo
from estimators.straight_through import StraightThrough
from estimators.unordered import Unordered

PHI = LOGITS["joint"]
SIZES = sizes_of(PHI)

both_modes = pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])


def rejects(match: str) -> AbstractContextManager[Any]:
    return pytest.raises(AssertionError, match=match)


def relax_with_objective(sizes: tuple[int, ...]) -> Estimator:
    return Relax(sizes, relaxed_objective=True)


# --- the power of the check of means ----------------------------------------------------------------------------------


def scaled(estimator: Estimator, factor: float) -> Estimator:
    """The same estimator with its logit gradients scaled."""
    original = estimator._estimate

    def estimate(objective: Objective, logits: Sites, noise: Any) -> Estimate:
        loss, grads = original(objective, logits, noise)
        return Estimate(loss, tuple(factor * grad for grad in grads))

    estimator._estimate = estimate  # type: ignore[method-assign]
    return estimator


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_two_per_cent_are_seen(factor: float) -> None:
    """The stated power: a gradient wrong by 2 %, of a low-variance estimator, all probabilities above 1e-2."""
    logits = LOGITS["binary"]
    assert min(float(torch.softmax(site, -1).min()) for site in (*logits, *PHI)) > 1e-2
    with rejects("expected"):
        oracles.check_unbiased(scaled(Unordered(sizes_of(logits), samples=3), factor), logits)
    with rejects("expected"):
        oracles.check_unbiased(scaled(Exact(SIZES), 1 + (factor - 1) / 1e4), PHI)


def test_the_same_estimators_unscaled_pass() -> None:
    logits = LOGITS["binary"]
    assert oracles.check_unbiased(scaled(Unordered(sizes_of(logits), samples=3), 1.0), logits) < 0.02
    assert oracles.check_unbiased(Exact(SIZES), PHI) < 1e-6


@pytest.mark.parametrize("p", [0.5, 0.01, 0.0025])
def test_false_alarms_are_as_rare_as_stated(p: float) -> None:
    """1,000 repetitions of a skewed mean at a level of 1 %, not 1e-6; 25 alarms or more have probability 3e-5."""
    draws = (torch.rand(1000, 4000, 1, generator=seeded(), dtype=torch.float64) < p).double()
    alarms = 0
    for samples in draws:
        try:
            oracles.check_means(samples, torch.tensor([p], dtype=torch.float64), alarm=0.01)
        except AssertionError:
            alarms += 1
    assert alarms < 25


# --- control variates -------------------------------------------------------------------------------------------------


def own_v(log_p: Tensor, index: Tensor, v: Tensor) -> Tensor:
    """−log(−log v_i / p_i − log v_i): every category with its own v, where the winner's belongs."""
    e = -torch.log(v)
    winner = one_hot(index, log_p.shape[-1], torch.bool)
    return torch.where(winner, -torch.log(e), -torch.log(e / log_p.exp() + e))


def detached(z: Tensor) -> Tensor:
    """z̃ does not depend on log p."""
    return torch.ones_like(z)


def unnormalised(site: Tensor) -> Tensor:
    """A log softmax that is the logits themselves. z stands it, σ(z) being the same; z̃ does not."""
    return site


@both_modes
@pytest.mark.parametrize("make", [Rebar, Relax, relax_with_objective])
@pytest.mark.parametrize("defect", [own_v, detached, unnormalised])
def test_a_wrong_conditional_draw_is_seen(
    defect: Callable[..., Any], make: Any, mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = randomise(make(SIZES)).train(mode)
    oracles.check_unbiased(estimator, PHI)
    where, name = {
        own_v: (control_variate, "conditional_gumbel"),
        detached: (tuning, "_kept"),
        unnormalised: (control_variate, "log_probability"),
    }[defect]
    monkeypatch.setattr(where, name, defect)
    with rejects("expected"):
        oracles.check_unbiased(estimator, PHI)


class WithoutControlScore(tuning.Descent):
    """The term −c(z̃)(b − p) is missing."""

    def _slope(self, of: Any, objective: Objective, z: Any) -> Any:
        value, slope = super()._slope(of, objective, z)  # type: ignore[misc]
        return 0 * value, slope


class WithoutFreeTerm(tuning.Descent):
    """∂c(z) is missing, so that −∂c(z̃) stands alone."""

    def _slope(self, of: Any, objective: Objective, z: Any) -> Any:
        value, slope = super()._slope(of, objective, z)  # type: ignore[misc]
        return value, tuple(torch.stack([0 * free, given]) for free, given in slope)


class SurrogateTwice(tuning.Descent):
    """r_ρ is counted again where f(σ(z̃)) + r_ρ multiplies the score."""

    def _slope(self, of: Any, objective: Objective, z: Any) -> Any:
        value, slope = super()._slope(of, objective, z)  # type: ignore[misc]
        again = of.learned(of.soft(z))
        return value + (again if of.training else again.detach()), slope


def without_control_score(sizes: tuple[int, ...]) -> Estimator:
    return tuned(Rebar(sizes), WithoutControlScore())


def without_free_term(sizes: tuple[int, ...]) -> Estimator:
    return tuned(Rebar(sizes), WithoutFreeTerm())


def surrogate_twice(sizes: tuple[int, ...]) -> Estimator:
    return tuned(Relax(sizes, relaxed_objective=True), SurrogateTwice())


def tuned(estimator: Any, tuner: tuning.Descent) -> Estimator:
    """The estimator with another tuner."""
    estimator.tuner = tuner
    return estimator  # type: ignore[no-any-return]


@both_modes
@pytest.mark.parametrize("make", [without_control_score, without_free_term, surrogate_twice])
def test_a_dropped_or_doubled_term_is_seen(make: Any, mode: bool) -> None:
    with rejects("expected"):
        oracles.check_unbiased(randomise(make(SIZES)).train(mode), PHI)


def test_a_surrogate_at_zero_hides_its_defect() -> None:
    """Why the contract suite randomises parameters: as made, the doubled surrogate passes."""
    oracles.check_unbiased(surrogate_twice(SIZES), PHI)


class FitsLogits(Rebar):
    """What it learns goes into the logits' gradient as well."""

    def estimate(self, objective: Any, logits: Sites, noise: Any) -> Estimate:
        found = super().estimate(objective, logits, noise)
        for site in logits:
            if self.training and site.requires_grad:
                site.grad = torch.full_like(site, 0.1)
        return found


class FitsWeights(Rebar):
    """The variance loss reaches no logits, but the objective's weights."""

    def _fit(self, loss: Tensor) -> None:
        loss.mean().backward()


class TrainsThroughControl(tuning.Descent):
    """The relaxed objective trains weights, as if it were the objective."""

    def _slope(self, of: Any, objective: Objective, z: Any) -> Any:
        value = objective.control(tuple(site.detach() for site in of.soft(z)))
        if value.requires_grad:
            value.sum().backward()
        return super()._slope(of, objective, z)


def trains_through_control(sizes: tuple[int, ...]) -> Estimator:
    return tuned(Rebar(sizes), TrainsThroughControl())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (FitsLogits, "logits"),
        (FitsWeights, "through control"),
        (trains_through_control, "through control"),
    ],
)
def test_a_leak_is_seen(make: Any, match: str) -> None:
    estimator = randomise(make(SIZES))
    with rejects(match):
        oracles.check_nothing_leaks(estimator, logits_like(SIZES, (3,)))


def test_a_leak_is_seen_in_the_mean_of_weight_gradients() -> None:
    """On a plain callable `control` is f itself, weights included: only the expectation can tell."""
    for mode in (True, False):
        with rejects("component 1 "):
            oracles.check_unbiased(randomise(trains_through_control(SIZES)).train(mode), PHI)


# --- score functions --------------------------------------------------------------------------------------------------


class OwnSampleBaseline(Reinforce):
    """The baseline is updated, then used."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        if self.training:
            with torch.no_grad():
                loss = objective.hard(gumbel_argmax(logits, noise))
            self.baseline.lerp_(loss.mean().to(self.baseline.dtype), 0.1)
        mode = self.training
        self.training = False
        estimate = super()._estimate(objective, logits, noise)
        self.training = mode
        return estimate


@pytest.mark.parametrize("rows", [(), (3,)])
def test_a_baseline_with_its_own_sample_is_seen(rows: tuple[int, ...]) -> None:
    with rejects("training and evaluation differ"):
        oracles.check_state_is_of_earlier_steps(OwnSampleBaseline(SIZES), logits_like(SIZES, rows))


class FitsItsOwnRows(Reinforce):
    """A control c(z) = table[z_1] of mean losses, its expectation restored, fitted on the rows that it corrects."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        train_weights(loss)
        loss = loss.detach()
        p = torch.softmax(logits[0], -1)
        first = one_hot(index[0], self.sizes[0], loss.dtype)
        table = (first * loss.unsqueeze(-1)).sum(0) / first.sum(0).clamp(min=1)
        left = loss - first @ table
        grads = [
            left.unsqueeze(-1) * (one_hot(i, size, loss.dtype) - torch.softmax(site, -1))
            for i, size, site in zip(index, self.sizes, logits, strict=True)
        ]
        grads[0] = grads[0] + p * (table - (p @ table).unsqueeze(-1))
        return Estimate(loss, tuple(grads))


class NormalisedRows(Reinforce):
    """Losses are centred and scaled by the rows at hand."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(grad / (1 + loss.std()) for grad in grads))


@both_modes
@pytest.mark.parametrize("make", [FitsItsOwnRows, NormalisedRows])
def test_a_fit_on_its_own_rows_is_seen(make: Any, mode: bool) -> None:
    with rejects("moved with another row"):
        oracles.check_rows_are_apart(make(SIZES).train(mode), logits_like(SIZES, (6,)))


def test_a_fit_on_its_own_rows_is_seen_in_the_mean_of_small_calls() -> None:
    """Rows by the thousand hide a bias of 1/rows; calls of 4 show it, in the check that the slow suite runs."""
    oracles.check_unbiased(FitsItsOwnRows(SIZES), PHI)
    with rejects("expected"):
        oracles.check_unbiased(FitsItsOwnRows(SIZES), PHI, rows=6_000, per_call=4)
    oracles.check_unbiased(Reinforce(SIZES), PHI, rows=6_000, per_call=4)


class WithoutMeanScore(Reinforce):
    """The score is z, not z − p."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        index = gumbel_argmax(logits, noise)
        loss = objective.hard(index)
        train_weights(loss)
        return Estimate(
            loss.detach(),
            tuple(
                loss.detach().unsqueeze(-1) * one_hot(i, k, loss.dtype) for i, k in zip(index, self.sizes, strict=True)
            ),
        )


class OneLess(Rloo):
    """Divided by S, not S − 1: the mean contains its own sample."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(grad * (self.evaluations - 1) / self.evaluations for grad in grads))


class WeightsBySum(Rloo):
    """Weights train on the sum over samples."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        class Louder:
            def hard(self, index: Sites) -> Tensor:
                value = objective.hard(index)
                return value.detach() + 2 * (value - value.detach())

        return super()._estimate(Louder(), logits, noise)  # type: ignore[arg-type]


@both_modes
@pytest.mark.parametrize("make", [WithoutMeanScore, OneLess, WeightsBySum])
def test_a_wrong_score_or_weight_is_seen(make: Any, mode: bool) -> None:
    with rejects("expected"):
        oracles.check_unbiased(make(SIZES).train(mode), PHI)


# --- relaxations and straight-through ---------------------------------------------------------------------------------


class WithoutTemperature(Concrete):
    """J(x) ∇f(x), without 1/t."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(grad * self.temperature.value for grad in grads))


@both_modes
def test_a_missing_temperature_factor_is_seen(mode: bool) -> None:
    estimator = WithoutTemperature(SIZES, temperature=0.5).train(mode)
    with rejects("pathwise"):
        oracles.check_pathwise(estimator, logits_like(SIZES, (20,)))


@pytest.mark.parametrize("make", [lambda sizes: StraightThrough(sizes, through="identity")])
def test_a_missing_jacobian_is_seen(make: Any) -> None:
    with rejects("expected"):
        oracles.check_unbiased(make(SIZES), PHI, Multilinear)


# --- behaviour --------------------------------------------------------------------------------------------------------


class MovesInEvaluation(Reinforce):
    """The baseline takes its step in eval() too."""

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        mode = self.training
        self.training = True
        estimate = super()._estimate(objective, logits, noise)
        self.training = mode
        return estimate


class FitsInEvaluation(tuning.Descent):
    def _slope(self, of: Any, objective: Objective, z: Any) -> Any:
        if not of.training:
            of._fit(of.eta.square())
        return super()._slope(of, objective, z)


def fits_in_evaluation(sizes: tuple[int, ...]) -> Estimator:
    return tuned(Rebar(sizes), FitsInEvaluation())


@pytest.mark.parametrize(("make", "match"), [(MovesInEvaluation, "differ"), (fits_in_evaluation, "gradient of")])
def test_a_change_in_evaluation_is_seen(make: Any, match: str) -> None:
    with rejects(match):
        oracles.check_evaluation_is_pure(randomise(make(SIZES)), logits_like(SIZES, (3,)))


class HiddenState(Reinforce):
    """State that `state_dict` does not show still changes the next estimate."""

    calls: Iterator[int]

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(sizes)
        self.calls = itertools.count()

    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(grad + next(self.calls) for grad in grads))


def test_hidden_state_is_seen() -> None:
    with rejects("two evaluations"):
        oracles.check_evaluation_is_pure(HiddenState(SIZES), logits_like(SIZES, (3,)))


class WrongCount(Rloo):
    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(sizes, samples=3)

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, generator, (4,))


class DeniesRelaxing(Concrete):
    relaxed = False


@pytest.mark.parametrize(
    ("make", "match"), [(WrongCount, "4 evaluations, not 3"), (DeniesRelaxing, "relaxed is False")]
)
def test_a_wrong_claim_is_seen(make: Any, match: str) -> None:
    with rejects(match):
        oracles.check_counts(make(SIZES), logits_like(SIZES, (3,)))


class IgnoresGenerator(Reinforce):
    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return uniform(logits, None)


class NoiseInEstimate(Reinforce):
    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        return super()._estimate(objective, logits, uniform(logits))


class HalfNoise(Reinforce):
    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Sites:
        return tuple(u.bfloat16() for u in super().draw(logits, generator))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (IgnoresGenerator, "decided by the generator"),
        (NoiseInEstimate, "noise does not decide"),
        (HalfNoise, "bfloat16"),
    ],
)
def test_wrong_randomness_is_seen(make: Any, match: str) -> None:
    with rejects(match):
        oracles.check_randomness(make(SIZES), logits_like(SIZES, (3,)))


class ReadsAValue(Reinforce):
    def _estimate(self, objective: Objective, logits: Sites, noise: Sites) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss + 0 * loss.sum().item(), grads)


def test_a_value_that_is_read_is_seen() -> None:
    with pytest.raises(Exception, match="local_scalar_dense"):
        oracles.check_fake(lambda: ReadsAValue(SIZES), SIZES, (3,))
