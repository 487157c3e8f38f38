"""Uniform, Gumbel and conditional-Gumbel draws, and the temperature schedule."""

from __future__ import annotations

import math

import oracles
import pytest
import strategies
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import INF, seeded
from scipy import stats

import estimators
from estimators.base import Temperature
from estimators.noise import conditional_gumbel, gumbel, gumbel_argmax, one_hot, uniform

ALARM = 1e-6
"""False-alarm rate of each test of a distribution, shared among its comparisons."""

DISTRIBUTIONS = {
    "even": [0.25, 0.25, 0.25, 0.25],
    "skewed": [0.7, 0.2, 0.09, 0.01],
    "rare": [0.989, 0.01, 0.001],
    "two": [0.4, 0.6],
}
each_distribution = pytest.mark.parametrize("p", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)


def log_probabilities(p: list[float], rows: int) -> torch.Tensor:
    return torch.tensor(p, dtype=torch.float64).log().expand(rows, -1)


# --- distributions --------------------------------------------------------------------------------------------------


@each_distribution
def test_gumbel_argmax_draws_the_categories(p: list[float]) -> None:
    rows = 100_000
    log_p = (log_probabilities(p, rows) + 3,)  # unnormalised
    (index,) = gumbel_argmax(log_p, uniform(log_p, seeded()))
    counts = torch.bincount(index, minlength=len(p))
    assert stats.chisquare(counts, [rows * share for share in p]).pvalue > ALARM


@each_distribution
def test_conditional_draws_have_the_marginals_of_free_ones(p: list[float]) -> None:
    """z̃ ~ p(z | b), b ~ p, is distributed as z = log p + G: every entry Gumbel, and entries independent."""
    rows, size = 50_000, len(p)
    log_p = log_probabilities(p, rows)
    generator = seeded()
    (index,) = gumbel_argmax((log_p,), uniform((log_p,), generator))
    z = conditional_gumbel(log_p, index, *uniform((log_p,), generator))
    levels = torch.exp(-torch.exp(log_p - z))  # of Gumbel(log p_i): uniform if right
    for i in range(size):
        assert stats.kstest(levels[:, i].numpy(), "uniform").pvalue > ALARM / size**2
        for j in range(i):
            assert stats.pearsonr(levels[:, i], levels[:, j]).pvalue > ALARM / size**2
            extremes = levels[:, i].sub(0.5).abs(), levels[:, j].sub(0.5).abs()
            assert stats.pearsonr(*extremes).pvalue > ALARM / size**2


@pytest.mark.parametrize("p", [DISTRIBUTIONS["even"], DISTRIBUTIONS["skewed"]], ids=["even", "skewed"])
def test_conditional_draws_are_those_that_rejection_leaves(p: list[float]) -> None:
    """Given each winner: every entry, and the winner's lead over it, against z with that argmax."""
    size = len(p)
    for winner in range(size):
        log_p = log_probabilities(p, 1)[0]
        expected = oracles.conditional_by_rejection(log_p, winner, 100_000, seed=1)
        rows = log_p.expand(20_000, -1)
        index = torch.full((20_000,), winner)
        got = conditional_gumbel(rows, index, *uniform((rows,), seeded(2)))
        for i in range(size):
            pairs = [(got[:, i], expected[:, i])]
            pairs += [(got[:, winner] - got[:, i], expected[:, winner] - expected[:, i])] if i != winner else []
            for one, other in pairs:
                assert stats.ks_2samp(one.numpy(), other.numpy()).pvalue > ALARM / (2 * size**2)


def test_gumbel_is_gumbel() -> None:
    (u,) = uniform((torch.zeros(50_000, 1),), seeded())
    assert stats.kstest(gumbel(u.double()).flatten().numpy(), "gumbel_r").pvalue > ALARM


# --- values ---------------------------------------------------------------------------------------------------------


