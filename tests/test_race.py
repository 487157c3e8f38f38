"""The measurement behind `compare`: who drops out, what is shared, and sums of long gradients."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from comparing import LOGITS, SIZES, cubic
from torch import Tensor, nn

import estimators
from results.contest import Contestant
from suites.problem import LONGEST, Problem, _sketch
from suites.race import Race


def silent(_: str) -> None:
    pass


def test_the_reference_shares_no_estimate_with_what_is_compared_with_it() -> None:
    """Whatever the label is. Some 10^8 pairs are compared, and an estimate is one of 10^13: a false alarm in 10^5."""
    sizes = (200, 200, 200)
    weight = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    problem = Problem(lambda x: (torch.stack(tuple(x), -2) * weight).sum((-2, -1)), [torch.zeros(k) for k in sizes])
    race = Race(problem, {"reference": estimators.get("rloo", sizes=sizes)}, 0.5, silent)
    race.run()
    (entrant,) = race.entrants
    assert race.by == "estimates by reference"
    draws, truth = entrant.values("logits"), race.truth["logits"]
    assert len(truth) > 1
    rows = [{row.tobytes() for row in of} for of in (draws, truth)]
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
