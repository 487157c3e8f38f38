"""What gapped, reinmax_rao, reinmax_cv and hard_concrete say of themselves beside their means."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_site import PHI, SLOPE, jacobian, linear
from oracles import seeded
from torch import Tensor

import estimators
from estimators.hard_concrete import onto_simplex
from estimators.noise import conditional_gumbel

# --- gapped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0, "expected"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_gapped_is_the_softmax_of_logits_whose_sample_leads_by_the_gap(gap: float | str, temperature: float) -> None:
    estimator = estimators.get("gapped", sizes=(4,), gap=gap, temperature=temperature)
    seen = set()
    for seed in range(100):
        noise = estimator.draw((PHI,), seeded(seed))
        at: list[int] = []

        def f(sample: Sequence[Tensor], at: list[int] = at) -> Tensor:
            at.append(int(sample[0].argmax()))
            return sample[0] @ SLOPE

        got = estimator.estimate(f, (PHI,), noise).grads[0]
        k = at[-1]
        seen.add(k)
        p = torch.softmax(PHI, -1)
        room = float(-torch.log(1 - p[k]) / p[k]) if gap == "expected" else float(gap)
        shifted = torch.minimum(PHI, PHI.max() - room)
        shifted[k] = PHI.max()
        others = torch.arange(4) != k
        assert bool((shifted[k] - shifted[others] >= room - 1e-12).all())
        expected = jacobian(torch.softmax(shifted / temperature, -1)) @ SLOPE / temperature
        torch.testing.assert_close(got, expected)
    assert seen == {0, 1, 2, 3}


def test_the_expected_gap_is_that_of_gumbel_noise() -> None:
    u = torch.rand(200_000, 4, generator=seeded(), dtype=torch.float64)
    noisy = PHI - torch.log(-torch.log(u))
    top = noisy.topk(2, -1)
    p = torch.softmax(PHI, -1)
    estimator = estimators.get("gapped", sizes=(4,), gap="expected")
    for k in range(4):
        gaps = (top.values[:, 0] - top.values[:, 1])[top.indices[:, 0] == k]
        assert abs(float(gaps.mean() - estimator._gap(p[k]))) < 5 * float(gaps.std()) / len(gaps) ** 0.5


def test_gapped_has_less_variance_than_gumbel_straight_through() -> None:
    def spread(name: str) -> float:
        estimator = estimators.get(name, sizes=(4,))
        rows = (PHI.expand(20_000, -1),)
        return float(estimator.estimate(linear(SLOPE), rows, estimator.draw(rows, seeded())).grads[0].var(0).sum())

    assert spread("gapped") < 0.7 * spread("gumbel_straight_through")


# --- reinmax_rao ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.3])
@pytest.mark.parametrize("k", [0, 2])
def test_reinmax_rao_averages_over_the_noise_that_gives_its_sample(k: int, temperature: float) -> None:
    """The average by rejection: Gumbel noise on log π, of which the draws with another argmax are left out."""
    z = torch.eye(4).double()[k]
    p = torch.softmax(PHI, -1)
    noisy = ((p + z) / 2).log() - torch.log(-torch.log(torch.rand(400_000, 4, generator=seeded(), dtype=torch.float64)))
    soft = torch.softmax(noisy[noisy.argmax(-1) == k] / temperature, -1)
    each = 2 * soft * (SLOPE - (soft @ SLOPE).unsqueeze(-1)) / temperature - jacobian(p) @ SLOPE / 2
    estimator = estimators.get("reinmax_rao", sizes=(4,), temperature=temperature, samples=100_000)
    u = torch.full((4,), 1e-9, dtype=torch.float64)
    u[k] = 1 - 1e-9
    noise = estimator.draw((PHI,), seeded(1))._replace(u=(u,))
    got = estimator.estimate(linear(SLOPE), (PHI,), noise).grads[0]
    error = each.std(0) * (1 / len(each) + 1 / 100_000) ** 0.5
    assert bool(((got - each.mean(0)).abs() < 5 * error).all())


# --- reinmax_cv -----------------------------------------------------------------------------------------------------


def through(noisy: Tensor, temperature: float) -> Tensor:
    """The derivative of softmax(x / t) · SLOPE at each x `(*lead, 4)`, by autograd."""
    x = noisy.clone().requires_grad_()
    (torch.softmax(x / temperature, -1) @ SLOPE).sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize(("temperature", "eta"), [(0.5, 0.5), (1.3, 1.5)])
def test_reinmax_cv_adds_the_difference_of_two_straight_through_estimates(temperature: float, eta: float) -> None:
    estimator = estimators.get("reinmax_cv", sizes=(4,), temperature=temperature, eta=eta, samples=7)
    reinmax = estimators.get("reinmax", sizes=(4,))
    p = torch.softmax(PHI, -1)
    seen = set()
    for seed in range(60):
        noise = estimator.draw((PHI,), seeded(seed))
        (u,), (v,) = noise
        gumbel = -torch.log(-torch.log(u))
        k = (PHI + gumbel).argmax()
        seen.add(int(k))
        shifted = ((p + torch.eye(4).double()[k]) / 2).log()
        control = through(conditional_gumbel(shifted.expand(7, -1), k.expand(7), v), temperature).mean(0)
        expected = reinmax.estimate(linear(SLOPE), (PHI,), noise.u).grads[0]
        expected = expected + eta * (control - through(shifted + gumbel, temperature))
        torch.testing.assert_close(estimator.estimate(linear(SLOPE), (PHI,), noise).grads[0], expected)
    assert seen == {0, 1, 2, 3}


def test_reinmax_cv_survives_a_low_temperature_in_fp32() -> None:
    estimator = estimators.get("reinmax_cv", sizes=(4,), temperature=0.01)
    rows = (PHI.float().expand(500, -1),)
    noise = estimator.draw(rows, seeded())
    got = estimator.estimate(lambda sample: sample[0] @ SLOPE.float(), rows, noise).grads[0]
    exact = tuple(tuple(site.double() for site in part) for part in noise)
    wide = estimator.estimate(linear(SLOPE), (rows[0].double(),), type(noise)(*exact)).grads[0]
    torch.testing.assert_close(got.double(), wide, rtol=1e-2, atol=1e-2)


def test_the_options_of_reinmax_cv_and_hard_concrete() -> None:
    cv, hard = (estimators.get(name, sizes=(4,)) for name in ("reinmax_cv", "hard_concrete"))
    assert (cv.eta, cv.samples, cv.temperature((PHI,))) == (0.5, 10, 0.5)
    assert (hard.stretch, hard.temperature((PHI,))) == (1.2, 2 / 3)
    with pytest.raises(ValueError, match="stretch"):
        estimators.get("hard_concrete", sizes=(4,), stretch=0.5)


def test_the_control_variate_of_reinmax_cv_has_a_mean() -> None:
    """Its noise is drawn given the argmax at other logits, as its docstring says. `reinmax` is exact for a linear f."""
    rows = (PHI.expand(100_000, -1),)
    exact = jacobian(torch.softmax(PHI, -1)) @ SLOPE
    error = {}
    for eta in (0.0, 1.0):
        estimator = estimators.get("reinmax_cv", sizes=(4,), eta=eta)
        got = estimator.estimate(linear(SLOPE), rows, estimator.draw(rows, seeded())).grads[0]
        error[eta] = ((got.mean(0) - exact) / (got.std(0) / len(got) ** 0.5)).abs().max()
    assert error[0.0] < 5 < error[1.0]


# --- hard_concrete --------------------------------------------------------------------------------------------------


def test_hard_concrete_is_the_gate_of_louizos_et_al_at_two_categories() -> None:
    """z = clip((ζ − γ) σ((L + log α) / β) + γ, 0, 1) with a logistic L, and P(z = 0) = σ(β log(−γ / ζ) − log α)."""
    beta, low, high = 0.4, -0.1, 1.1
    logits = (torch.tensor([0.3, -0.5], dtype=torch.float64).expand(50_000, -1),)
    estimator = estimators.get("hard_concrete", sizes=(2,), temperature=beta, stretch=high - low)
    (u,) = noise = estimator.draw(logits, seeded())
    seen: list[Tensor] = []

    def f(sample: Sequence[Tensor]) -> Tensor:
        seen.append(sample[0].detach())
        return (sample[0][..., 0] - 0.3).square() + sample[0][..., 0] * sample[0][..., 1]

    got = estimator.estimate(f, logits, noise).grads[0]
    alpha = (logits[0][:, 0] - logits[0][:, 1]).requires_grad_()
    gumbel = -torch.log(-torch.log(u))
    gate = (torch.sigmoid((gumbel[:, 0] - gumbel[:, 1] + alpha) / beta) * (high - low) + low).clamp(0, 1)
    ((gate - 0.3).square() + gate * (1 - gate)).sum().backward()
    assert alpha.grad is not None
    torch.testing.assert_close(seen[0], torch.stack([gate, 1 - gate], -1).detach())
    torch.testing.assert_close(got, torch.stack([alpha.grad, -alpha.grad], -1))
    closed = torch.sigmoid(beta * torch.log(torch.tensor(-low / high)) - alpha[0]).item()
    assert abs((gate == 0).double().mean().item() - closed) < 5 * (closed * (1 - closed) / len(u)) ** 0.5


def test_hard_concrete_is_the_derivative_of_f_at_its_sample() -> None:
    """By central differences, with the noise held; a difference across a corner of the projection is left out."""
    estimator = estimators.get("hard_concrete", sizes=(4,), stretch=1.5)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def value(phi: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []

        def f(sample: Sequence[Tensor]) -> Tensor:
            seen.append(sample[0].detach())
            return (sample[0] @ weights).sin()

        estimate = estimator.estimate(f, (phi,), noise)
        return estimate.loss, estimate.grads[0], seen[0] > 0

    sizes = set()
    for seed in range(60):
        noise = estimator.draw((PHI,), seeded(seed))
        _, grad, support = value(PHI, noise)
        for i, step in enumerate(1e-5 * torch.eye(4, dtype=torch.float64)):
            (above, _, one), (below, _, other) = value(PHI + step, noise), value(PHI - step, noise)
            if torch.equal(one, support) and torch.equal(other, support):
                assert abs(float((above - below) / 2e-5 - grad[i])) < 1e-7
                sizes.add(int(support.sum()))
    assert sizes == {1, 2, 3, 4}


def test_hard_concrete_without_a_stretch_is_concrete() -> None:
    ours = estimators.get("hard_concrete", sizes=(4,), temperature=0.7, stretch=1.0)
    concrete = estimators.get("concrete", sizes=(4,), temperature=0.7)
    noise = ours.draw((PHI,), seeded())
    f = lambda sample: (sample[0] @ SLOPE).exp()  # noqa: E731
    torch.testing.assert_close(ours.estimate(f, (PHI,), noise).grads, concrete.estimate(f, (PHI,), noise).grads)


def test_a_forbidden_category_is_never_in_a_hard_concrete_sample() -> None:
    """Without a stretch the threshold of the projection is 0 but for rounding. f has no slope there."""
    phi = torch.randn(1000, 6, generator=seeded())
    phi[:, 2:4] = -torch.inf
    estimator = estimators.get("hard_concrete", sizes=(6,), stretch=1.0)
    seen: list[Tensor] = []

    def f(sample: Sequence[Tensor]) -> Tensor:
        seen.append(sample[0].detach())
        return sample[0].sqrt().sum(-1)

    got = estimator.estimate(f, (phi,), estimator.draw((phi,), seeded(1))).grads[0]
    assert not seen[0][:, 2:4].any() and not got[:, 2:4].any()
    assert bool(torch.isfinite(got).all())


def test_the_projection_of_nan_is_nan() -> None:
    assert bool(onto_simplex(torch.tensor([torch.nan, 1.0])).isnan().any())


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=7))
def test_the_projection_is_the_nearest_point_of_the_simplex(y: list[float]) -> None:
    """z is nearest if and only if (y − z)·(w − z) ≤ 0 for every corner w."""
    point = torch.tensor(y, dtype=torch.float64)
    z = onto_simplex(point)
    assert bool((z >= 0).all())
    assert abs(float(z.sum()) - 1) < 1e-9
    assert bool(((point - z) @ (torch.eye(len(y)).double() - z).T < 1e-6).all())
