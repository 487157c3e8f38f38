"""`estimators.surrogate`: its backward pass is that of the protocol on the same noise, and comes when asked for."""

from __future__ import annotations

import copy
import itertools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Joint, Multilinear, Spy, fake_mode, logits_like, rows_of, same, seeded, sizes_of
from test_contract import SPACES, every_case, fitted_case, in_state, make, name_of, unbiased_case
from test_estimators_slopes import SIZES, SLOPED, SLOPELESS, logits_of, lookup, mixed, smooth
from test_estimators_slopes import make as made
from torch import Tensor, nn

import estimators
from estimators import Estimator, labels

Objective = Callable[..., Tensor]


def leaves_of(logits: oracles.Sites) -> oracles.Sites:
    return tuple(site.clone().requires_grad_() for site in logits)


def fits_of(estimator: Estimator) -> list[Tensor | None]:
    return [parameter.grad for parameter in estimator.parameters()]


def check_surrogate(
    estimator: Estimator, logits: oracles.Sites, plain: bool = True, seed: int = 0, scale: Tensor | float = 1.0
) -> None:
    """Loss, gradients of logits, weights and parameters, and the state left behind, are those of `backward`.

    With a scale `(*rows)` the first two gradients are multiplied by it; `Joint` has a weight for every row.
    """
    sizes, rows = sizes_of(logits), rows_of(logits)
    joints = Joint(sizes, rows), Joint(sizes, rows)
    spies = [Spy(joint, sizes, rows) for joint in joints]
    one, other = joints if plain else spies
    expected, got = leaves_of(logits), leaves_of(logits)
    usual, ours = copy.deepcopy(estimator), copy.deepcopy(estimator)
    value = usual.backward(one, expected, generator=seeded(seed))
    loss = estimators.surrogate(ours, other, got, generator=seeded(seed))
    same(loss.detach(), value, "another loss")
    same(ours.state_dict(), usual.state_dict(), "another state")
    assert joints[1].weight.grad is None and all(site.grad is None for site in got), "a gradient before its time"
    assert all(fit is None for fit in fits_of(ours)), "a fit before its time"
    (loss * scale).sum().backward()
    per_row = torch.as_tensor(scale, dtype=value.dtype).expand(value.shape)
    for site, wanted in zip(got, expected, strict=True):
        assert site.grad is not None and wanted.grad is not None
        same(site.grad, per_row[..., None] * wanted.grad, "other gradients of logits", rtol=1e-12, atol=1e-14)
    assert joints[1].weight.grad is not None and joints[0].weight.grad is not None
    same(joints[1].weight.grad, per_row * joints[0].weight.grad, "of weights", rtol=1e-11, atol=1e-13)
    assert all(spy.control_weight.grad is None for spy in spies), "a weight was trained through control()"
    same(fits_of(ours), fits_of(usual), "other fits")


