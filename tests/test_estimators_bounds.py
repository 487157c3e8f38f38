"""The estimators of a bound of several samples, against enumeration of all that they draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from oracles import Joint, seeded
from three_sites import SIZES, configurations, logits_of, wins
from torch import Tensor

import estimators
from estimators.base import Estimator

# --- bounds of several samples --------------------------------------------------------------------------------------


def bound(f: Joint, logits: Sequence[Tensor], samples: int) -> Tensor:
    """E of the bound over all tuples of samples, differentiable in the logits and in the weights of f."""
    log_p = [torch.log_softmax(site, -1) for site in logits]
    every = list(itertools.product(*map(range, SIZES)))
    index = torch.tensor(every)
    log_q = torch.stack([site[index[:, i]] for i, site in enumerate(log_p)]).sum(0)
    corners = tuple(torch.eye(k, dtype=torch.float64)[index[:, i]] for i, k in enumerate(SIZES))
    log_w = -(f(corners) + log_q)
    total = torch.zeros((), dtype=torch.float64)
    for chosen in itertools.product(range(len(every)), repeat=samples):
        at = list(chosen)
        total = total - log_q[at].sum().exp() * (torch.logsumexp(log_w[at], 0) - math.log(samples))
    return total


def proven(
    estimator: Estimator, logits: Sequence[Tensor], chance: Tensor, noise: Sequence[Tensor], samples: int
) -> None:
    """The mean of the estimates for rows of noise, with these chances, is the gradient of the bound.

    Both in the logits and in the weights of f.
    """
    f, rows = Joint(SIZES), len(chance)
    of = [site.clone().requires_grad_() for site in logits]
    truth = torch.autograd.grad(bound(f, of, samples), [*of, f.weight])
    assert float(chance.sum()) == pytest.approx(1, abs=1e-12)
    each = Joint(SIZES, (rows,))
    grads = [*estimator.estimate(each, tuple(site.expand(rows, -1) for site in logits), noise).grads, each.weight.grad]
    for g, expected in zip(grads, truth, strict=True):
        assert g is not None
        torch.testing.assert_close((chance.view(-1, *(1,) * (g.dim() - 1)) * g).sum(0), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "samples"),
    [
        ("vimco", {}, 2),
        ("vimco", {}, 3),
        ("ovis", {}, 2),
        ("ovis", {"gamma": 0.0}, 2),
        ("ovis", {"gamma": 0.0}, 3),
    ],
)
def test_the_gradient_of_a_bound_by_enumeration_of_all_samples(name: str, options: Any, samples: int) -> None:
    logits = logits_of(5)
    q = configurations(logits)
    estimator = estimators.get(name, sizes=SIZES, samples=samples, **options)
    tuples = list(itertools.product(q, repeat=estimator.evaluations))
    chance = torch.tensor([math.prod(q[z] for z in chosen) for chosen in tuples], dtype=torch.float64)
    noise = tuple(
        torch.stack([torch.stack([wins(z)[i] for z in chosen]) for chosen in tuples], 1) for i in range(len(SIZES))
    )
    proven(estimator, logits, chance, noise, samples)


def test_disarm_for_a_bound_by_enumeration_of_all_that_its_coins_decide() -> None:
    """An estimate is constant between the points 1 − P(up) and P(up) of every coin; the last coin decides nothing."""
    logits = logits_of(5)
    cells: list[list[tuple[float, float]]] = []  # of every coin: the middle of each interval, and its length
    for site in logits:
        p = torch.softmax(site, -1).sort().values
        for i in range(len(p)):
            up = float(p[i] / p[i:].sum())
            cuts = sorted({0.0, up, 1 - up, 1.0})
            pairs = [((low + high) / 2, high - low) for low, high in itertools.pairwise(cuts)]
            cells.append(pairs if i < len(p) - 1 else [(0.5, 1.0)])
    both = [first + second for first in itertools.product(*cells) for second in itertools.product(*cells)]
    chance = torch.tensor([math.prod(length for _, length in row) for row in both], dtype=torch.float64)
    at = torch.tensor([[middle for middle, _ in row] for row in both], dtype=torch.float64)
    noise = tuple(at.view(len(both), 2, -1).movedim(1, 0).split(SIZES, -1))
    proven(estimators.get("disarm_bound", sizes=SIZES), logits, chance, noise, 2)


DRAWN = [(0, 1, 0), (2, 0, 1), (1, 1, 1)]


def importance(logits: Sequence[Tensor], f: Joint) -> Tensor:
    """w of the samples `DRAWN`."""
    log_p = [torch.log_softmax(site, -1) for site in logits]
    corners = tuple(torch.eye(k, dtype=torch.float64)[[z[i] for z in DRAWN]] for i, k in enumerate(SIZES))
    log_q = torch.stack([x @ q for x, q in zip(corners, log_p, strict=True)]).sum(0)
    return torch.exp(-f(corners).detach() - log_q)


def check_weights(name: str, options: Any, expected: Sequence[Tensor]) -> None:
    """The weights of the scores of `DRAWN`, in one estimate."""
    logits, f = logits_of(6), Joint(SIZES)
    noise = tuple(torch.stack([wins(z)[i] for z in DRAWN]) for i in range(len(SIZES)))
    got = estimators.get(name, sizes=SIZES, **options).estimate(f, logits, noise).grads[0]
    p, one_hot = torch.softmax(logits[0], -1), torch.eye(SIZES[0], dtype=torch.float64)
    terms = [weight * (one_hot[z[0]] - p) for weight, z in zip(expected, DRAWN, strict=False)]
    torch.testing.assert_close(got, torch.stack(terms).sum(0))


def test_the_baseline_of_vimco_has_the_geometric_mean_of_the_others() -> None:
    """Three samples, by hand; any baseline of the others would leave the mean as it is."""
    w = importance(logits_of(6), Joint(SIZES))
    expected = []
    for s in range(3):
        others = [w[r] for r in range(3) if r != s]
        without = (others[0] + others[1] + (others[0] * others[1]).sqrt()) / 3
        expected.append(-w.mean().log() + without.log() + w[s] / w.sum())
    check_weights("vimco", {"samples": 3}, expected)


def test_the_control_variate_of_ovis_is_the_mean_over_what_replaces_a_sample() -> None:
    """Two samples, and one that replaces each of them in turn, by hand."""
    w = importance(logits_of(6), Joint(SIZES))
    whole = w[0] + w[1]
    expected = []
    for s in range(2):
        replaced = w[1 - s] + w[2]
        expected.append(-(whole / 2).log() + w[s] / whole + (replaced / 2).log() - w[2] / replaced)
    check_weights("ovis", {"samples": 2}, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_the_control_variate_of_ovis_for_many_samples(gamma: float) -> None:
    """c_s = log Ẑ_{−s} − γ v_s + (1−γ) log (1−1/S), equation 17 of the paper."""
    w = importance(logits_of(6), Joint(SIZES))
    expected = []
    for s in range(3):
        v = w[s] / w.sum()
        control = ((w.sum() - w[s]) / 2).log() - gamma * v + (1 - gamma) * math.log(2 / 3)
        expected.append(-w.mean().log() + v + control)
    check_weights("ovis", {"samples": 3, "gamma": gamma}, expected)


def test_auxiliary_samples_are_averaged_and_train_nothing() -> None:
    """With R = 2 the estimate is the mean of those with each auxiliary sample alone, and so is f's weight gradient."""
    logits = logits_of(7)
    two = estimators.get("ovis", sizes=SIZES, auxiliary=2)
    noise = two.draw(logits, seeded())
    found = []
    for kept in ([0, 1, 2, 3], [0, 1, 2], [0, 1, 3]):
        f = Joint(SIZES)
        estimator = estimators.get("ovis", sizes=SIZES, auxiliary=len(kept) - 2)
        loss, grads = estimator.estimate(f, logits, tuple(u[kept] for u in noise))
        assert f.weight.grad is not None
        found.append((loss, f.weight.grad, *grads))
    for both, first, second in zip(*found, strict=True):
        torch.testing.assert_close(both, (first + second) / 2)
    torch.testing.assert_close(found[1][:2], found[2][:2])


