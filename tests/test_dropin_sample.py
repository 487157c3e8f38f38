"""`estimators.sample` and `estimators.OneHot`: the gradients are those of the protocol on the same noise."""

from __future__ import annotations

import copy
from typing import Any

import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import INF, Joint, Multilinear, logits_like, rows_of, same, seeded, sizes_of
from test_contract import CASES, SPACES, cases_where, make, name_of
from torch import Tensor, nn

import estimators
from estimators import Estimate, Estimator
from estimators.concrete import Concrete
from estimators.reinmax import ReinMax
from estimators.straight_through import StraightThrough

PATHWISE = cases_where(lambda estimator: estimator.pathwise)
pathwise_case = pytest.mark.parametrize("case", PATHWISE, ids=name_of)
OTHERS = [case for case in CASES if case not in PATHWISE]
HARD = cases_where(lambda estimator: estimator.pathwise and not estimator.relaxed)
hard_case = pytest.mark.parametrize("case", HARD, ids=name_of)


def leaves_of(logits: oracles.Sites) -> oracles.Sites:
    return tuple(site.clone().requires_grad_() for site in logits)


def check_sample(estimator: Estimator, logits: oracles.Sites, seed: int = 0) -> None:
    """Loss, logits' and weights' gradients are those of `backward`; bit for bit, for all of them do the same sums."""
    sizes, rows = sizes_of(logits), rows_of(logits)
    one, other = Joint(sizes, rows), Joint(sizes, rows)
    expected, got = leaves_of(logits), leaves_of(logits)
    generators = seeded(seed), seeded(seed)
    loss = copy.deepcopy(estimator).backward(one, expected, generator=generators[0])
    z = estimators.sample(estimator, got, generator=generators[1])
    assert [(site.shape, site.dtype) for site in z] == [(site.shape, site.dtype) for site in logits]
    value = other(z)
    assert all(site.grad is None for site in got)
    value.sum().backward()
    same(value.detach(), loss, "another loss")
    same([site.grad for site in got], [site.grad for site in expected], "other gradients of logits")
    same(other.weight.grad, one.weight.grad, "other gradients of weights")
    assert torch.equal(generators[0].get_state(), generators[1].get_state()), "other noise"


