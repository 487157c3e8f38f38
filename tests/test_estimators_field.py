"""What imle, grpo, measure_valued and bitflip say of themselves beside their means; and ZGR."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from one_site import PHI, SLOPE, jacobian, linear
from oracles import LOGITS, Joint, enumerate_expectation, same, seeded, sizes_of
from torch import Tensor

import estimators
from estimators.bitflip import Noise

# --- imle -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_imle_is_a_finite_difference_of_the_softmax_in_the_mean(strength: float) -> None:
    estimator = estimators.get("imle", sizes=(4,), strength=strength)
    rows = (PHI.expand(100_000, -1),)
    got = estimator.estimate(linear(SLOPE), rows, estimator.draw(rows, seeded())).grads[0]
    step = strength / float(SLOPE.max() - SLOPE.min())
    expected = (torch.softmax(PHI, -1) - torch.softmax(PHI - step * SLOPE, -1)) / step
    assert bool(((got.mean(0) - expected).abs() < 5 * got.std(0) / len(got) ** 0.5).all())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_imle_is_the_difference_of_two_samples_of_one_noise(order: tuple[int, int]) -> None:
    """λ is that of the steepest site, in both sites and wherever that one is."""
    sites, slopes = (PHI, PHI[:3]), (SLOPE, torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))
    logits, steep = tuple(sites[i] for i in order), tuple(slopes[i] for i in order)
    step = 2.0 / 4.0
    estimator = estimators.get("imle", sizes=sizes_of(logits), strength=2.0)

    def additive(sample: Sequence[Tensor]) -> Tensor:
        return sample[0] @ steep[0] + sample[1] @ steep[1]

    changes = 0
    for seed in range(30):
        noise = estimator.draw(logits, seeded(seed))
        for phi, u, v, g in zip(logits, noise, steep, estimator.estimate(additive, logits, noise).grads, strict=True):
            noisy = phi - torch.log(-torch.log(u))
            one_hot = torch.eye(len(phi), dtype=torch.float64)
            torch.testing.assert_close(g, (one_hot[noisy.argmax()] - one_hot[(noisy - step * v).argmax()]) / step)
            changes += bool((g != 0).any())
    assert changes > 10


def test_imle_does_not_hide_a_slope_that_is_no_number() -> None:
    slope = torch.tensor([float("nan"), -0.3, 1.1, 0.2], dtype=torch.float64)
    estimator = estimators.get("imle", sizes=(4,))
    assert bool(estimator.estimate(linear(slope), (PHI,), estimator.draw((PHI,), seeded())).grads[0].isnan().all())


def test_imle_follows_the_scale_of_f() -> None:
    sizes = sizes_of(LOGITS["joint"])
    estimator, f = estimators.get("imle", sizes=sizes, strength=2.0), Joint(sizes)
    for seed in range(10):
        noise = estimator.draw(LOGITS["joint"], seeded(seed))
        one = estimator.estimate(f, LOGITS["joint"], noise).grads
        small = estimator.estimate(lambda z: 1e-6 * f(z), LOGITS["joint"], noise).grads
        for a, b in zip(one, small, strict=True):
            torch.testing.assert_close(1e-6 * a, b)


def test_imle_is_zero_where_no_sample_changes() -> None:
    estimator = estimators.get("imle", sizes=(4,))
    got = estimator.estimate(linear(torch.ones(4).double()), (PHI,), estimator.draw((PHI,), seeded())).grads[0]
    assert bool((got == 0).all())  # the same slope everywhere moves no argmax


# --- grpo -----------------------------------------------------------------------------------------------------------


def test_the_advantages_of_three_right_answers_in_eight() -> None:
    reward = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0], dtype=torch.float64)
    right, wrong = reward == 1, reward == 0
    divided = estimators.get("grpo", sizes=(2,)).advantages(reward)
    mean = estimators.get("grpo", sizes=(2,), divide=False).advantages(reward)
    assert [float(divided[right][0]), float(divided[wrong][0])] == pytest.approx([1.2076, -0.7246], abs=5e-5)
    assert [float(mean[right][0]), float(mean[wrong][0])] == pytest.approx([0.625, -0.375])
    one_out = mean * 8 / 7
    assert [float(one_out[right][0]), float(one_out[wrong][0])] == pytest.approx([0.7143, -0.4286], abs=5e-5)


@pytest.mark.parametrize("samples", [2, 8])
def test_advantages_are_bounded_however_small_the_deviation(samples: int) -> None:
    estimator = estimators.get("grpo", sizes=(2,), samples=samples)
    for scale in (0.0, 1e-300, 1e-12, 1e-3, 1.0, 1e9):
        reward = torch.full((samples,), 5.0, dtype=torch.float64)
        reward[0] += scale
        advantages = estimator.advantages(reward)
        assert float(advantages.abs().max()) <= (samples - 1) / samples**0.5 + 1e-9
        assert abs(float(advantages.sum())) < 1e-9
    assert bool((estimator.advantages(torch.full((samples,), 0.1)) == 0).all())


def test_epsilon_is_added_to_the_deviation() -> None:
    """Deviations of ±ε, so that σ̂ = √2 ε."""
    advantages = estimators.get("grpo", sizes=(2,), samples=2).advantages(torch.tensor([0.0, 2e-6]).double())
    assert float(advantages[1]) == pytest.approx(1 / (2**0.5 + 1), rel=1e-6)


@pytest.mark.parametrize("name", ["rloo", "vargrad", "grpo", "vimco", "disarm_bound"])
def test_the_loss_is_the_mean_over_the_samples(name: str) -> None:
    sizes = sizes_of(LOGITS["joint"])
    estimator, f = estimators.get(name, sizes=sizes, samples=3), Joint(sizes)
    values: list[Tensor] = []

    def watched(sample: Sequence[Tensor]) -> Tensor:
        values.append(f(sample))
        return values[-1]

    found = estimator.estimate(watched, LOGITS["joint"], estimator.draw(LOGITS["joint"], seeded()))
    torch.testing.assert_close(found.loss, values[0].detach().mean())


def test_without_the_division_it_is_a_part_of_leave_one_out() -> None:
    logits, sizes = LOGITS["joint"], sizes_of(LOGITS["joint"])
    grpo, rloo = (
        estimators.get("grpo", sizes=sizes, samples=5, divide=False),
        estimators.get("rloo", sizes=sizes, samples=5),
    )
    noise = grpo.draw(logits, seeded())
    got, other = (one.estimate(Joint(sizes), logits, noise) for one in (grpo, rloo))
    for mine, whole in zip(got.grads, other.grads, strict=True):
        torch.testing.assert_close(mine, whole * 4 / 5)


def test_with_the_division_the_scale_of_f_does_not_matter() -> None:
    sizes = sizes_of(LOGITS["joint"])
    estimator, f = estimators.get("grpo", sizes=sizes), Joint(sizes)
    noise = estimator.draw(LOGITS["joint"], seeded())
    one, hundred = (estimator.estimate(lambda z, c=c: c * f(z), LOGITS["joint"], noise).grads for c in (1.0, 100.0))
    for a, b in zip(one, hundred, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("divide", [True, False])
def test_weights_train_on_the_mean_over_the_group(divide: bool) -> None:
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    estimator = estimators.get("grpo", sizes=(4,), samples=5, divide=divide)
    drawn: list[Tensor] = []

    def f(sample: Sequence[Tensor]) -> Tensor:
        drawn.append(sample[0].detach())
        return sample[0] @ weight

    estimator.estimate(f, (PHI,), estimator.draw((PHI,), seeded()))
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, drawn[0].mean(0))


# --- measure_valued and bitflip -------------------------------------------------------------------------------------


def test_measure_valued_has_no_variance_where_sites_do_not_interact() -> None:
    sizes = (2, 3, 4)
    logits = tuple(torch.randn(k, generator=seeded(k), dtype=torch.float64) for k in sizes)
    weights = [torch.randn(k, generator=seeded(10 + k), dtype=torch.float64) for k in sizes]

    def additive(sample: Sequence[Tensor]) -> Tensor:
        return sum(((x @ w) ** 3 for x, w in zip(sample, weights, strict=True)), torch.zeros(()).double())

    _, truth = enumerate_expectation(additive, logits)
    estimator = estimators.get("measure_valued", sizes=sizes)
    assert estimator.evaluations == 1 + 1 + 2 + 3
    for seed in range(5):
        same(estimator.estimate(additive, logits, estimator.draw(logits, seeded(seed))).grads, truth, "", 1e-9, 1e-12)


def test_measure_valued_has_the_least_variance_of_the_unbiased_that_sample() -> None:
    """On a joint objective, of those that use values alone."""
    logits, sizes = LOGITS["joint"], sizes_of(LOGITS["joint"])
    rows = tuple(site.expand(20_000, -1) for site in logits)
    f = Joint(sizes, (20_000,))

    def spread(name: str) -> float:
        estimator = estimators.get(name, sizes=sizes)
        return sum(float(g.var(0).sum()) for g in estimator.estimate(f, rows, estimator.draw(rows, seeded())).grads)

    least = spread("measure_valued")
    for name in ("rloo", "disarm", "carms", "unordered", "bitflip"):
        assert least < spread(name), name


def choice(sizes: Sequence[int], site: int, step: int) -> tuple[Tensor, ...]:
    """The noise of bitflip that chooses a site and, `step` + 1 categories on from the sample's, the other category."""
    v = [torch.full((k,), 0.1, dtype=torch.float64) for k in sizes]
    v[site][0] = 0.9
    v[site][-1] = (step + 0.5) / (sizes[site] - 1) if sizes[site] > 2 else 0.5
    return tuple(v)


