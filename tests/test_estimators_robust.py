"""Estimators on models with very many sites, on objectives that change, and on input that is wrong."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import estimators
from estimators.unordered import _ratios


class Switched(torch.nn.Module):
    """Linear in the sample; without a slope while `cut` is set."""

    cut = False

    def forward(self, sample: tuple[Tensor, ...]) -> Tensor:
        values = torch.tensor([1.0, 4.0, 2.0])
        return values[sample[0].argmax(-1)] if self.cut else (sample[0] * values).sum(-1)


LOGITS = torch.tensor([0.3, -0.2, 0.1])


# --- many sites -----------------------------------------------------------------------------------------------------


def test_shares_do_not_depend_on_the_scale_of_tiny_probabilities() -> None:
    """Where all probabilities are tiny, their scale cancels: 1 − Σ p is 1."""
    likely = torch.log(torch.tensor([0.05, 0.02, 0.01], dtype=torch.float64))
    (shares, rest), close = _ratios(likely - 1000.0), _ratios(likely - 20.0)
    assert shares.sum() == pytest.approx(1) and bool((shares > 0).all())
    torch.testing.assert_close(shares, close[0], rtol=1e-7, atol=0)
    off = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(rest[off], close[1][off], rtol=1e-7, atol=0)


@pytest.mark.parametrize(("sites", "samples"), [(300, 2), (150, 8)])
def test_unordered_has_a_gradient_however_many_sites_there_are(sites: int, samples: int) -> None:
    """log q of a configuration is about −1,000 or below, so q is below the smallest number of float64."""
    estimator = estimators.get("unordered", sizes=(1000,) * sites, samples=samples)
    logits = tuple(torch.zeros(1000, requires_grad=True) for _ in range(sites))
    weight = torch.tensor(1.0, requires_grad=True)

    def objective(sample: tuple[Tensor, ...]) -> Tensor:
        return weight * torch.stack([site[..., :500].sum(-1) for site in sample]).sum(0)

    loss = estimator.backward(objective, logits, generator=torch.Generator().manual_seed(0))
    assert 0.3 * sites < float(loss) < 0.7 * sites
    assert weight.grad is not None and float(weight.grad) == pytest.approx(float(loss), rel=1e-5)
    grads = torch.stack([site.grad for site in logits if site.grad is not None])
    assert bool(grads.isfinite().all()) and bool((grads != 0).any(-1).all())


# --- objectives that change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rebar", "muprop", "reinmax", "concrete"])
def test_slopes_that_are_lost_later_are_noticed(name: str) -> None:
    objective, estimator = Switched(), estimators.get(name, sizes=(3,)).eval()
    logits = (LOGITS.expand(20_000, -1),)
    generator = torch.Generator().manual_seed(0)

    def mean() -> Tensor:
        return estimator.estimate(objective, logits, estimator.draw(logits, generator)).grads[0].mean(0)

    before = mean()
    objective.cut = True
    with pytest.warns(UserWarning, match="f has no slope in any site"):
        after = mean()
    p, values = torch.softmax(LOGITS, -1), torch.tensor([1.0, 4.0, 2.0])
    if estimator.unbiased:  # the standard errors are below 0.01
        torch.testing.assert_close(after, p * (values - (p * values).sum()), rtol=0, atol=0.05)
    else:
        assert not after.any()
    objective.cut = False
    torch.testing.assert_close(mean(), before, rtol=0, atol=0.05)


def test_a_call_without_slopes_does_not_cost_rebar_its_control_variate_for_good() -> None:
    estimator, objective = estimators.get("rebar", sizes=(3,)).eval(), Switched()
    logits = (LOGITS.expand(20_000, -1),)
    generator = torch.Generator().manual_seed(0)

    def variance(cut: bool) -> float:
        objective.cut = cut
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = estimator.estimate(objective, logits, estimator.draw(logits, generator))
        return float(found.grads[0].var(0).sum())

    without = variance(True)
    assert variance(False) < 0.8 * without


def test_a_site_of_one_category_needs_no_slope() -> None:
    estimator = estimators.get("rebar", sizes=(1, 3))
    logits = (torch.zeros(2, 1), torch.zeros(2, 3))
    estimator.estimate(lambda sample: sample[1][..., 0] ** 2, logits, estimator.draw(logits))  # a warning is an error
    assert list(estimator.blind.values()) == [()]


@pytest.mark.parametrize("name", sorted({*estimators.available()} - {"partly_exact", "averaged"}))
def test_the_objective_may_have_a_higher_precision_than_the_logits(name: str) -> None:
    logits = (torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 2, requires_grad=True))
    estimators.get(name, sizes=(3, 2)).backward(
        lambda sample: (sample[0][..., 0] + sample[1][..., 1]).double() ** 2, logits
    )
    assert all(site.grad is not None and site.grad.dtype == torch.float32 for site in logits)


@pytest.mark.parametrize("of", ["arsm", "rodeo"])
def test_they_may_be_the_estimator_of_the_rest(of: str) -> None:
    logits = (torch.zeros(3), torch.zeros(2))
    estimator = estimators.get("partly_exact", sizes=(3, 2), of=of)
    found = estimator.estimate(lambda sample: sample[1][..., 0], logits, estimator.draw(logits))
    assert all(bool(grad.isfinite().all()) for grad in found.grads)


# --- use ------------------------------------------------------------------------------------------------------------


def linear(sample: tuple[Tensor, ...]) -> Tensor:
    return sample[0][..., 0]


def mismatched(rows: tuple[int, ...], drawn: tuple[int, ...], name: str) -> None:
    estimator = estimators.get(name, sizes=(3,))
    estimator.estimate(linear, (torch.zeros(*rows, 3),), estimator.draw((torch.zeros(*drawn, 3),)))


def backward(*logits: Tensor) -> None:
    estimators.get("rloo", sizes=tuple(site.shape[-1] for site in logits)).backward(linear, logits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: mismatched((7,), (), "rloo"), "not drawn for logits with rows"),
        (lambda: mismatched((), (7,), "reinmax"), "not drawn for logits with rows"),
        (lambda: backward(torch.zeros(3, dtype=torch.int64)), "floating-point tensors .* got a tensor of int64"),
        (lambda: backward(torch.zeros(0, 3, requires_grad=True)), "at least one row"),
        (lambda: backward(torch.zeros(3, requires_grad=True), torch.zeros(2).double()), "one dtype, got torch.float32"),
        (lambda: type(estimators.get("rloo", sizes=(3,)))((3,), samples=1), "samples must be at least 2, got 1"),
        (lambda: type(estimators.get("unordered", sizes=(3,)))((3,), samples=1), "samples must be 2 … 8, got 1"),
        (lambda: estimators.register("mine", "my_package.my_module"), '"module:class", got'),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        wrong()
    assert "\n" not in str(found.value)


def test_an_estimator_that_has_been_used_can_be_pickled() -> None:
    estimator = estimators.get("reinmax", sizes=(3,))
    estimator.backward(linear, (torch.zeros(3, requires_grad=True),))
    assert pickle.loads(pickle.dumps(estimator)).sizes == (3,)


def test_a_flag_of_the_objective_is_not_taken_for_a_method() -> None:
    objective = Switched()
    objective.hard = True
    logits = (torch.zeros(3, requires_grad=True),)
    estimators.get("rloo", sizes=(3,)).backward(objective, logits)
    assert logits[0].grad is not None


@pytest.mark.parametrize("name", ["reinforce", "muprop"])
def test_without_a_baseline_nothing_is_learned(name: str) -> None:
    assert estimators.get(name, sizes=(3,)).learns
    assert not estimators.get(name, sizes=(3,), baseline="none").learns
    estimators.surrogate(name, linear, (torch.zeros(3, requires_grad=True),), baseline="none").sum().backward()


def test_a_part_of_an_estimator_may_be_frozen() -> None:
    estimator = estimators.get("relax", sizes=(3,), sees="noise")
    for name, parameter in estimator.named_parameters():
        parameter.requires_grad_(name == "log_temperature")
    estimator.backward(linear, (torch.zeros(3, requires_grad=True),))
