"""The contract of every registered estimator. A new one is included by being registered.

The checks are functions of `oracles`; `test_estimators_defects` shows that each rejects the defects it is there for.
Power: with 40,000 estimates a check of means has a false-alarm rate of 1e-6 and rejects, in every case here, an error
of `RESOLUTION` in the best-measured component; of a low-variance estimator an error of 2 % (proved there).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import oracles
import pytest
import strategies
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import LOGITS, Joint, Multilinear, Spy, logits_like, randomise, rows_of, run, same, seeded, sizes_of, train
from torch.utils import _pytree as pytree

import estimators
from estimators import Estimator
from estimators.tuning import Regression

RESOLUTION = 0.15
"""Relative error of the best-measured component that every check of means here rejects."""

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("exact", {"chunk": 5}),
    ("reinforce", {"baseline": "none"}),
    ("rloo", {"samples": 4}),
    ("straight_through", {"through": "identity"}),
    ("straight_through", {"temperature": (2.0, 0.5), "forward_temperature": 0.7}),
    ("concrete", {"temperature": 0.5}),
    ("concrete", {"temperature": (1.0, 0.1, "entropy")}),
    ("rebar", {"eta": 0.3, "temperature": 1.5}),
    ("rebar", {"coupled": True}),
    ("rebar", {"coupled": True, "tuning": "regression", "eta": 0.4}),
    ("relax", {"relaxed_objective": True}),
    ("relax", {"relaxed_objective": True, "sees": "noise", "coupled": True, "eta": 0.7}),
    ("relax", {"relaxed_objective": True, "sees": "noise", "coupled": True, "tuning": "regression"}),
    ("relax", {"sees": "noise"}),
    ("vargrad", {"samples": 4}),
    ("nvil", {"normalise": True}),
    ("double_cv", {"samples": 3, "alpha": 0.0}),
    ("rodeo", {"samples": 3, "beta": 0.3}),
    ("carms", {"samples": 4}),
    ("arsm", {"reference": "one"}),
    ("unordered", {"samples": 3}),
    ("averaged", {"of": "rebar", "samples": 2}),
    ("averaged", {"of": "rloo[samples=3]"}),
    ("partly_exact", {"of": "relax[relaxed_objective=True]"}),
    ("partly_exact", {"of": "double_cv", "sites": (1,)}),
    ("partly_exact", {"of": "sweep", "sites": (1,)}),
    ("averaged", {"of": "sweep", "samples": 2}),
    ("gumbel_straight_through", {"temperature": (0.5, 0.1)}),
    ("sweep", {"samples": 3}),
    ("sweep", {"slopes": False}),
    ("sweep", {"slopes": False, "samples": 2, "decay": 0.5}),
    ("sweep", {"rate": 0.5}),
    ("sweep", {"slopes": False, "samples": 2, "rate": 0.3}),
    ("gumbel_rao", {"samples": 1, "temperature": 0.3}),
    ("reinmax", {"temperature": 1.3}),
    ("gapped", {"gap": "expected", "temperature": 0.5}),
    ("imle", {"strength": 5.0}),
    ("reinmax_rao", {"samples": 3, "temperature": 1.3}),
    ("reinmax_cv", {"samples": 3, "temperature": 1.3, "eta": 1.5}),
    ("hard_concrete", {"temperature": 1.3, "stretch": 1.1}),
    ("grpo", {"divide": False, "samples": 3}),
    ("sum_and_sample", {"top": 3}),
    ("sum_and_sample", {"top": 100}),
    ("vimco", {"samples": 5}),
    ("ovis", {"samples": 4, "gamma": 0.5}),
]
CASES = [(name, {}) for name in estimators.available()] + OPTIONS


def name_of(case: tuple[str, dict[str, Any]]) -> str:
    name, options = case
    return name + "".join(f"[{key}={value}]" for key, value in options.items())


def make(case: tuple[str, dict[str, Any]], sizes: Sequence[int]) -> Estimator:
    """The estimator of a case; a space that it refuses, with a reason, skips the test."""
    name, options = case
    try:
        return estimators.get(name, sizes=sizes, **options)
    except ValueError as refusal:
        pytest.skip(str(refusal))


def cases_where(holds: Callable[[Estimator], bool]) -> list[tuple[str, dict[str, Any]]]:
    """The cases whose estimator, on the first space that it accepts, satisfies a predicate."""
    found = []
    for case in CASES:
        for logits in LOGITS.values():
            try:
                estimator = estimators.get(case[0], sizes=sizes_of(logits), **case[1])
            except ValueError:
                continue
            if holds(estimator):
                found.append(case)
            break
        else:
            raise AssertionError(f"{name_of(case)} accepts none of the spaces of this suite")
    return found


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
unbiased_case = pytest.mark.parametrize("case", cases_where(lambda estimator: estimator.unbiased), ids=name_of)
fitted_case = pytest.mark.parametrize(
    "case", cases_where(lambda estimator: bool(list(estimator.parameters()))), ids=name_of
)

STATES: dict[str, Callable[[Estimator, oracles.Sites], Estimator]] = {
    "fresh": lambda estimator, logits: estimator,
    "randomised": lambda estimator, logits: randomise(estimator),
    "trained": lambda estimator, logits: train(randomise(estimator), logits),
}
WHEN = [("fresh", "train"), ("randomised", "eval"), ("trained", "train")]


def in_state(case: tuple[str, dict[str, Any]], logits: oracles.Sites, state: str = "trained") -> Estimator:
    """The estimator of a case after some steps at the first row of these logits."""
    estimator = make(case, sizes_of(logits))
    return STATES[state](estimator, tuple(site.reshape(-1, site.shape[-1])[0] for site in logits))


# --- means ----------------------------------------------------------------------------------------------------------


@unbiased_case
@pytest.mark.parametrize("space", LOGITS)
@pytest.mark.parametrize(("state", "mode"), WHEN)
def test_expectation_is_enumeration(case: Any, space: str, state: str, mode: str) -> None:
    """Loss, logit gradients and weight gradients; at the first step, after some, and at parameters chosen at random."""
    estimator = in_state(case, LOGITS[space], state).train(mode == "train")
    resolution = oracles.check_unbiased(estimator, LOGITS[space])
    assert resolution < RESOLUTION, f"only errors above {resolution:.0%} would be seen"


@unbiased_case
def test_expectation_is_enumeration_with_sites_of_equal_and_of_one_category(case: Any) -> None:
    """Several sites in one stack, of more than two categories; and some that have nothing to learn."""
    logits = logits_like((3, 1, 2, 3, 1))
    assert oracles.check_unbiased(in_state(case, logits, "randomised").eval(), logits, rows=10_000) < 2 * RESOLUTION


@pytest.mark.slow
@unbiased_case
def test_expectation_is_enumeration_in_calls_of_few_rows(case: Any) -> None:
    """State moves from call to call, and each call holds 8 rows: the estimates stay unbiased (a martingale)."""
    logits = LOGITS["joint"]
    oracles.check_unbiased(in_state(case, logits, "randomised").train(), logits, rows=8_000, per_call=8)


@pytest.mark.parametrize("space", ["joint", "one_site", "peaked"])
def test_straight_through_is_exact_on_multilinear_objectives(space: str) -> None:
    estimator = estimators.get("straight_through", sizes=sizes_of(LOGITS[space]))
    assert oracles.check_unbiased(estimator, LOGITS[space], Multilinear) < RESOLUTION


@pytest.mark.parametrize(
    "case",
    [
        ("straight_through", {}),
        ("concrete", {"temperature": 0.5}),
        ("vargrad", {}),
        ("gumbel_straight_through", {}),
        ("gumbel_rao", {}),
        ("reinmax", {}),
    ],
    ids=name_of,
)
def test_biased_estimators_are_biased(case: Any) -> None:
    """On an objective that is not multilinear the check of means can tell."""
    logits = LOGITS["joint"]
    estimator = make(case, sizes_of(logits))
    assert not estimator.unbiased
    with pytest.raises(AssertionError, match="expected"):
        oracles.check_unbiased(estimator, logits)


DECOUPLED = "straight_through[temperature=(2.0, 0.5)][forward_temperature=0.7]"
"""It does not sample from q."""


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases_where(lambda estimator: not estimator.unbiased and not estimator.relaxed)
        if name_of(case) != DECOUPLED
    ],
    ids=name_of,
)
def test_what_is_biased_has_the_loss_and_the_weights_of_q(case: Any) -> None:
    """Biased is the gradient in the logits alone."""
    logits, sizes = LOGITS["joint"], sizes_of(LOGITS["joint"])
    estimator, objective = make(case, sizes), Joint(sizes, (oracles.ROWS,))
    rows = tuple(site.expand(oracles.ROWS, -1) for site in logits)
    found = estimator.estimate(objective, rows, estimator.draw(rows, seeded())).loss.unsqueeze(-1)
    truth = oracles.enumerate_expectation(Joint(sizes), logits)[0].view(1)
    if case[0] not in ("vimco", "ovis", "disarm_bound"):  # whose weights train on the bound
        found = torch.cat([found, objective.weight.grad.unsqueeze(-1)], -1)
        truth = torch.cat([truth, oracles.enumerate_weight_gradient(Joint(sizes), logits).view(1)])
    assert oracles.check_means(found, truth, "(loss, weight)") < RESOLUTION


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0, (0.3, 0.1)])
@pytest.mark.parametrize("space", LOGITS)
def test_concrete_is_the_pathwise_gradient(space: str, temperature: Any) -> None:
    logits = tuple(site.expand(50, -1) for site in LOGITS[space])
    oracles.check_pathwise(estimators.get("concrete", sizes=sizes_of(logits), temperature=temperature), logits)


def test_concrete_is_the_finite_difference() -> None:
    """On fixed noise, against central differences of f(x(φ)) in float64."""
    logits = LOGITS["joint"]
    sizes = sizes_of(logits)
    estimator = estimators.get("concrete", sizes=sizes, temperature=0.5)
    noise = estimator.draw(logits, seeded())
    _, grads = estimator.estimate(Joint(sizes), logits, noise)
    for site in range(len(sizes)):
        for k in range(sizes[site]):
            losses = []
            for step in (1e-5, -1e-5):
                moved = [phi.clone() for phi in logits]
                moved[site][k] += step
                losses.append(estimator.estimate(Joint(sizes), tuple(moved), noise).loss)
            # the temperature is an fp32 buffer, the same one on both sides
            torch.testing.assert_close((losses[0] - losses[1]) / 2e-5, grads[site][k], rtol=1e-5, atol=1e-8)


# --- state, rows, leaks ---------------------------------------------------------------------------------------------

SPACES = {"joint": (2, 3, 4), "binary": (2, 2)}
each_space = pytest.mark.parametrize("sizes", SPACES.values(), ids=SPACES)


@every_case
@each_space
@pytest.mark.parametrize("state", STATES)
def test_a_step_uses_only_what_earlier_steps_learned(case: Any, sizes: tuple[int, ...], state: str) -> None:
    logits = logits_like(sizes, (3,))
    oracles.check_state_is_of_earlier_steps(in_state(case, logits, state), logits)


@every_case
@each_space
def test_rows_are_estimates_of_their_own(case: Any, sizes: tuple[int, ...]) -> None:
    logits = logits_like(sizes, (6,))
    oracles.check_rows_are_apart(in_state(case, logits), logits)


@every_case
@each_space
@pytest.mark.parametrize("state", STATES)
def test_evaluation_changes_nothing(case: Any, sizes: tuple[int, ...], state: str) -> None:
    logits = logits_like(sizes, (3,))
    oracles.check_evaluation_is_pure(in_state(case, logits, state), logits)


@every_case
@each_space
@pytest.mark.parametrize("rows", [(), (3,)])
def test_nothing_leaks(case: Any, sizes: tuple[int, ...], rows: tuple[int, ...]) -> None:
    logits = logits_like(sizes, rows)
    oracles.check_nothing_leaks(in_state(case, logits), logits)


@fitted_case
@each_space
def test_a_fitting_loss_is_a_row_mean_and_accumulates(case: Any, sizes: tuple[int, ...]) -> None:
    """Rows that all repeat one row fit like that row, and a second step adds to `.grad`."""
    logits = logits_like(sizes)
    estimator = in_state(case, logits)
    if isinstance(tuner := getattr(estimator, "tuner", None), Regression):
        tuner.steps = tuner.every - 1  # the step before one that fits everything
    noise = estimator.draw(logits, seeded())
    if any(leaf.dim() != 1 for leaf in pytree.tree_leaves(noise)):
        pytest.skip("noise with leading dimensions, which this test cannot repeat")
    repeated = [pytree.tree_map(lambda leaf: leaf.expand(4, -1), of) for of in (logits, noise)]
    fits = []
    for phi, drawn, rows, times in [(logits, noise, (), 1), (*repeated, (4,), 1), (logits, noise, (), 2)]:
        one = copy.deepcopy(estimator).train()
        for _ in range(times):
            one.load_state_dict(estimator.state_dict())  # a running mean that a fit is relative to
            one.estimate(Joint(sizes, rows), phi, drawn)
        # what the form at hand does not use has none
        fits.append([parameter.grad for parameter in one.parameters() if parameter.grad is not None])
    assert any(bool(grad.abs().max() > 0) for grad in fits[0])
    same(fits[1], fits[0], "the fitting loss is no row mean", rtol=1e-4, atol=1e-5)
    same(fits[2], [2 * grad for grad in fits[0]], "the fit does not accumulate", rtol=1e-5, atol=1e-7)


@every_case
@pytest.mark.parametrize("rows", [(), (3,), (2, 3)])
def test_any_rows_may_follow_any(case: Any, rows: tuple[int, ...]) -> None:
    """No state has a row dimension."""
    estimator = make(case, (2, 2)).train()
    before = {name: value.shape for name, value in estimator.state_dict().items()}
    for following in [rows, (), (5,), rows]:
        logits = logits_like((2, 2), following)
        loss, _ = run(estimator, logits)
        assert loss.shape == torch.Size(following)
    assert {name: value.shape for name, value in estimator.state_dict().items()} == before


@every_case
def test_state_can_be_saved_and_loaded(case: Any) -> None:
    logits = logits_like((2, 2), (3,))
    estimator = in_state(case, logits).eval()
    other = make(case, (2, 2)).eval()
    other.load_state_dict(estimator.state_dict())
    same(run(other, logits), run(estimator, logits), "a loaded estimator differs")


# --- shapes, dtypes, autograd -----------------------------------------------------------------------------------------


@every_case
@each_space
@pytest.mark.parametrize("rows", [(), (1,), (3,), (2, 3)])
def test_shapes(case: Any, sizes: tuple[int, ...], rows: tuple[int, ...]) -> None:
    logits = tuple(site.requires_grad_() for site in logits_like(sizes, rows))
    estimator = in_state(case, logits, "randomised")
    for training in (True, False):
        loss, grads = run(estimator.train(training), logits)
        assert loss.shape == torch.Size(rows)
        assert isinstance(grads, tuple)
        assert [grad.shape for grad in grads] == [site.shape for site in logits]
        for value in (loss, *grads):
            assert not value.requires_grad
            assert bool(torch.isfinite(value).all())


@every_case
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(case: Any, dtype: torch.dtype, training: bool) -> None:
    """Gradients come in the logits' dtype; noise and samples in at least fp32."""
    logits = logits_like((2, 2), (3,), dtype=dtype)
    inner = torch.float64 if dtype == torch.float64 else torch.float32
    estimator = in_state(case, logits_like((2, 2)), "randomised").train(training)
    seen = []

    def objective(sample: oracles.Sites) -> torch.Tensor:
        seen.extend(site.dtype for site in sample)
        return Joint((2, 2), (3,), inner)(sample)

    noise = estimator.draw(logits, seeded())
    loss, grads = estimator.estimate(objective, logits, noise)
    assert loss.dtype == inner
    assert {grad.dtype for grad in grads} == {dtype}
    assert set(seen) == {inner}
    for leaf in pytree.tree_leaves(noise):
        assert not leaf.is_floating_point() or leaf.dtype == inner