def test_bitflip_averaged_over_the_choice_of_the_site_is_measure_valued() -> None:
    """On the same sample; for binary sites, where there is nothing else to choose."""
    sizes = (2, 2, 2)
    logits = tuple(torch.randn(2, generator=seeded(k), dtype=torch.float64) for k in range(3))
    f = Joint(sizes)
    flip, whole = (estimators.get(name, sizes=sizes) for name in ("bitflip", "measure_valued"))
    u = whole.draw(logits, seeded())
    grads = [flip.estimate(f, logits, Noise(u, choice(sizes, i, 0))).grads for i in range(3)]
    for i, site in enumerate(whole.estimate(f, logits, u).grads):
        torch.testing.assert_close(torch.stack([g[i] for g in grads]).mean(0), site)
        assert [bool((g[i] != 0).any()) for g in grads] == [i == j for j in range(3)]


def test_bitflip_by_enumeration_of_everything_that_it_draws() -> None:
    """Sizes 3 and 4: the mean over the sample, the site and the other category is the gradient, exactly."""
    sizes = (3, 4)
    logits = tuple(torch.randn(k, generator=seeded(k), dtype=torch.float64) for k in sizes)
    f = Joint(sizes)
    p = [torch.softmax(site, -1) for site in logits]
    _, truth = enumerate_expectation(f, logits)
    total = [torch.zeros_like(site) for site in logits]
    flip = estimators.get("bitflip", sizes=sizes)
    for z in itertools.product(*map(range, sizes)):
        u = tuple(torch.full((k,), 1e-3, dtype=torch.float64) for k in sizes)
        for site, k in zip(u, z, strict=True):
            site[k] = 1 - 1e-12  # wins
        for i, size in enumerate(sizes):
            for j in range(size - 1):
                chance = float(p[0][z[0]] * p[1][z[1]]) / 2 / (size - 1)
                noise = Noise(u, choice(sizes, i, j))
                for sum_, g in zip(total, flip.estimate(f, logits, noise).grads, strict=True):
                    sum_ += chance * g
    same(total, truth, "", 1e-9, 1e-12)


