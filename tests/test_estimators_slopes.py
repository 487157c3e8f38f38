"""Where f has no slope in the sample: it is said once, and nothing that claims to be unbiased becomes biased."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from oracles import seeded
from torch import Tensor

import estimators
from estimators import labels

SIZES = (2, 2, 3)
TABLE = torch.randn(SIZES, generator=seeded(3), dtype=torch.float64)
LEFT = torch.randn(2, generator=seeded(4), dtype=torch.float64)
SLOPED = [
    "concrete", "straight_through", "gumbel_straight_through", "gumbel_rao", "reinmax", "muprop", "double_cv", "rodeo",
    "sweep", "rebar", "rebar[coupled=True]", "rebar[coupled=True, tuning=regression]", "relax[relaxed_objective=True]",
    "averaged", "averaged[of=rebar]", "partly_exact[of=rebar]", "gapped", "imle", "reinmax_rao", "reinmax_cv",
    "hard_concrete",
]  # fmt: skip
SLOPELESS = [
    "exact", "reinforce", "rloo", "nvil", "disarm", "carms", "arsm", "unordered", "vargrad", "relax", "partly_exact",
    "sweep[slopes=False]", "averaged[of=rloo]", "sum_and_sample", "vimco", "grpo", "measure_valued", "bitflip",
]  # fmt: skip


def lookup(sample: Sequence[Tensor]) -> Tensor:
    """An argmax in every site."""
    return TABLE[tuple(site.argmax(-1) for site in sample)]


def mixed(sample: Sequence[Tensor]) -> Tensor:
    """Smooth in the first site, an argmax in the second, which shares its stack, and in the third."""
    first = sample[0].double() @ LEFT
    return torch.sin(2 * first) * TABLE[0][sample[1].argmax(-1), sample[2].argmax(-1)]


def constant(sample: Sequence[Tensor]) -> Tensor:
    return torch.full(sample[0].shape[:-1], 1.5, dtype=torch.float64)


def smooth(sample: Sequence[Tensor]) -> Tensor:
    return torch.tanh(torch.cat(tuple(sample), -1).double().cumsum(-1)).sum(-1)


def logits_of(*rows: int) -> tuple[Tensor, ...]:
    return tuple(
        torch.randn(size, generator=seeded(i), dtype=torch.float64).expand(*rows, size).clone().requires_grad_()
        for i, size in enumerate(SIZES)
    )


def make(label: str) -> estimators.Estimator:
    return labels.parse(label).make(SIZES)


def warned(label: str, f: Callable[..., Tensor], calls: int = 3) -> list[str]:
    estimator, logits = make(label), logits_of()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(calls):
            estimator.backward(f, logits, generator=seeded())
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("label", SLOPED)
@pytest.mark.parametrize(("f", "which"), [(lookup, "any site"), (mixed, "sites 1, 2")])
def test_what_needs_a_slope_says_once_that_there_is_none(label: str, f: Any, which: str) -> None:
    said = warned(label, f)
    assert len(said) == 1
    assert "an argmax" in said[0].lower() and "rloo" in said[0]
    inner = make(label)
    effect = "stays unbiased" if inner.unbiased else "the estimate is 0 there"
    assert effect in said[0]
    if not label.startswith("partly_exact"):  # whose rest has other numbers
        assert which in said[0]


@pytest.mark.parametrize("label", SLOPELESS)
def test_what_needs_none_says_nothing(label: str) -> None:
    assert warned(label, lookup) == []


@pytest.mark.parametrize("label", [*SLOPED, *SLOPELESS])
def test_a_smooth_objective_is_no_cause_for_a_word(label: str) -> None:
    assert warned(label, smooth) == []


@pytest.mark.filterwarnings("ignore:.* and f has no slope in :UserWarning")
@pytest.mark.parametrize("label", [label for label in [*SLOPED, *SLOPELESS] if make(label).unbiased])
@pytest.mark.parametrize("f", [lookup, mixed, constant])
@pytest.mark.parametrize("trained", [0, 20])
def test_what_claims_to_be_unbiased_is(label: str, f: Any, trained: int) -> None:
    """The mean of 20,000 estimates within 5 standard errors of enumeration, 7 numbers: one false alarm in 250,000."""
    if label.startswith("vargrad"):
        pytest.skip("of another objective")
    estimator, generator = make(label).double(), seeded(9)
    control = list(estimator.parameters())
    optimizer = torch.optim.Adam(control, lr=0.05) if control else None
    for _ in range(trained):
        estimator.zero_grad()
        estimator.backward(f, logits_of(), generator=generator)
        if optimizer is not None:
            optimizer.step()
    rows = logits_of(20_000)
    found = estimator.eval().estimate(f, rows, estimator.draw(rows, generator))
    truth = estimators.get("exact", SIZES).estimate(f, logits_of(), ())
    for grads, exact in zip(found.grads, truth.grads, strict=True):
        error = grads.std(0) / len(grads) ** 0.5
        assert bool(((grads.mean(0) - exact).abs() <= 5 * error + 1e-12).all())


@pytest.mark.filterwarnings("ignore:.* and f has no slope in :UserWarning")
@pytest.mark.parametrize("label", ["rebar", "rebar[coupled=True]", "rebar[coupled=True, tuning=regression]"])
@pytest.mark.parametrize("f", [lookup, mixed])
def test_rebar_leaves_an_f_with_jumps_out_of_its_control_variate(label: str, f: Any) -> None:
    """What is left is f(b)(b − p), to the bit of a rounding."""
    estimator, logits = make(label).double(), logits_of(50)
    loss, grads = estimator.estimate(f, logits, estimator.draw(logits, seeded(1)))
    for grad, site in zip(grads, logits, strict=True):
        p = torch.softmax(site, -1)
        score = grad / loss.unsqueeze(-1) + p  # one-hot
        torch.testing.assert_close(score.sort(-1).values, torch.eye(site.shape[-1]).double()[-1].expand_as(score))


@pytest.mark.parametrize("label", [*SLOPED, *SLOPELESS])
@pytest.mark.parametrize("rows", [(), (4,)])
def test_a_plain_objective_may_concatenate_its_sites(label: str, rows: tuple[int, ...]) -> None:
    shapes = []

    def f(sample: Sequence[Tensor]) -> Tensor:
        shapes.append({site.shape[:-1] for site in sample})
        return torch.cat(tuple(sample), -1).double().square().sum(-1)

    loss = make(label).backward(f, logits_of(*rows), generator=seeded())
    assert loss.shape == rows
    assert all(len(leads) == 1 for leads in shapes)


def test_an_objective_that_broadcasts_gets_sites_as_they_come() -> None:
    class AsTheyCome:
        broadcasts = True
        seen: list[int] = []  # noqa: RUF012

        def __call__(self, sample: Sequence[Tensor]) -> Tensor:
            self.seen.append(len({site.shape[:-1] for site in sample}))
            return sum(site[..., 0] for site in sample)  # type: ignore[return-value]

    make("partly_exact").backward(AsTheyCome(), logits_of(4), generator=seeded())
    assert max(AsTheyCome.seen) > 1


def test_sites_of_one_shape_are_views() -> None:
    """No copy is made of a sample whose sites are brought to one leading shape."""
    from estimators.objective import adapt

    few, many = torch.rand(1, 5, 2), torch.rand(3, 5, 2)
    seen: list[Tensor] = []
    adapt(lambda sample: seen.extend(sample) or sample[0][..., 0], (2, 2), torch.float32)((few, many))  # type: ignore[func-returns-value]
    assert [site.shape for site in seen] == [(3, 5, 2), (3, 5, 2)]
    assert [site.data_ptr() for site in seen] == [few.data_ptr(), many.data_ptr()]


def test_each_kind_of_objective_is_looked_at_once() -> None:
    """A second kind is looked at as well, and the first is remembered."""
    estimator = make("muprop")
    logits = logits_of()
    estimator.backward(smooth, logits, generator=seeded())
    with pytest.warns(UserWarning, match="no slope in any site"):
        estimator.backward(lookup, logits, generator=seeded())
    assert sorted(map(len, estimator.blind.values())) == [0, 3]