@every_case
def test_an_objective_of_lower_precision_is_taken(case: Any) -> None:
    """Differences of a bfloat16 loss are taken in fp32: rounding them would bias what relies on Σ_s (f_s − f̄) = 0."""
    logits = logits_like((2, 2), (50,), dtype=torch.float32)
    estimator = in_state(case, logits_like((2, 2)))
    inner = Joint((2, 2), (50,), torch.float32)
    low = run(copy.deepcopy(estimator).train(), logits, lambda sample: inner(sample).bfloat16())
    high = run(copy.deepcopy(estimator).train(), logits, lambda sample: inner(sample).bfloat16().float())
    same(low, high, "arithmetic in bfloat16", rtol=1e-5, atol=1e-6)


@every_case
def test_many_rows_of_float16_logits_are_taken(case: Any) -> None:
    """Their log-normalisers add up to more than float16 holds."""
    logits = tuple(torch.zeros(60_000 // 16, 2, dtype=torch.float16) + 16 for _ in range(2))
    _, grads = run(make(case, (2, 2)), logits, Joint((2, 2), rows_of(logits), torch.float32))
    assert {grad.dtype for grad in grads} == {torch.float16}


@every_case
@pytest.mark.parametrize(
    ("wrong", "shape"),
    [
        (lambda value: value.mean(), "()"),
        (lambda value: value.unsqueeze(-1), "3, 1)"),
        (lambda value: value[..., :1], "1"),
    ],
    ids=["mean", "a dimension more", "one row"],
)
def test_an_objective_of_the_wrong_shape_is_refused(case: Any, wrong: Any, shape: str) -> None:
    """Broadcasting would make estimates of something else out of it."""
    logits = logits_like((2, 2), (3,))
    refused(
        lambda: run(make(case, (2, 2)), logits, lambda sample: wrong(Joint((2, 2), (3,))(sample))), "objective", shape
    )


@fitted_case
def test_frozen_parameters_are_left_alone(case: Any) -> None:
    """A control variate that is not tuned still corrects, in training mode."""
    logits = logits_like((2, 2), (3,))
    estimator = in_state(case, logits).train()
    expected = run(copy.deepcopy(estimator), logits)
    same(run(estimator.requires_grad_(False), logits), expected, "freezing changes the estimate", rtol=1e-10)
    assert all(parameter.grad is None for parameter in estimator.parameters())


@every_case
@each_space
@pytest.mark.parametrize("training", [True, False])
def test_backward_hands_the_estimate_to_autograd(case: Any, sizes: tuple[int, ...], training: bool) -> None:
    """Logits need not be leaves, expanded rows sum, `.grad` accumulates, and sites without gradients are left alone."""
    estimator = in_state(case, logits_like(sizes), "randomised").train(training)
    leaves = [site.requires_grad_() for site in logits_like(sizes)]
    leaves[0].requires_grad_(False)
    logits = tuple(2 * site.expand(5, -1) for site in leaves)
    expected = copy.deepcopy(estimator).estimate(Joint(sizes, (5,)), logits, estimator.draw(logits, seeded()))
    loss = copy.deepcopy(estimator).backward(Joint(sizes, (5,)), logits, generator=seeded())
    same(loss, expected.loss, "backward() returns another loss")
    assert not loss.requires_grad
    assert leaves[0].grad is None
    for leaf, grad in zip(leaves[1:], expected.grads[1:], strict=True):
        torch.testing.assert_close(leaf.grad, 2 * grad.sum(0))
    once = [leaf.grad.clone() for leaf in leaves[1:]]
    again = tuple(2 * site.expand(5, -1) for site in leaves)
    copy.deepcopy(estimator).backward(Joint(sizes, (5,)), again, generator=seeded())
    same([leaf.grad for leaf in leaves[1:]], [2 * grad for grad in once], "no accumulation", rtol=1e-12)


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_runs_under_no_grad_and_without_gradients(case: Any, training: bool) -> None:
    """Logits that ask for nothing and weights that do not exist: still an estimate, the same under `no_grad`."""
    logits = logits_like((2, 2), (3,))
    estimator = in_state(case, logits).train(training)
    frozen = Joint((2, 2), (3,)).requires_grad_(False)
    plain = copy.deepcopy(estimator).estimate(frozen, logits, estimator.draw(logits, seeded())).loss
    with torch.no_grad():
        loss, grads = run(copy.deepcopy(estimator), logits, frozen)
    same(loss, plain, "no_grad changes the loss")
    same(grads, run(copy.deepcopy(estimator), logits)[1], "no_grad changes the gradients")
    assert all(site.grad is None for site in logits)


@every_case
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:.* and f has no slope in any site of the sample:UserWarning")
def test_constant_objectives_are_taken(case: Any, training: bool) -> None:
    """An objective that no graph reaches (a table lookup, a constant) is an objective."""
    logits = logits_like((2, 2), (3,))
    loss, grads = run(
        in_state(case, logits).train(training),
        logits,
        lambda sample: 2 + 0 * sum(site[..., 0].detach() for site in sample),
    )
    same(loss, torch.full((3,), 2.0, dtype=torch.float64), "the loss of a constant", atol=1e-12)
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)


# --- randomness, counts, fake tensors -------------------------------------------------------------------------------


@every_case
@each_space
@pytest.mark.parametrize("rows", [(), (3,)])
def test_the_generator_decides(case: Any, sizes: tuple[int, ...], rows: tuple[int, ...]) -> None:
    logits = logits_like(sizes, rows)
    oracles.check_randomness(in_state(case, logits, "randomised"), logits)


@every_case
def test_construction_leaves_the_global_generator_alone(case: Any) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = make(case, (2, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    same(first.state_dict(), make(case, (2, 2)).state_dict(), "the initial state is not fixed")


@every_case
@each_space
@pytest.mark.parametrize("rows", [(), (3,)])
def test_evaluations_are_counted_right(case: Any, sizes: tuple[int, ...], rows: tuple[int, ...]) -> None:
    logits = logits_like(sizes, rows)
    estimator = in_state(case, logits, "randomised")
    calls = oracles.check_counts(estimator, logits)
    if estimator.unbiased and not estimator.relaxed:
        assert "control" not in calls, "a relaxed evaluation that `relaxed` denies"


@every_case
def test_an_objective_without_gradients_at_hard_samples_is_enough(case: Any) -> None:
    """`hard` may slice: whoever calls it wants no ∂f/∂sample, and only `__call__` and `control` give one."""
    logits = logits_like((2, 2), (3,))
    estimator = in_state(case, logits)
    spy, blunt = (Spy(Joint((2, 2), (3,)), (2, 2), (3,)) for _ in range(2))
    sliced = blunt.hard
    blunt.hard = lambda index: sliced(index).detach()  # type: ignore[method-assign]
    same(
        run(copy.deepcopy(estimator), logits, blunt),
        run(copy.deepcopy(estimator), logits, spy),
        "hard() is differentiated",
    )


@every_case
@pytest.mark.parametrize(("sizes", "rows"), [((2, 3, 4), (3,)), ((2, 2), ())], ids=["joint", "binary"])
def test_runs_on_fake_tensors(case: Any, sizes: tuple[int, ...], rows: tuple[int, ...]) -> None:
    make(case, sizes)
    oracles.check_fake(lambda: make(case, sizes), sizes, rows)


# --- extremes -------------------------------------------------------------------------------------------------------

EXTREMES = {
    "one_category": ((1,), 1.0),
    "ones_among_others": ((1, 3, 1), 1.0),
    "one_site": ((4,), 1.0),
    "many_sites": ((2,) * 200, 1.0),
    "many_categories": ((1000,), 1.0),
    "far_apart": ((2, 3), 50.0),
    "very_far_apart": ((2, 3), 1e4),
    "binary_far_apart": ((2, 2), 50.0),
}


@every_case
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes_are_finite(case: Any, extreme: str) -> None:
    """Loss, gradients and fits in fp32; a space that the estimator refuses by a ValueError is skipped."""
    dtype = torch.float32
    sizes, spread = EXTREMES[extreme]
    estimator = in_state(case, logits_like(sizes), "randomised")
    generator = seeded(6)
    logits = tuple(
        spread * (1 - 2 * torch.rand(16, size, generator=generator, dtype=torch.float64)).sign().to(dtype)
        for size in sizes
    )
    for training in (True, False):
        loss, grads = run(estimator.train(training), logits, Joint(sizes, (16,), dtype))
        assert bool(torch.isfinite(loss).all())
        for grad in grads:
            assert bool(torch.isfinite(grad).all())
            if grad.shape[-1] == 1 and name_of(case) not in WITHOUT_SHIFT:
                torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-5)
    for name, parameter in estimator.named_parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), f"the fit of {name} is not finite"


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forbidden_categories_stay_forbidden(case: Any, dtype: torch.dtype) -> None:
    """−inf: never sampled, and its gradient is zero; the fit stays finite."""
    inf = float("inf")
    logits = (
        torch.tensor([[-inf, 0.3], [0.3, 0.1]], dtype=dtype),
        torch.tensor([[0.2, 0.1], [0.4, -inf]], dtype=dtype),
    )
    estimator = in_state(case, logits_like((2, 2)), "randomised")
    seen: list[oracles.Sites] = []

    def objective(sample: oracles.Sites) -> torch.Tensor:
        seen.append(tuple(site.detach() for site in sample))
        return Joint((2, 2), (2,), dtype)(sample)

    for training, seed in [(True, 0), (False, 1), (True, 2), (False, 3)]:
        _, grads = run(estimator.train(training), logits, objective, seed)
        assert all(bool(torch.isfinite(grad).all()) for grad in grads)
        if name_of(case) not in WITHOUT_SHIFT:
            for grad, site in zip(grads, logits, strict=True):
                assert bool((grad[site == -inf] == 0).all())
    if case[0] not in ("exact", "partly_exact"):  # enumeration visits them, with weight zero
        for sample in seen:
            for x, site in zip(sample, logits, strict=True):
                assert bool((x[..., site == -inf] == 0).all())
    for name, parameter in estimator.named_parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), f"the fit of {name} is not finite"