def test_control_variates_take_most_of_the_variance_away() -> None:
    """With 8 samples `vimco` leaves the weight of every score near 1/8, and the others near 0."""
    logits = tuple(site.expand(20_000, -1) for site in logits_of(4))

    def spread(name: str, **options: object) -> float:
        estimator = estimators.get(name, sizes=SIZES, samples=8, **options)
        found = estimator.estimate(Joint(SIZES, (20_000,)), logits, estimator.draw(logits, seeded()))
        return sum(float(g.var(0).sum()) for g in found.grads)

    vimco, one, twenty = spread("vimco"), spread("ovis"), spread("ovis", auxiliary=20)
    assert twenty < 0.8 * one
    assert max(one, spread("ovis", gamma=0.0), spread("disarm_bound")) < vimco / 5


def test_both_sets_of_the_others_count_in_disarm_for_a_bound() -> None:
    """With 1 − u for u every sample and its partner change places, which leaves the average of the two as it is."""
    logits = logits_of(8)
    estimator = estimators.get("disarm_bound", sizes=SIZES, samples=3)
    noise = estimator.draw(logits, seeded())
    found = [estimator.estimate(Joint(SIZES), logits, u).grads for u in (noise, tuple(1 - site for site in noise))]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gamma_leaves_no_room_for_auxiliary_samples() -> None:
    assert estimators.get("ovis", sizes=SIZES, samples=3, gamma=1.0).evaluations == 3
    with pytest.raises(ValueError, match="with gamma there are no auxiliary samples, got gamma=1, auxiliary=2"):
        estimators.get("ovis", sizes=SIZES, gamma=1.0, auxiliary=2)
