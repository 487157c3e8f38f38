"""Temperatures: constant, along the run, and with the entropy of q."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import estimators
from estimators.base import Temperature

SITES = (torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64))
RELAXED = ("concrete", "straight_through", "gumbel_straight_through", "gumbel_rao", "reinmax")


@given(start=st.floats(1e-3, 10), end=st.floats(1e-3, 10), progress=st.floats(0, 1))
def test_along_a_run_it_goes_from_its_start_to_its_end(start: float, end: float, progress: float) -> None:
    geometric, linear = Temperature((start, end)), Temperature((start, end, "linear"))
    for temperature in (geometric, linear):
        temperature.anneal(progress)
    assert float(geometric(SITES)) == pytest.approx(
        math.exp((1 - progress) * math.log(start) + progress * math.log(end))
    )
    assert float(linear(SITES)) == pytest.approx((1 - progress) * start + progress * end)


def test_with_the_entropy_it_is_the_start_where_q_is_uniform_and_the_end_where_it_has_decided() -> None:
    temperature = Temperature((1.0, 0.1, "entropy"))
    uniform = tuple(torch.zeros_like(site) for site in SITES)
    peaked = tuple(torch.eye(len(site), dtype=torch.float64)[0] * 200 for site in SITES)
    assert float(temperature(uniform)) == pytest.approx(1.0)
    assert float(temperature(peaked)) == pytest.approx(0.1)
    p = [torch.softmax(site, 0) for site in SITES]
    h = sum(float(-(q * q.log()).sum()) / math.log(len(q)) for q in p) / 2
    assert float(temperature(SITES)) == pytest.approx(0.1 ** (1 - h))
    temperature.anneal(0.9)  # progress is nothing to it
    assert float(temperature(SITES)) == pytest.approx(0.1 ** (1 - h))


def test_a_site_of_one_category_has_nothing_to_decide_and_does_not_count() -> None:
    temperature = Temperature((1.0, 0.1, "entropy"))
    with_one = (*SITES, torch.zeros(1, dtype=torch.float64))
    assert float(temperature(with_one)) == float(temperature(SITES))
    assert float(temperature((torch.zeros(1),))) == pytest.approx(0.1)


@pytest.mark.parametrize("name", RELAXED)
def test_every_row_follows_its_own_entropy(name: str) -> None:
    """An estimate of several rows is that of each row alone, and none has a gradient through its temperature."""
    estimator = estimators.get(name, sizes=(3, 2), temperature=(1.0, 0.1, "entropy"))
    rows = tuple(torch.stack([site, 4 * site, 0 * site]) for site in SITES)
    noise = estimator.draw(rows, torch.Generator().manual_seed(0))

    def f(sample: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return (sample[0] * torch.arange(3.0)).sum(-1) ** 2 + sample[1][..., 0]

    together = estimator.estimate(f, rows, noise)
    row_of = -2  # every noise is (…, rows, K)
    for i in range(3):
        one = tuple(site[i] for site in rows)
        mine = (
            type(noise)(*[tuple(u.select(row_of, i) for u in part) for part in noise])
            if name == "gumbel_rao"
            else (tuple(u.select(row_of, i) for u in noise))
        )
        alone = estimator.estimate(f, one, mine)
        torch.testing.assert_close(together.loss[i], alone.loss)
        for a, b in zip(together.grads, alone.grads, strict=True):
            torch.testing.assert_close(a[i], b)


def test_a_forbidden_category_is_no_trouble() -> None:
    estimator = estimators.get("concrete", sizes=(3,), temperature=(1.0, 0.1, "entropy"))
    logits = (torch.tensor([0.0, -torch.inf, 0.0]),)
    found = estimator.estimate(lambda z: z[0][..., 0], logits, estimator.draw(logits, torch.Generator().manual_seed(1)))
    assert torch.isfinite(found.grads[0]).all() and found.grads[0][1] == 0