@every_case
@pytest.mark.parametrize("sizes", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("rows", [(), (2, 3)])
def test_the_backward_pass_is_that_of_the_protocol(case: Any, sizes: Any, rows: Any) -> None:
    """In both modes, of a plain objective and of one with methods of its own."""
    logits = logits_like(sizes, rows)
    estimator = in_state(case, logits)
    for training, plain in itertools.product((True, False), repeat=2):
        check_surrogate(estimator.train(training), logits, plain)


@every_case
def test_the_incoming_gradient_scales_each_row(case: Any) -> None:
    logits = logits_like((2, 3), (4,))
    scale = torch.tensor([2.0, -0.5, 0.0, 1.0], dtype=torch.float64)
    check_surrogate(in_state(case, logits), logits, scale=scale)


@every_case
@settings(max_examples=6)
@given(data=st.data())
def test_so_it_is_on_any_logits(case: Any, data: st.DataObject) -> None:
    """Of one category too, and with forbidden ones; a space that the estimator refuses is left out."""
    sizes = data.draw(strategies.sizes())
    logits = data.draw(strategies.logits(sizes, data.draw(strategies.rows())))
    try:
        estimator = estimators.get(case[0], sizes=sizes, **case[1])
    except ValueError:
        return
    check_surrogate(estimator, logits, data.draw(st.booleans()), data.draw(strategies.seeds))


@every_case
def test_logits_and_weights_may_be_anywhere_in_a_graph(case: Any) -> None:
    """An encoder makes the logits, and f depends on them directly as well: one backward pass for everything."""
    sizes = (2, 3)
    encoder = nn.Linear(4, 5).double()
    x = torch.randn(6, 4, generator=seeded(7), dtype=torch.float64)
    f = Joint(sizes, (6,))
    estimator = in_state(case, logits_like(sizes, (6,)))
    parameters = [*encoder.parameters(), f.weight]

    out = encoder(x)
    noise = estimator.draw(out.split(sizes, -1), seeded())
    fixed = out.detach().square().mean(-1)
    loss, grads = copy.deepcopy(estimator).estimate(lambda sample: f(sample) + fixed, out.split(sizes, -1), noise)
    expected = torch.autograd.grad(out, parameters[:-1], torch.cat(grads, -1), retain_graph=True)
    penalty = torch.autograd.grad(out.square().mean(-1).sum(), parameters[:-1])
    expected = (*(e + p for e, p in zip(expected, penalty, strict=True)), f.weight.grad)
    f.zero_grad()

    out = encoder(x)
    got = estimators.surrogate(
        estimator, lambda sample: f(sample) + out.square().mean(-1), out.split(sizes, -1), generator=seeded()
    )
    same(got.detach(), loss, "loss")
    got.sum().backward()
    same([parameter.grad for parameter in parameters], expected, "through a graph", rtol=1e-9, atol=1e-12)


@every_case
def test_losses_add_up(case: Any) -> None:
    """A loss used twice, and beside another; a backward pass that is repeated while the graph is kept."""
    logits = leaves_of(logits_like((2, 3), (4,)))
    estimator, f, g = in_state(case, logits).eval(), Joint((2, 3), (4,)), Multilinear((2, 3), (4,))
    noise = estimator.draw(logits, seeded())
    of_f, of_g = (estimator.estimate(each, logits, noise) for each in (f, g))
    weights = [f.weight.grad, g.weight.grad]
    f.zero_grad(), g.zero_grad()
    first, second = (estimators.surrogate(estimator, each, logits, generator=seeded()) for each in (f, g))
    total = (first + first.square() / 2).sum() + 3 * second.sum()
    for times in (1, 2):
        total.backward(retain_graph=times == 1)
        scale = 1 + of_f.loss
        for site, one, other in zip(logits, of_f.grads, of_g.grads, strict=True):
            same(site.grad, times * (scale[:, None] * one + 3 * other), "of a sum", rtol=1e-9, atol=1e-11)
        same(f.weight.grad, times * scale * weights[0], "weights of the first", rtol=1e-9, atol=1e-11)
        same(g.weight.grad, times * 3 * weights[1], "weights of the second", rtol=1e-9, atol=1e-11)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


@every_case
def test_a_gradient_can_be_asked_for_alone(case: Any) -> None:
    logits = leaves_of(logits_like((2, 3), (4,)))
    estimator, f = in_state(case, logits), Joint((2, 3), (4,))
    expected = copy.deepcopy(estimator).estimate(Joint((2, 3), (4,)), logits, estimator.draw(logits, seeded())).grads
    loss = estimators.surrogate(estimator, f, logits, generator=seeded())
    same(torch.autograd.grad(loss.sum(), logits), expected, "autograd.grad", rtol=1e-12, atol=1e-14)
    assert f.weight.grad is None and all(fit is None for fit in fits_of(estimator))


@every_case
def test_what_asks_for_nothing_receives_nothing(case: Any) -> None:
    """Weights train where the logits are fixed, and logits where there are no weights."""
    logits = logits_like((2, 3), (4,))
    estimator, f = in_state(case, logits), Joint((2, 3), (4,))
    expected = Joint((2, 3), (4,))
    _, grads = copy.deepcopy(estimator).estimate(expected, logits, estimator.draw(logits, seeded()))
    estimators.surrogate(copy.deepcopy(estimator), f, logits, generator=seeded()).sum().backward()
    same(f.weight.grad, expected.weight.grad, "of weights alone", rtol=1e-11, atol=1e-13)
    leaves = leaves_of(logits)
    frozen = Joint((2, 3), (4,)).requires_grad_(False)
    estimators.surrogate(estimator, frozen, leaves, generator=seeded()).sum().backward()
    same([site.grad for site in leaves], grads, "of logits alone", rtol=1e-12, atol=1e-14)


@every_case
def test_under_no_grad_it_is_a_value(case: Any) -> None:
    logits = leaves_of(logits_like((2, 3), (4,)))
    estimator, f = in_state(case, logits).eval(), Joint((2, 3), (4,))
    state = oracles.snapshot(estimator)
    with torch.no_grad():
        loss = estimators.surrogate(estimator, f, logits, generator=seeded())
    assert loss.shape == (4,) and not loss.requires_grad
    assert f.weight.grad is None and all(fit is None for fit in fits_of(estimator))
    same(estimator.state_dict(), state, "eval() moved the state")


@fitted_case
def test_gradients_of_parameters_add_to_those_that_there_are(case: Any) -> None:
    """As `estimate` does, and unscaled; also where an optimizer's `zero_grad` comes between loss and backward."""
    logits = logits_like((2, 3), (4,))
    estimator = in_state(case, logits)
    usual = copy.deepcopy(estimator)
    usual.estimate(Joint((2, 3), (4,)), logits, usual.draw(logits, seeded()))
    for parameter in estimator.parameters():
        parameter.grad = torch.ones_like(parameter)
    loss = estimators.surrogate(estimator, Joint((2, 3), (4,)), leaves_of(logits), generator=seeded())
    assert all(bool((fit == 1).all()) for fit in fits_of(estimator) if fit is not None)
    (5 * loss).sum().backward()
    for fit, expected in zip(fits_of(estimator), fits_of(usual), strict=True):
        same(fit, 1 if expected is None else 1 + expected, "no addition") if expected is not None else None
    estimator = in_state(case, logits)
    loss = estimators.surrogate(estimator, Joint((2, 3), (4,)), leaves_of(logits), generator=seeded())
    estimator.zero_grad()
    loss.sum().backward()
    same(fits_of(estimator), fits_of(usual), "zero_grad took the fit")


# --- against enumeration ----------------------------------------------------------------------------------------------


def test_of_enumeration_it_is_the_derivative() -> None:
    """Against finite differences in logits and in a weight; rows and several calls of f."""
    logits = leaves_of(logits_like((2, 3), (2,)))
    weight = torch.tensor([0.3, -0.8], dtype=torch.float64, requires_grad=True)
    f = Joint((2, 3), (2,))

    def expectation(weight: Tensor, *sites: Tensor) -> Tensor:
        def objective(sample: oracles.Sites) -> Tensor:
            return (f(sample).detach() * weight).cos()

        return estimators.surrogate("exact", objective, sites, chunk=4)

    assert torch.autograd.gradcheck(expectation, (weight, *logits), rtol=1e-6, atol=1e-8)


@unbiased_case
def test_expectation_is_enumeration(case: Any) -> None:
    """Logits and weights of estimators that claim to be unbiased; false-alarm rate 1e-6 each, see `oracles`."""
    logits = oracles.LOGITS["joint"]
    sizes, n = sizes_of(logits), 10_000
    estimator = in_state(case, logits).eval()
    rows = tuple(site.expand(n, -1).clone().requires_grad_() for site in logits)
    f = Joint(sizes, (n,))
    (3 * estimators.surrogate(estimator, f, rows, generator=seeded(8))).sum().backward()
    truth = oracles.enumerate_expectation(Joint(sizes), logits)[1]
    oracles.check_means(torch.cat([site.grad for site in rows], -1) / 3, torch.cat(truth), "logits")
    weight = oracles.enumerate_weight_gradient(Joint(sizes), logits).reshape(1)
    assert f.weight.grad is not None
    oracles.check_means(f.weight.grad[:, None] / 3, weight, "weights")


# --- circumstances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [*SLOPED, *SLOPELESS])
@pytest.mark.parametrize("f", [lookup, mixed, smooth])
def test_where_f_has_no_slope_it_says_what_the_protocol_says(label: str, f: Objective) -> None:
    said = []
    for how in ("backward", "surrogate"):
        estimator, logits = made(label), logits_of()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                if how == "backward":
                    estimator.backward(f, logits, generator=seeded())
                else:
                    estimators.surrogate(estimator, f, logits, generator=seeded()).sum().backward()
        said.append(([str(one.message) for one in caught], [site.grad for site in logits]))
    assert said[0][0] == said[1][0]
    same(said[1][1], said[0][1], "other gradients", rtol=1e-12, atol=1e-14)


@every_case
def test_the_graph_is_freed_by_the_backward_pass(case: Any) -> None:
    """Nothing goes round in circles, which only the garbage collector would free."""
    logits = leaves_of(logits_like((2, 3), (4,)))
    estimator, kept = in_state(case, logits), []
    joint = Joint((2, 3), (4,))

    def f(sample: oracles.Sites) -> Tensor:
        h = joint.features(sample)
        if not torch.is_grad_enabled():
            return 1 + h.sum(-1)
        graph = (joint.weight[:, None] * h).exp()
        value = graph.square().sum(-1)
        kept.extend([weakref.ref(graph), weakref.ref(value)])
        return value

    loss = estimators.surrogate(estimator, f, logits)
    assert any(ref() is not None for ref in kept), "there was nothing to keep"
    loss.sum().backward()
    del loss
    assert all(ref() is None for ref in kept)


def test_one_tensor_in_one_tensor_out() -> None:
    logits = torch.randn(4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
    table = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    loss = estimators.surrogate("exact", lambda z: z @ table, logits)
    same(loss.detach(), torch.softmax(logits, -1).detach() @ table, "the mean", rtol=1e-12)
    loss.sum().backward()
    (expected,) = torch.autograd.grad((torch.softmax(logits, -1) @ table).sum(), logits)
    same(logits.grad, expected, "its gradient", rtol=1e-9, atol=1e-12)


@every_case
def test_a_name_will_do_where_nothing_is_learned(case: Any) -> None:
    logits = leaves_of(logits_like((2, 3), (4,)))
    estimator = make(case, (2, 3))
    f = Joint((2, 3), (4,))
    if estimator.learns:
        with pytest.raises(ValueError, match=r"estimators.get\(.*, sizes=\(2, 3\)") as caught:
            estimators.surrogate(case[0], f, logits, **case[1])
        assert "\n" not in str(caught.value)
    else:
        loss = estimators.surrogate(case[0], f, logits, generator=seeded(), **case[1])
        same(loss.detach(), estimator.backward(f, leaves_of(logits), generator=seeded()), f"{name_of(case)} by name")


@every_case
@pytest.mark.parametrize("rows", [(), (3,)])
def test_it_runs_on_fake_tensors(case: Any, rows: tuple[int, ...]) -> None:
    """Nothing reads a value, which would wait for a device."""
    make(case, (2, 2))
    with fake_mode():
        estimator = make(case, (2, 2))
        logits = tuple(torch.randn(*rows, 2, requires_grad=True) for _ in range(2))
        f = Joint((2, 2), rows, torch.float32)
        estimators.surrogate(estimator, f, logits, generator=torch.Generator().manual_seed(0)).sum().backward()
        assert f.weight.grad is not None and all(site.grad is not None for site in logits)


class InParts(Joint):
    """The i-th of n parts of its data weighs i + 1 times as much, and 0.5 more."""

    def part(self, i: int, n: int) -> Objective:
        return lambda sample: 0.5 + (i + 1) * self(sample)


@pytest.mark.parametrize("label", ["rloo[parts=own]", "rloo[samples=3, parts=first]", "rebar[part=2]"])
def test_parts_of_an_objective_wait_too(label: str) -> None:
    logits = logits_like((2, 3), (4,))
    estimator = labels.parse(label).make((2, 3))
    one, other, leaves = InParts((2, 3), (4,)), InParts((2, 3), (4,)), leaves_of(logits)
    loss, grads = copy.deepcopy(estimator).estimate(one, logits, estimator.draw(logits, seeded()))
    got = estimators.surrogate(estimator, other, leaves, generator=seeded())
    same(got.detach(), loss, "loss")
    assert other.weight.grad is None
    got.sum().backward()
    same([site.grad for site in leaves], grads, "of logits", rtol=1e-12, atol=1e-14)
    same(other.weight.grad, one.weight.grad, "of weights", rtol=1e-11, atol=1e-13)


class Sliced(Joint):
    """An objective with a method of its own."""

    def hard(self, index: oracles.Sites) -> Tensor:
        return self(tuple(nn.functional.one_hot(i, 3).double() for i in index))


@pytest.mark.parametrize(
    ("estimator", "objective", "logits", "options", "words"),
    [
        ("rloo", Sliced((3,)), torch.zeros(3), {}, r"hard is given a tuple of sites: write \(logits,\)"),
        ("rloo", Joint((3,)), (torch.zeros(3, dtype=torch.int64),), {}, "floating-point"),
        ("rloo", lambda z: z.mean(), torch.zeros(4, 3), {}, "one value per sample"),
        ("rloo", Joint((3,)), (), {}, "empty sequence"),
        ("rloo", Joint((3, 2)), (torch.zeros(3, 2), torch.zeros(2)), {}, "rows"),
        ("rlo", Joint((3,)), torch.zeros(3), {}, "did you mean 'rloo'"),
        (estimators.get("rloo", sizes=(3,)), Joint((3,)), (torch.zeros(3),), {"samples": 4}, "is made: samples"),
        (estimators.get("rloo", sizes=(2,)), Joint((3,)), (torch.zeros(3),), {}, r"K = \(2,\)"),
    ],
)
def test_bad_input_is_refused(estimator: Any, objective: Any, logits: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        estimators.surrogate(estimator, objective, logits, **options)
    assert "\n" not in str(caught.value)


def test_an_objective_that_fails_leaves_parameters_as_they_were() -> None:
    estimator = estimators.get("nvil", sizes=SIZES)
    grads = [torch.ones_like(parameter) for parameter in estimator.parameters()]
    for parameter, grad in zip(estimator.parameters(), grads, strict=True):
        parameter.grad = grad
    with pytest.raises(ZeroDivisionError):
        estimators.surrogate(estimator, lambda sample: sample[0] / (1 // 0), logits_of())
    assert all(fit is grad for fit, grad in zip(fits_of(estimator), grads, strict=True))