# --- ZGR ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["joint", "one_site", "peaked"])
def test_reinmax_at_temperature_one_is_zgr(space: str) -> None:
    """ZGR is half straight-through and half DARN with the mean as expansion point, ½ J(p) v + ½ (z − p)(z − p)ᵀ v
    (Shekhovtsov 2023, arXiv:2208.07270): ReinMax by another road, so that it has no row of its own."""
    logits, sizes = LOGITS[space], sizes_of(LOGITS[space])
    f, estimator = Joint(sizes), estimators.get("reinmax", sizes=sizes)
    for seed in range(5):
        noise = estimator.draw(logits, seeded(seed))
        seen: list[tuple[Tensor, ...]] = []

        def watched(sample: Sequence[Tensor], seen: list[tuple[Tensor, ...]] = seen) -> Tensor:
            seen.append(tuple(site.detach() for site in sample))
            return f(sample)

        got = estimator.estimate(watched, logits, noise).grads
        z = [site.clone().requires_grad_() for site in seen[-1]]
        slopes = torch.autograd.grad(f(z), z)
        for site, x, v, g in zip(logits, seen[-1], slopes, got, strict=True):
            p = torch.softmax(site, -1)
            torch.testing.assert_close(g, (jacobian(p) @ v + (x - p) * ((x - p) @ v)) / 2)