@every_case
@pytest.mark.parametrize("infinite", ["value", "slope"])
def test_f_may_be_infinite_at_forbidden_categories(case: Any, infinite: str) -> None:
    """The value for every sample that has one, or only the slope. The estimates are those of a finite f."""
    inf = float("inf")
    logits = (
        torch.tensor([[-inf, 0.3, 0.1], [0.3, 0.1, -0.2]]).double(),
        torch.tensor([[0.2, -inf], [0.4, 0.1]]).double(),
    )
    estimator, sizes = in_state(case, logits_like((3, 2)), "randomised").eval(), (3, 2)
    f = Joint(sizes, (2,))

    def partly(sample: oracles.Sites) -> torch.Tensor:
        weights = [torch.where(site == -inf, x, 0).sum(-1) for x, site in zip(sample, logits, strict=True)]
        weight = weights[0] + weights[1]
        return f(sample) + (weight.sqrt() if infinite == "slope" else torch.where(weight > 0, inf, 0.0))

    for seed in range(6):
        expected, found = (run(copy.deepcopy(estimator), logits, g, seed) for g in (f, partly))
        same(found, expected, "not those of a finite f", rtol=1e-9, atol=1e-12)


# --- invariances ----------------------------------------------------------------------------------------------------

WITHOUT_SHIFT = {"straight_through[through=identity]"}
"""Cases whose gradients need not sum to zero over a site's categories: they do not go through a softmax."""

few = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@every_case
@few
@given(data=st.data())
def test_a_shift_of_one_site_changes_nothing(case: Any, data: st.DataObject) -> None:
    """Logits are defined up to a constant per site: equal noise gives equal estimates, which sum to zero per site."""
    sizes = data.draw(strategies.sizes())
    logits = data.draw(strategies.logits(sizes, data.draw(strategies.rows())))
    seed = data.draw(strategies.seeds)
    shift = data.draw(st.floats(-20, 20))
    try:
        estimator = randomise(estimators.get(case[0], sizes=sizes, **case[1])).eval()
    except ValueError:
        return
    loss, grads = run(estimator, logits, seed=seed)
    moved = run(estimator, (logits[0] + shift, *logits[1:]), seed=seed)
    # at t = 0.001 a softmax magnifies rounding a thousandfold, and fp32 surrogates round at 1e-7
    same(moved, (loss, grads), "a shift changes the estimate", rtol=1e-4, atol=1e-5)
    if name_of(case) not in WITHOUT_SHIFT:
        for grad in grads:
            scale = 1 + grad.abs().amax(-1)
            assert bool((grad.sum(-1).abs() <= 1e-5 * scale).all())


@given(data=st.data(), constant=st.floats(-100, 100), samples=st.integers(2, 5))
@few
def test_rloo_does_not_see_a_constant(data: st.DataObject, constant: float, samples: int) -> None:
    sizes = data.draw(strategies.sizes())
    logits = data.draw(strategies.logits(sizes, (3,)))
    estimator = estimators.get("rloo", sizes=sizes, samples=samples)
    inner = Joint(sizes, (3,))
    loss, grads = run(estimator, logits, inner)
    other_loss, other_grads = run(estimator, logits, lambda sample: inner(sample) + constant)
    same(other_loss, loss + constant, "loss", rtol=1e-9, atol=1e-9)
    same(other_grads, grads, "a constant changes the estimate", rtol=1e-9, atol=1e-9)