@pathwise_case
@pytest.mark.parametrize("sizes", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("rows", [(), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("progress", [0, 0.6])
def test_a_sample_carries_the_gradient_of_the_protocol(case: Any, sizes: Any, rows: Any, progress: float) -> None:
    estimator = make(case, sizes)
    estimator.anneal(progress)
    check_sample(estimator, logits_like(sizes, rows))
    check_sample(estimator.eval(), logits_like(sizes, rows))


@pathwise_case
@settings(max_examples=15)
@given(data=st.data())
def test_so_it_does_on_any_logits(case: Any, data: st.DataObject) -> None:
    """Of one category too, and with forbidden ones."""
    sizes = data.draw(strategies.sizes())
    logits = data.draw(strategies.logits(sizes, data.draw(strategies.rows())))
    check_sample(make(case, sizes), logits, data.draw(strategies.seeds))


@pathwise_case
def test_a_name_and_a_single_tensor_will_do(case: Any) -> None:
    """Every dimension but the last is rows: what two sites of one size get is what a tensor of both gets."""
    name, options = case
    (logits,) = leaves_of(logits_like((4,), (3, 2)))
    estimator, objective = make(case, (4,)), Joint((4,), (3, 2))
    expected = estimator.estimate(objective, (logits,), estimator.draw((logits,), seeded()))
    z = estimators.sample(name, logits, generator=seeded(), **options)
    assert isinstance(z, Tensor) and z.shape == logits.shape
    objective((z,)).sum().backward()
    same(logits.grad, expected.grads[0], "a name gives something else")


@hard_case
def test_hard_samples_are_one_hot_and_allowed(case: Any) -> None:
    logits = torch.tensor([0.3, -INF, 1.0, -INF]).expand(200, 4)
    z = estimators.sample(case[0], logits, **case[1])
    assert bool(((z == 0) | (z == 1)).all()) and bool((z.sum(-1) == 1).all())
    assert not bool(z[:, [1, 3]].any())
    assert bool(z[:, 0].any()) and bool(z[:, 2].any())


@pathwise_case
def test_forbidden_categories_have_no_gradient_even_where_f_has_none(case: Any) -> None:
    logits = torch.tensor([[0.3, -INF, 1.0], [0.1, 0.2, 0.3]], requires_grad=True)
    estimators.sample(case[0], logits, **case[1]).backward(torch.tensor([[0.5, torch.nan, -1.0], [1.0, 2.0, 3.0]]))
    assert logits.grad is not None and bool(logits.grad.isfinite().all()) and float(logits.grad[0, 1]) == 0


@pathwise_case
def test_gradients_scale_accumulate_and_reach_what_the_logits_are_made_of(case: Any) -> None:
    sizes = (2, 3)
    estimator, network = make(case, sizes), nn.Linear(4, 5).double()
    x = torch.randn(6, 4, generator=seeded(7), dtype=torch.float64)
    scale = torch.linspace(-2, 3, 6, dtype=torch.float64)
    f = Joint(sizes, (6,))

    def logits() -> oracles.Sites:
        return network(x).split(sizes, -1)

    out = network(x)
    _, grads = estimator.estimate(f, out.split(sizes, -1), estimator.draw(out.split(sizes, -1), seeded()))
    expected = torch.autograd.grad(out, list(network.parameters()), scale[:, None] * torch.cat(grads, -1))
    f.zero_grad()
    for times in (1, 2):
        (f(estimators.sample(estimator, logits(), generator=seeded())) * scale).sum().backward()
        got = [parameter.grad for parameter in network.parameters()]
        same(got, [times * grad for grad in expected], "no chain rule", rtol=1e-9, atol=1e-12)


@pathwise_case
def test_a_sample_may_be_used_twice_and_in_place(case: Any) -> None:
    """Two losses of one sample are their sum; a backward pass may be repeated where its graph is kept."""
    estimator, f, g = make(case, (2, 3)), Joint((2, 3), (4,)), Multilinear((2, 3), (4,))
    logits = leaves_of(logits_like((2, 3), (4,)))
    f_and_g = estimator.estimate(lambda s: f(s) + g(s), logits, estimator.draw(logits, seeded())).grads
    z = estimators.sample(estimator, logits, generator=seeded())
    (f(z) + g(z)).sum().backward(retain_graph=True)
    same([site.grad for site in logits], f_and_g, "of the sum", rtol=1e-10, atol=1e-12)
    (f(z) + g(z)).sum().backward()
    same([site.grad for site in logits], [2 * grad for grad in f_and_g], "of both", rtol=1e-10, atol=1e-12)
    with pytest.raises(RuntimeError, match="second time"):
        sum(site.sum() for site in z).backward()
    z = estimators.sample(estimator, leaves_of(logits), generator=seeded())
    z[0].mul_(2)
    z[0].sum().backward()


def test_concrete_is_differentiated_as_it_stands() -> None:
    """Against finite differences, on fixed noise."""
    logits = leaves_of(logits_like((2, 3), (3,)))

    def soft(*sites: Tensor) -> tuple[Tensor, ...]:
        return estimators.sample("concrete", sites, generator=seeded(), temperature=0.7)

    assert torch.autograd.gradcheck(soft, logits, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["straight_through", "reinmax"])
def test_straight_through_samples_are_exact_on_multilinear_objectives(name: str) -> None:
    """False-alarm rate 1e-6, see `oracles`."""
    for space in ("joint", "binary"):
        logits = oracles.LOGITS[space]
        sizes = sizes_of(logits)
        rows = tuple(site.expand(oracles.ROWS, -1).clone().requires_grad_() for site in logits)
        f = Multilinear(sizes, (oracles.ROWS,))
        f(estimators.sample(name, rows, generator=seeded())).sum().backward()
        _, truth = oracles.enumerate_expectation(Multilinear(sizes), logits)
        assert oracles.check_means(torch.cat([site.grad for site in rows], -1), torch.cat(truth)) < 0.15


class KnowsValues(ReinMax):
    """Its gradient depends on f(z) as well."""

    def _estimate(self, objective: Any, logits: Any, noise: Any) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(loss[..., None] * grad for grad in grads))


class NotLinear(StraightThrough):
    """Its gradient is clipped."""

    def _estimate(self, objective: Any, logits: Any, noise: Any) -> Estimate:
        loss, grads = super()._estimate(objective, logits, noise)
        return Estimate(loss, tuple(grad.clamp(-0.1, 0.1) for grad in grads))


def test_a_wrong_claim_is_seen() -> None:
    logits = logits_like((2, 3), (5,))
    check_sample(ReinMax((2, 3)), logits)
    with pytest.raises(AssertionError, match="gradients of logits"):
        check_sample(KnowsValues((2, 3)), logits)
    scaled = torch.full((5,), 100.0, dtype=torch.float64)
    (clipped,) = leaves_of(logits_like((3,), (5,)))
    Joint((3,), (5,))((estimators.sample(NotLinear((3,)), clipped, generator=seeded()),)).backward(scaled)
    assert float(clipped.grad.abs().max()) <= 0.1


def test_what_asks_for_no_slope_or_for_several_cannot_claim() -> None:
    for name in ("reinforce", "double_cv"):
        wrong = estimators.get(name, sizes=(2,))
        wrong.pathwise = True
        with pytest.raises(RuntimeError, match="at one sample"):
            estimators.sample(wrong, torch.zeros(2))


# --- circumstances ----------------------------------------------------------------------------------------------------


@pathwise_case
def test_without_gradients_it_is_a_sample(case: Any) -> None:
    logits = torch.zeros(3, requires_grad=True)
    with torch.no_grad():
        z = estimators.sample(case[0], logits, **case[1])
    assert not z.requires_grad and not estimators.sample(case[0], logits.detach(), **case[1]).requires_grad
    assert estimators.sample(case[0], logits, **case[1]).requires_grad


@pathwise_case
def test_it_works_inside_autocast_and_in_half_precision(case: Any) -> None:
    x = torch.randn(8, 4, generator=seeded(3))
    network = nn.Linear(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(x)
        z = estimators.sample(case[0], logits, generator=seeded(), **case[1])
        assert z.dtype == logits.dtype == torch.bfloat16
        loss = (z * torch.arange(5)).square().sum()
        loss.backward()
    low = logits.detach().requires_grad_()
    (estimators.sample(case[0], low, generator=seeded(), **case[1]) * torch.arange(5)).square().sum().backward()
    same(network.bias.grad, low.grad.float().sum(0), "autocast changes the estimate", rtol=0.02, atol=0.02)


@pathwise_case
def test_it_cannot_be_differentiated_twice(case: Any) -> None:
    logits = torch.zeros(3, requires_grad=True)
    z = estimators.sample(case[0], logits, **case[1])
    (grad,) = torch.autograd.grad((z * torch.arange(3)).square().sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|twice"):
        grad.sum().backward()


def test_annealing_between_a_sample_and_its_backward_is_refused() -> None:
    estimator = estimators.get("reinmax", sizes=(3,), temperature=(2.0, 0.5))
    logits = torch.zeros(3, requires_grad=True)
    z = estimators.sample(estimator, logits)
    estimator.anneal(0.5)
    with pytest.raises(RuntimeError, match="anneal it before"):
        z[0].backward()
    assert logits.grad is None
    estimators.sample(estimator, logits)[0].backward()
    assert logits.grad is not None


@pytest.mark.parametrize("case", OTHERS, ids=name_of)
def test_what_needs_values_is_refused(case: Any) -> None:
    with pytest.raises(ValueError, match=r"surrogate") as caught:
        estimators.sample(case[0], (torch.zeros(2), torch.zeros(3), torch.zeros(2)), **case[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "logits", "options", "words"),
    [
        ("reinmax", torch.zeros(3, dtype=torch.int64), {}, "floating-point"),
        ("reinmax", torch.zeros(()), {}, "at least one row"),
        ("reinmax", (), {}, "empty sequence"),
        ("reinmax", [0.1, 0.2], {}, "floating-point"),
        ("reinmax", (torch.zeros(3, 2), torch.zeros(2)), {}, "rows"),
        ("reinmax", torch.tensor([0.0, torch.nan]), {}, "NaN"),
        ("reinmaxx", torch.zeros(3), {}, "did you mean 'reinmax'"),
        ("reinmax", torch.zeros(3), {"samples": 3}, "no option"),
        (ReinMax((2,)), torch.zeros(3), {}, r"K = \(2,\)"),
        (ReinMax((3,)), torch.zeros(3), {"temperature": 2.0}, "is made"),
    ],
)
def test_bad_input_is_refused(estimator: Any, logits: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        estimators.sample(estimator, logits, **options)
    assert "\n" not in str(caught.value)


# --- a distribution of torch ------------------------------------------------------------------------------------------


@hard_case
def test_a_distribution_has_the_gradient_in_rsample(case: Any) -> None:
    """Of normalised logits, which is what `OneHotCategorical` keeps; the same to rounding, but for `identity`."""
    (logits,) = leaves_of(logits_like((4,), (3,)))
    q = estimators.OneHot(case[0], logits=logits, **case[1])
    assert q.has_rsample and q.batch_shape == (3,) and q.event_shape == (4,)
    torch.manual_seed(3)
    z = q.rsample((2,))
    assert z.shape == (2, 3, 4)
    f = Joint((4,), (3,))
    f((z,)).sum().backward()
    (again,) = leaves_of((logits.detach(),))
    torch.manual_seed(3)
    rows = torch.log_softmax(again, -1).expand(2, 3, 4)
    f((estimators.sample(case[0], rows, **case[1]),)).sum().backward()
    same(logits.grad, again.grad, "of rsample", rtol=1e-9, atol=1e-12)


def test_a_distribution_takes_probabilities() -> None:
    probs = torch.tensor([0.2, 0.3, 0.5], requires_grad=True)
    q = estimators.OneHot("gumbel_rao", probs=probs, samples=3, temperature=0.5)
    (q.rsample((5,)) @ torch.arange(3.0)).sum().backward()
    assert probs.grad is not None and bool(probs.grad.any())


def test_a_distribution_is_a_one_hot_categorical() -> None:
    """What is inherited: log-probabilities, entropy, divergences, checks of arguments, `expand`, copies."""
    logits = logits_like((4,), (3,))[0]
    ours = estimators.OneHot("reinmax", logits=logits, validate_args=True)
    theirs = torch.distributions.OneHotCategorical(logits=logits)
    z = ours.rsample((7,))
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(torch.distributions.kl_divergence(ours, theirs), torch.zeros(3).double())
    with pytest.raises(ValueError, match="support"):
        ours.log_prob(0.3 * z)
    with pytest.raises(ValueError, match="logits"):
        estimators.OneHot("reinmax", logits=torch.full((3,), torch.nan), validate_args=True)
    torch.manual_seed(0)
    drawn = ours.sample((5,))
    torch.manual_seed(0)
    same(drawn, theirs.sample((5,)), "sample")
    wide = ours.expand((2, 3))
    assert type(wide) is estimators.OneHot and wide.batch_shape == (2, 3) and wide.rsample((6,)).shape == (6, 2, 3, 4)
    independent = torch.distributions.Independent(wide, 1)
    assert independent.has_rsample and independent.log_prob(independent.rsample()).shape == (2,)
    assert copy.deepcopy(ours).rsample().shape == (3, 4)


def test_the_mean_of_a_distributions_samples_is_its_mean() -> None:
    """20,000 draws within 5 standard errors of p: one false alarm in 400,000 for each of 4 numbers."""
    torch.manual_seed(1)
    q = estimators.OneHot("straight_through", logits=logits_like((4,))[0])
    z = q.rsample((20_000,))
    error = (q.mean * (1 - q.mean) / 20_000).sqrt()
    assert bool(((z.mean(0) - q.mean).abs() <= 5 * error).all())


def test_a_distribution_follows_a_schedule() -> None:
    estimator = estimators.get("gumbel_straight_through", sizes=(3,), temperature=(1.0, 0.1))
    logits = torch.tensor([0.1, 0.4, -0.2], requires_grad=True)
    grads = []
    for progress in (0, 1):
        estimator.anneal(progress)
        torch.manual_seed(0)
        z = estimators.OneHot(estimator, logits=logits).rsample()
        grads.append(torch.autograd.grad(z @ torch.arange(3.0), logits)[0])
    assert not torch.allclose(*grads)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [("concrete", "soft"), (Concrete((3,)), "soft"), ("rloo", "surrogate"), (ReinMax((2,)), "sizes"), ("x", "no esti")],
)
def test_a_distribution_refuses_what_it_cannot_be(estimator: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        estimators.OneHot(estimator, logits=torch.zeros(3))
