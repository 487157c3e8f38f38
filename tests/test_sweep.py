"""The sweep: its expectation by enumeration of every draw, and the regression that it learns its table from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from oracles import Joint, enumerate_expectation, enumerate_weight_gradient
from torch import Tensor

import estimators
from estimators import regression, sweep
from estimators.base import Estimate
from estimators.objective import Objective
from estimators.sitewise import Stacked, layout_of, stacks

SIZES = (2, 3, 2)


class Other(Objective):
    """`Joint`, whose control is another function."""

    def __init__(self, sizes: Sequence[int], rows: tuple[int, ...]) -> None:
        self.joint = Joint(sizes, rows)

    def __call__(self, sample: Sequence[Tensor], /) -> Tensor:
        return self.joint(sample)

    def control(self, sample: Sequence[Tensor], /) -> Tensor:
        return (sample[0][..., 0] * sample[1][..., 2]).sin() + 2 * sample[2][..., 1] ** 2


def logits_of(sizes: Sequence[int]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)


def drawing(drawn: Tensor, sizes: Sequence[int]) -> Any:
    """A stand-in for `gumbel_argmax` that draws `(rows, 1 + max S, L)` categories, one outcome per row."""
    layout = layout_of(tuple(sizes))
    sites = [drawn[..., site].T.contiguous() for site in range(len(sizes))]
    return lambda logits, noise: Stacked(stacks(sites, layout), layout)


@pytest.mark.parametrize("slopes", [True, False])
@pytest.mark.parametrize("samples", [1, (1, 1, 2), (2, 2, 1)])
@pytest.mark.parametrize("steps", [0, 10])
@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_mean_over_every_draw_is_the_gradient(
    samples: int | tuple[int, ...], slopes: bool, rate: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every outcome of every draw and every coin, weighted by its probability; fresh and after some steps; in training
    mode."""
    logits = logits_of(SIZES)
    estimator = estimators.get("sweep", sizes=SIZES, samples=samples, slopes=slopes, rate=rate).double()
    single = Other(SIZES, ())
    for step in range(steps):
        estimator.estimate(single, logits, estimator.draw(logits, torch.Generator().manual_seed(step)))
    assert any(bool((table != 0).any()) for name, table in estimator.named_buffers() if "table" in name) == (steps > 0)
    assert isinstance(estimator, sweep.Sweep)
    turns = 1 + max(estimator.counts)
    ranges = [range(size) for size, count in zip(SIZES, estimator.counts, strict=True) for _ in range(1 + count)]
    draws = len(ranges)
    if rate < 1:
        ranges += [range(2)] * len(SIZES)
    outcomes = list(itertools.product(*ranges))
    drawn, chance = torch.zeros(len(outcomes), turns, len(SIZES), dtype=torch.int64), torch.ones(len(outcomes)).double()
    flat, at = torch.tensor(outcomes), 0
    for site, count in enumerate(estimator.counts):
        p = torch.softmax(logits[site], -1)
        for turn in range(1 + count):  # what no count asks for stays at category 0, and must not matter
            drawn[:, turn, site] = flat[:, at]
            chance *= p[flat[:, at]]
            at += 1
    assert at == draws
    for coin in flat[:, draws:].T:
        chance *= torch.where(coin == 1, rate, 1 - rate)
    torch.testing.assert_close(chance.sum(), torch.ones((), dtype=torch.float64))
    objective = Other(SIZES, (len(outcomes),))
    rows = tuple(site.expand(len(outcomes), -1) for site in logits)
    monkeypatch.setattr(sweep, "gumbel_argmax", drawing(drawn, SIZES))
    noise = estimator.draw(rows)
    for u, coin in zip(noise, flat[:, draws:].T, strict=False):
        u[turns, :, 0] = torch.where(coin == 1, rate / 2, (1 + rate) / 2)
    found: Estimate = estimator.estimate(objective, rows, noise)
    value, truth = enumerate_expectation(single, logits)
    torch.testing.assert_close((chance * found.loss).sum(), value)
    for mine, right in zip(found.grads, truth, strict=True):
        torch.testing.assert_close((chance.unsqueeze(-1) * mine).sum(0), right, rtol=1e-9, atol=1e-12)
    assert objective.joint.weight.grad is not None
    torch.testing.assert_close(
        (chance * objective.joint.weight.grad).sum(), enumerate_weight_gradient(single.joint, logits)
    )


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_the_table_is_a_ridge_regression_of_earlier_differences(rate: float) -> None:
    """Against numpy, on the observations themselves: deviations from their mean, each step counting 0.9 of the next."""
    sizes, decay = (4,), 0.9
    estimator = estimators.get("sweep", sizes=sizes, samples=2, decay=decay, rate=rate).double()
    decay = 1 - (1 - decay) * rate
    effect, slope = torch.tensor([0.3, -0.1, 0.5, 0.2]).double(), torch.tensor([1.0, 0.4, -0.7, 0.1]).double()
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class F(Objective):
        scale = 1.0

        def __call__(self, sample: Sequence[Tensor], /) -> Tensor:
            return sample[0] @ (effect + 0.5 * self.scale * slope) + 7

        def control(self, sample: Sequence[Tensor], /) -> Tensor:
            return self.scale * sample[0] @ slope

    logits, generator = logits_of(sizes), torch.Generator().manual_seed(1)
    for step in range(30):
        f = F()
        f.scale = 1 + step % 3
        noise = estimator.draw(logits, generator)
        index = sweep.gumbel_argmax(logits, [noise[0][:3]])[0]
        if rate < 1 and noise[0][3, 0] >= rate:
            index = index[:1].expand(3)
        estimator.estimate(f, logits, noise)
        z = np.eye(4)[index.numpy()]
        y = z @ (effect + 0.5 * f.scale * slope).numpy()
        features = np.concatenate([z, (z @ (f.scale * slope).numpy())[:, None]], 1)
        seen.append((features - features.mean(0), y - y.mean()))
    weights = decay ** np.arange(len(seen))[::-1]
    gram = sum(w * x.T @ x for w, (x, _) in zip(weights, seen, strict=True))
    moment = sum(w * x.T @ y for w, (x, y) in zip(weights, seen, strict=True))
    square = gram[-1, -1] / (rate * weights.sum())
    ridge = np.diag([1.0] * 4 + [regression.PRIOR * square])
    moment[-1] += regression.PRIOR * square  # towards α = 1
    expected = np.linalg.solve(gram + ridge, moment)
    np.testing.assert_allclose(estimator.regressions[0].table[0], expected[:-1], rtol=1e-8)
    np.testing.assert_allclose(float(estimator.regressions[0].alpha[0]), expected[-1], rtol=1e-8)


