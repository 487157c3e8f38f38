"""Prefix masks: what Eq. 6 promises, for any sample.

Rounding: a sum of K numbers in [0, 1] that add up to 1 is wrong by less than K ε, so bounds hold to K ε. That the mask
does not increase holds exactly, because adding a number that is not negative never rounds below what it is added to.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor

from vmo.masks import prefix_mask

categories = st.integers(1, 700)
steps = st.integers(1, 5)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@given(
    seed=seeds, k=categories, step=steps, spread=st.floats(0, 30), dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_a_soft_mask_falls_from_one_and_stays_in_the_unit_interval(
    seed: int, k: int, step: int, spread: float, dtype: torch.dtype
) -> None:
    mask = prefix_mask(torch.softmax(spread * normal(seed, 2, k, dtype=dtype), -1), step)
    tolerance = k * torch.finfo(dtype).eps
    assert mask.shape == (2, step * k) and mask.dtype == dtype
    assert (mask.diff(dim=-1) <= 0).all()
    assert (mask[:, 0] - 1).abs().max() <= tolerance
    assert mask.min() >= 0 and mask.max() <= 1 + tolerance


@given(data=st.data(), k=categories, step=steps)
def test_a_one_hot_sample_gives_exactly_its_width(data: st.DataObject, k: int, step: int) -> None:
    category = data.draw(st.integers(0, k - 1))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    sample = torch.zeros(k, dtype=dtype)
    sample[category] = 1
    width = (category + 1) * step
    assert prefix_mask(sample, step).tolist() == [1.0] * width + [0.0] * (step * k - width)


@given(seed=seeds, k=st.integers(2, 50), closeness=st.floats(0.5, 60))
def test_a_soft_mask_becomes_the_hard_one_as_the_temperature_falls(seed: int, k: int, closeness: float) -> None:
    """With the winner ahead by δ, softmax(z / t) leaves at most (K − 1) e^{−δ/t} to the others."""
    noise = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    z = normal(seed, k) - torch.log(-torch.log(noise))
    first, second = z.topk(2).values
    soft = prefix_mask(torch.softmax(z / ((first - second) / closeness), -1))
    hard = prefix_mask(torch.eye(k, dtype=torch.float64)[z.argmax()])
    assert (soft - hard).abs().max() <= (k - 1) * math.exp(-closeness) + k * 1e-15


@given(seed=seeds, k=st.integers(1, 40), step=st.integers(2, 5))
def test_a_step_repeats_every_gate(seed: int, k: int, step: int) -> None:
    sample = torch.softmax(normal(seed, 3, k), -1)
    fine, coarse = prefix_mask(sample), prefix_mask(sample, step)
    for i in range(step):
        assert torch.equal(coarse[:, i::step], fine)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    """In bfloat16 itself this sum of 640 numbers stops growing at 0.5 or so."""
    sample = torch.full((640,), 1 / 640, dtype=dtype)
    mask = prefix_mask(sample)
    assert mask.dtype == torch.float32
    expected = sample.double().flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(mask.double(), expected, rtol=640 * 2**-24, atol=0)


@given(seed=seeds, k=st.integers(1, 30), step=steps)
def test_gradient(seed: int, k: int, step: int) -> None:
    """∂(Σ_i c_i m_i) / ∂x_j = Σ_{i ≤ j} c_i: moving mass to category j opens the channels up to j."""
    sample, cotangent = torch.softmax(normal(seed, k), -1).requires_grad_(), normal(seed + 1, step * k)
    (slope,) = torch.autograd.grad(prefix_mask(sample, step), sample, cotangent)
    torch.testing.assert_close(slope, cotangent.view(k, step).sum(-1).cumsum(0))