# --- errors ---------------------------------------------------------------------------------------------------------


def refused(call: Callable[[], Any], *words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the message is looked at below
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for word in words:
        assert word in message, message


@every_case
@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (logits_like((2,)), ["logits", "(2,)"]),
        (logits_like((2, 3)), ["logits", "(2, 2)"]),
        (logits_like((2, 2, 2)), ["logits"]),
        ((), ["logits"]),
        ((torch.zeros(3, 2), torch.zeros(2)), ["rows"]),
        ((torch.zeros(()), torch.zeros(2)), ["logits"]),
        ((torch.tensor([0.0, math.nan]), torch.zeros(2)), ["NaN"]),
        ((torch.tensor([0.0, math.inf]), torch.zeros(2)), ["inf"]),
        ((torch.tensor([-math.inf, -math.inf]), torch.zeros(2)), ["-inf"]),
    ],
    ids=["a site short", "wrong size", "a site more", "none", "rows differ", "no dimension", "NaN", "inf", "all -inf"],
)
def test_wrong_logits_are_refused(case: Any, logits: oracles.Sites, words: list[str]) -> None:
    estimator = make(case, (2, 2))
    noise = estimator.draw(logits_like((2, 2)), seeded())
    refused(lambda: estimator.estimate(Joint((2, 2)), logits, noise), *words)
    asking = tuple(site.clone().requires_grad_() for site in logits)
    refused(lambda: estimator.backward(Joint((2, 2)), asking, generator=seeded()), *words)


@every_case
@pytest.mark.parametrize("sizes", [(), (0,), (2, 0), (-1,)])
def test_wrong_sizes_are_refused(case: Any, sizes: tuple[int, ...]) -> None:
    refused(lambda: estimators.get(case[0], sizes=sizes, **case[1]), "size")


@every_case
def test_annealing_goes_from_zero_to_one(case: Any) -> None:
    estimator = make(case, (2, 2))
    for progress in (0, 0.5, 1):
        estimator.anneal(progress)
    for progress in (-0.1, 1.1, math.nan):
        refused(lambda progress=progress: estimator.anneal(progress), "progress")