def test_slopes_next_to_nothing_bring_no_great_alpha() -> None:
    """As where a relaxation saturates: a huge multiple would fit, and multiply the next slope that is not small."""
    estimator = estimators.get("sweep", sizes=(4,)).double()
    effect, slope = torch.tensor([1.0, -1.0, 0.5, 0.0]).double(), torch.tensor([0.3, -1.2, 0.5, 0.4]).double()

    class F(Objective):
        scale = 1e-6

        def __call__(self, sample: Sequence[Tensor], /) -> Tensor:
            return sample[0] @ effect

        def control(self, sample: Sequence[Tensor], /) -> Tensor:
            return self.scale * sample[0] @ slope

    logits, generator, f = logits_of((4,)), torch.Generator().manual_seed(1), F()
    for step in range(40):
        f.scale = 1e-6 if step < 20 else 1.0
        _, grads = estimator.estimate(f, logits, estimator.draw(logits, generator))
        assert float(grads[0].abs().max()) < 5
        assert regression.RANGE[0] <= float(estimator.regressions[0].alpha) <= regression.RANGE[1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
@pytest.mark.parametrize("where", ["value", "slope"])
def test_a_step_that_went_wrong_is_not_remembered_for_good(where: str, bad: float) -> None:
    estimator = estimators.get("sweep", sizes=SIZES)
    logits, generator = tuple(site.float() for site in logits_of(SIZES)), torch.Generator().manual_seed(1)
    weights = [torch.randn(size, generator=generator) for size in SIZES]

    class F(Objective):
        factor: ClassVar[dict[str, float]] = {}

        def __call__(self, sample: Sequence[Tensor], /) -> Tensor:
            return self.factor["value"] * sum(x @ w for x, w in zip(sample, weights, strict=True))

        def control(self, sample: Sequence[Tensor], /) -> Tensor:
            return self.factor["slope"] * sum(x @ w for x, w in zip(sample, weights, strict=True))

    f = F()
    for step in range(6):
        f.factor = {"value": 1.0, "slope": 1.0} | ({where: bad} if step == 3 else {})
        _, grads = estimator.estimate(f, logits, estimator.draw(logits, generator))
    assert all(bool(torch.isfinite(site).all()) for site in grads)
    assert all(bool(torch.isfinite(buffer).all()) for buffer in estimator.buffers())


def test_many_rows_leave_the_regression_positive() -> None:
    estimator = estimators.get("sweep", sizes=(3,), samples=6, slopes=False)
    logits = (torch.zeros(3000, 3),)
    for step in range(5):
        estimator.estimate(
            lambda x: x[0][..., 0] + 5, logits, estimator.draw(logits, torch.Generator().manual_seed(step))
        )
    assert (
        float(torch.linalg.eigvalsh(estimator.regressions[0].gram[:, :-1, :-1] + torch.eye(3).double()).min()) > 0.999
    )


def test_an_additive_objective_that_is_known_leaves_no_variance() -> None:
    """f = Σ_l u_l(z_l): once the table has it, two estimates of other draws agree."""
    sizes = (3, 4)
    effects = [torch.tensor([0.2, -1.0, 0.4]).double(), torch.tensor([1.0, 0.3, -0.6, 0.1]).double()]

    def f(sample: Sequence[Tensor]) -> Tensor:
        return sample[0] @ effects[0] + sample[1] @ effects[1]

    estimator = estimators.get("sweep", sizes=sizes, slopes=False, decay=0.999).double()
    logits, generator = logits_of(sizes), torch.Generator().manual_seed(1)

    def spread() -> float:
        estimator.eval()
        draws = [
            torch.cat(list(estimator.estimate(f, logits, estimator.draw(logits, generator)).grads)) for _ in range(50)
        ]
        estimator.train()
        return float(torch.stack(draws).var(0).sum())

    before = spread()
    for _ in range(2000):
        estimator.estimate(f, logits, estimator.draw(logits, generator))
    assert spread() < 1e-3 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "sweep: samples must be a whole number or several whole numbers ≥ 1, got 0"),
        ({"samples": (1, 2)}, "samples must be a positive integer, or one for each of the 3 sites"),
        ({"samples": (1, 2, 0)}, "several whole numbers ≥ 1, got"),
        ({"samples": (1, 2, 1.5)}, "several whole numbers ≥ 1, got"),
        ({"samples": 2.0}, "several whole numbers ≥ 1, got 2.0"),
        ({"samples": None}, "several whole numbers ≥ 1, got None"),
        ({"samples": "11"}, "several whole numbers ≥ 1, got '11'"),
        ({"rate": 0.0}, r"sweep: rate must be a number > 0 and ≤ 1, got 0.0"),
        ({"rate": 1.5}, r"sweep: rate must be a number > 0 and ≤ 1, got 1.5"),
        ({"rate": True}, r"sweep: rate must be a number > 0 and ≤ 1, got True"),
        ({"rate": "often"}, r"sweep: rate must be a number > 0 and ≤ 1, got 'often'"),
        ({"decay": 1.0}, r"sweep: decay must be a number ≥ 0 and < 1, got 1.0"),
        ({"decay": "slow"}, r"sweep: decay must be a number ≥ 0 and < 1, got 'slow'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimators.get("sweep", sizes=SIZES, **options)


def test_a_site_without_its_coin_is_evaluated_at_the_sample_itself() -> None:
    """Of it nothing is computed anew and nothing learned, whatever the last bits of f are; each site has its coin."""
    sizes, rate, rows = (4, 4, 3), 0.5, 200
    estimator = estimators.get("sweep", sizes=sizes, samples=6, rate=rate)
    logits = tuple(site.float().expand(rows, -1) for site in logits_of(sizes))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(size, generator=generator) for size in sizes]

    class F(Objective):
        def __call__(self, sample: Sequence[Tensor], /) -> Tensor:
            return sum((x @ w for x, w in zip(sample, weights, strict=True)), torch.zeros(()))

        def around(self, index: Sequence[Tensor], others: Sequence[Tensor], /) -> tuple[Tensor, Tensor]:
            self.index, self.others = torch.stack(tuple(index), -1), torch.stack(tuple(others), -1)
            loss, values = (sum(w[i] for i, w in zip(z, weights, strict=True)) for z in (index, others))
            return loss, values * (1 + 1e-6 * torch.randn(values.shape, generator=generator))

    f = F()
    noise = estimator.draw(logits, generator)
    coins = torch.stack([u[7, :, 0] < rate for u in noise], -1)
    assert len(coins.unique(dim=0)) == 2 ** len(sizes)
    _, grads = estimator.estimate(f, logits, noise)
    for site, coin in enumerate(coins.T):
        mine = f.others[6 * site : 6 * site + 6]
        changed = (mine != f.index).any(0)
        assert not changed[~coin].any()
        assert changed[coin, site].any()
        assert not changed.sum(0)[[other for other in range(len(sizes)) if other != site]].any()
        p, slope = torch.softmax(logits[site], -1), weights[site]
        expected = p * (slope - (p * slope).sum(-1, keepdim=True))  # α = 1, T = 0
        torch.testing.assert_close(grads[site][~coin], expected[~coin], rtol=0, atol=1e-6)
    none = estimators.get("sweep", sizes=sizes, samples=6, rate=rate)
    for u in noise:
        u[7] = 1.0
    none.estimate(f, logits, noise)
    assert not any(bool(buffer.any()) for name, buffer in none.named_buffers() if name.endswith(("gram", "moment")))
