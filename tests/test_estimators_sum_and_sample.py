"""sum_and_sample, against enumeration of all that it draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from oracles import Joint, enumerate_expectation, same, seeded
from three_sites import SIZES, configurations, logits_of, wins
from torch import Tensor

import estimators
from estimators.algebra import log_probability
from estimators.sitewise import sitewise, stacked
from estimators.sum_and_sample import likeliest, outside

# --- sum_and_sample -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 7, 12])
@pytest.mark.parametrize("seed", range(3))
def test_the_likeliest_are_those_of_all_configurations(k: int, seed: int) -> None:
    logits = logits_of(seed)
    found, log_q = likeliest(sitewise(lambda s: log_probability(s - s.amax(-1, keepdim=True)), logits), k)
    q = configurations(logits)
    expected = sorted(q, key=lambda z: -q[z])[:k]
    assert [tuple(int(site[c]) for site in found) for c in range(k)] == expected
    torch.testing.assert_close(log_q.exp(), torch.tensor([q[z] for z in expected], dtype=torch.float64))


@pytest.mark.parametrize("top", [1, 3, 7])
def test_sum_and_sample_by_enumeration_of_what_it_draws(top: int) -> None:
    """The mean over v, one of those that are not summed, is the gradient, exactly."""
    logits, f = logits_of(1), Joint(SIZES)
    q = configurations(logits)
    rest = sorted(q, key=lambda z: -q[z])[top:]
    left = sum(q[z] for z in rest)
    _, truth = enumerate_expectation(f, logits)
    estimator = estimators.get("sum_and_sample", sizes=SIZES, top=top)
    total = [torch.zeros_like(site) for site in logits]
    for v in rest:
        for sum_, g in zip(total, estimator.estimate(f, logits, wins(v)).grads, strict=True):
            sum_ += q[v] / left * g
    same(total, truth, "", 1e-9, 1e-12)


@pytest.mark.parametrize("top", [1, 3])
def test_the_baseline_of_sum_and_sample_is_the_mean_over_those_summed(top: int) -> None:
    """One estimate by hand; any baseline that does not depend on v would leave the mean as it is."""
    logits, f = logits_of(1), Joint(SIZES)
    q = configurations(logits)
    order = sorted(q, key=lambda z: -q[z])
    summed, v = order[:top], order[top + 2]
    corners = {z: tuple(torch.eye(k, dtype=torch.float64)[c] for k, c in zip(SIZES, z, strict=True)) for z in order}
    value = {z: float(f(corner).detach()) for z, corner in corners.items()}
    mass = sum(q[c] for c in summed)
    baseline = sum(q[c] * value[c] for c in summed) / mass
    share = {**{c: q[c] for c in summed}, v: 1 - mass}
    found = estimators.get("sum_and_sample", sizes=SIZES, top=top).estimate(f, logits, wins(v)).grads
    for site, (phi, got) in enumerate(zip(logits, found, strict=True)):
        terms = [w * (value[z] - baseline) * (corners[z][site] - torch.softmax(phi, -1)) for z, w in share.items()]
        torch.testing.assert_close(got, torch.stack(terms).sum(0))


@pytest.mark.parametrize("top", [12, 50])
def test_with_every_configuration_summed_it_is_exact(top: int) -> None:
    logits, f = logits_of(2), Joint(SIZES)
    estimator = estimators.get("sum_and_sample", sizes=SIZES, top=top)
    assert estimator.evaluations == 12
    _, truth = enumerate_expectation(f, logits)
    same(estimator.estimate(f, logits, estimator.draw(logits, seeded())).grads, truth, "", 1e-9, 1e-12)


@pytest.mark.parametrize("top", [1, 4])
def test_the_sample_has_the_distribution_of_the_others(top: int) -> None:
    """60,000 samples; each frequency within 5 standard errors: 11 numbers, one false alarm in 150,000."""
    rows, logits = 60_000, logits_of(3)
    p = stacked(tuple(torch.softmax(site, -1).expand(rows, -1) for site in logits))
    q = configurations(logits)
    excluded = sorted(q, key=lambda z: -q[z])[:top]
    chosen, _ = likeliest(sitewise(torch.log, p), top)
    noise = estimators.get("reinforce", sizes=SIZES).draw(tuple(p), seeded())
    v, left = outside(p, chosen, noise)
    torch.testing.assert_close(left, torch.full((rows,), 1 - sum(q[z] for z in excluded), dtype=torch.float64))
    drawn = torch.stack([site[0] for site in v], -1)
    for z, mass in q.items():
        frequency = float((drawn == torch.tensor(z)).all(-1).double().mean())
        chance = 0.0 if z in excluded else mass / float(left[0])
        assert abs(frequency - chance) <= 5 * math.sqrt(chance * (1 - chance) / rows), z


def test_more_that_is_summed_leaves_less_variance() -> None:
    logits = tuple(site.expand(20_000, -1) for site in logits_of(4, 2.0))

    def spread(name: str, **options: object) -> float:
        estimator = estimators.get(name, sizes=SIZES, **options)
        found = estimator.estimate(Joint(SIZES, (20_000,)), logits, estimator.draw(logits, seeded()))
        return sum(float(g.var(0).sum()) for g in found.grads)

    found = [spread("sum_and_sample", top=top) for top in (1, 3, 6)]
    assert found == sorted(found, reverse=True)
    assert found[0] < 0.5 * spread("reinforce", baseline="none")


def test_f_is_not_asked_for_what_q_forbids() -> None:
    """More are to be summed than there are; each estimate is then exact."""
    logits = tuple(torch.tensor([0.3] + [-math.inf] * (k - 2) + [0.1], dtype=torch.float64) for k in SIZES)
    estimator = estimators.get("sum_and_sample", sizes=SIZES, top=9)

    def f(sample: Sequence[Tensor]) -> Tensor:
        assert not bool(sample[0][..., 1].any())
        return Joint(SIZES)(sample)

    _, truth = enumerate_expectation(Joint(SIZES), logits)
    for seed in range(5):
        same(estimator.estimate(f, logits, estimator.draw(logits, seeded(seed))).grads, truth, "", 1e-9, 1e-12)