@given(data=st.data(), seed=strategies.seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_winner_wins(data: st.DataObject, seed: int, dtype: torch.dtype) -> None:
    """argmax z̃ = b always, for every b that has mass; finite wherever log p is, −inf where it is not."""
    (logits,) = data.draw(strategies.logits((data.draw(st.integers(1, 8)),), (50,), scale=20.0))
    log_p = torch.log_softmax(logits.to(dtype), -1)
    generator = seeded(seed)
    (index,) = gumbel_argmax((log_p,), uniform((log_p,), generator))
    z = conditional_gumbel(log_p, index, *uniform((log_p,), generator))
    best = z.gather(-1, index.unsqueeze(-1))
    assert bool((best == z.amax(-1, keepdim=True)).all())
    assert bool((torch.isfinite(z) == torch.isfinite(log_p)).all())
    assert z.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_conditional_draws_are_finite(dtype: torch.dtype) -> None:
    """First and second, with a forbidden category and with probabilities near the smallest that the dtype has."""
    logits = torch.tensor([[0.0, -INF, -90.0], [0.0, 3.0, -80.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    v = torch.tensor([[0.5, 0.2, 0.9], [1e-30, 0.5, 0.99], [1 - 1e-7, 1e-30, 0.5]], dtype=dtype)
    z = conditional_gumbel(torch.log_softmax(logits, -1), torch.tensor([0, 1, 0]), v)
    soft = torch.softmax(z / 0.5, -1)
    (first,) = torch.autograd.grad((soft**2).sum(), logits, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), logits)
    assert bool(torch.isfinite(first).all())
    assert bool(torch.isfinite(second).all())


@given(p=st.floats(0.05, 0.95), seed=strategies.seeds)
def test_the_gradient_of_a_conditional_draw_is_the_formula_s(p: float, seed: int) -> None:
    """∂z̃_i/∂p_i = e_i / (p_i (e_i + p_i e_b)) for a loser i, and 0 for the winner, with e = −log v."""
    probs = torch.tensor([p, 1 - p], dtype=torch.float64, requires_grad=True)
    (v,) = uniform((probs,), seeded(seed))
    z = conditional_gumbel(probs.log(), torch.tensor(0), v)
    e = -v.log()
    torch.testing.assert_close(z.detach(), -torch.log(torch.stack([e[0], e[1] / (1 - p) + e[0]])))
    (slope,) = torch.autograd.grad(z[1], probs)
    torch.testing.assert_close(
        slope, torch.stack([torch.zeros(()).double(), e[1] / ((1 - p) * (e[1] + (1 - p) * e[0]))])
    )


@given(
    seed=strategies.seeds,
    lead=st.sampled_from([(), (2,), (3, 2)]),
    rows=strategies.rows(),
    sizes=strategies.sizes(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_uniforms_lie_inside(
    seed: int, lead: tuple[int, ...], rows: tuple[int, ...], sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    logits = oracles.logits_like(sizes, rows, dtype=dtype)
    draws = uniform(logits, seeded(seed), lead)
    assert [u.shape for u in draws] == [(*lead, *rows, size) for size in sizes]
    for u in draws:
        assert u.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert bool(((u > 0) & (u < 1)).all())
        assert bool(torch.isfinite(gumbel(u)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_uniforms_are_clamped(dtype: torch.dtype, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.rand` may give 0, and 1 after rounding: neither reaches a logarithm."""
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, value, dtype=options["dtype"]))
    (u,) = uniform((torch.zeros(3, dtype=dtype),))
    assert bool(((u > 0) & (u < 1)).all())
    assert bool(torch.isfinite(gumbel(u)).all())


@given(data=st.data(), size=st.integers(1, 9), dtype=st.sampled_from([torch.bool, torch.float32, torch.bfloat16]))
def test_one_hot(data: st.DataObject, size: int, dtype: torch.dtype) -> None:
    rows = data.draw(strategies.rows())
    index = torch.randint(size, rows, generator=seeded(data.draw(strategies.seeds)))
    encoded = one_hot(index, size, dtype)
    assert encoded.dtype == dtype
    torch.testing.assert_close(encoded, torch.nn.functional.one_hot(index, size).to(dtype))


# --- temperature ----------------------------------------------------------------------------------------------------


@given(start=st.floats(1e-3, 10), end=st.floats(1e-3, 10), steps=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_temperature_goes_geometrically_between_its_ends(start: float, end: float, steps: list[float]) -> None:
    temperature = Temperature((start, end))
    assert float(temperature.value) == pytest.approx(start, rel=1e-6)
    seen = []
    for progress in [0.0, *sorted(steps), 1.0]:
        temperature.anneal(progress)
        seen.append(float(temperature.value))
        expected = math.exp((1 - progress) * math.log(start) + progress * math.log(end))
        assert seen[-1] == pytest.approx(expected, rel=1e-5)
    assert seen[0] == pytest.approx(start, rel=1e-6)
    assert seen[-1] == pytest.approx(end, rel=1e-6)
    assert seen == sorted(seen, reverse=start > end)


@given(value=st.floats(1e-3, 10), progress=st.floats(0, 1))
def test_a_number_is_a_constant_temperature(value: float, progress: float) -> None:
    temperature = Temperature(value)
    temperature.anneal(progress)
    assert float(temperature.value) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("value", [0, -1, INF, math.nan, (1,), (1, 2, 3), (0.1, 0), ("a", "b"), "ab", None, ()])
def test_wrong_temperatures_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^concrete: temperature must be a number or a pair of numbers .*> 0, got "):
        estimators.get("concrete", sizes=(2,), temperature=value)
