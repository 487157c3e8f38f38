"""What the estimators are held against: enumeration, objectives, and the checks of their contract.

A check raises AssertionError. The contract suite calls it on every registered estimator, and the suite of planted
defects calls the same function on broken ones.

Means are compared by z-scores with a stated false-alarm rate, 1e-6 per check over all components (Bonferroni). The
threshold of a component is widened by the first Cornish-Fisher term of a studentised mean, |skewness| (2z² + 1) /
(6√n), since a rare category has skewed gradients. Generators are fixed, so a check that passes keeps passing.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from estimators import Estimator
from vmo.layers import Block

Sites = tuple[Tensor, ...]
INF = float("inf")

ROWS = 40_000
"""Independent estimates per check of a mean."""
ALARM = 1e-6
"""Probability that a check of means rejects a right estimator, for a generator seed chosen at random."""

LOGITS: dict[str, Sites] = {
    "joint": (
        torch.tensor([0.4, -0.3]),
        torch.tensor([0.5, -0.7, 0.2]),
        torch.tensor([-0.4, 0.9, 0.1, -1.0]),
    ),
    "one_site": (torch.tensor([0.3, -0.2, 1.0, -INF, -1.0]),),
    "binary": (torch.tensor([0.8, -0.4]), torch.tensor([-0.6, 0.1])),
    # every category but one is rare (0.25 % and 0.5 %) or forbidden
    "peaked": (torch.tensor([-6.0, 0.0]), torch.tensor([0.0, -5.3, -INF])),
}
LOGITS = {name: tuple(site.double() for site in sites) for name, sites in LOGITS.items()}


def sizes_of(logits: Sites) -> tuple[int, ...]:
    return tuple(site.shape[-1] for site in logits)


def count_passes_of(block: Block, report: Callable[[], None]) -> None:
    """Report every pass through the hidden channels of a block."""
    hidden = block._hidden

    def counted(*args: Any) -> tuple[Tensor, Tensor]:
        report()
        return hidden(*args)

    block._hidden = counted


def logits_like(
    sizes: Sequence[int], rows: Sequence[int] = (), seed: int = 1, dtype: torch.dtype = torch.float64
) -> Sites:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*rows, size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- objectives -----------------------------------------------------------------------------------------------------


class Joint(nn.Module):
    """f(x) = 1 + c·h + w d·h with h = tanh(Σ_l A_l x_l): neither additive over sites nor multilinear.

    Each row has a weight w of its own, so that `weight.grad` holds one estimate of E[∂f/∂w] = E[d·h] per row.
    """

    hidden = 6

    def __init__(self, sizes: Sequence[int], rows: Sequence[int] = (), dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = seeded(2)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.mixers = [normal(size, self.hidden) for size in sizes]
        self.c, self.d = normal(self.hidden), normal(self.hidden)
        self.weight = nn.Parameter(torch.full(tuple(rows), 0.7, dtype=dtype))

    def features(self, sample: Sites) -> Tensor:
        mixed = [site.to(mixer.dtype) @ mixer for site, mixer in zip(sample, self.mixers, strict=True)]
        return torch.tanh(sum(mixed[1:], mixed[0]))

    def forward(self, sample: Sites) -> Tensor:
        h = self.features(sample)
        return 1 + h @ self.c + self.weight * (h @ self.d)


class Multilinear(Joint):
    """f(x) = Σ_z table[z] Π_l x_l[z_l], with a weight w on a second table: linear in each site, joint over all."""

    def __init__(self, sizes: Sequence[int], rows: Sequence[int] = (), dtype: torch.dtype = torch.float64) -> None:
        super().__init__(sizes, rows, dtype)
        self.tables = torch.randn(2, *sizes, generator=seeded(3), dtype=torch.float64).to(dtype)

    def forward(self, sample: Sites) -> Tensor:
        letters = "abcdefgh"[: len(sample)]
        terms = ",".join(f"...{letter}" for letter in letters)
        value, slope = (torch.einsum(f"{letters},{terms}->...", table, *sample) for table in self.tables)
        return 1 + value + self.weight * slope


class Spy:
    """An objective with `hard` and `control` of its own, which writes down what is called and what it is shown.

    `control_weight` is used by `control` alone, so it must never get a gradient.
    """

    def __init__(self, inner: Joint, sizes: Sequence[int], rows: Sequence[int]) -> None:
        self.inner, self.sizes, self.rows = inner, tuple(sizes), tuple(rows)
        self.control_weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        self.calls: list[str] = []
        self.evaluations = 0
        self.relaxed = False

    def _note(self, name: str, value: Tensor) -> Tensor:
        lead = value.shape[: value.dim() - len(self.rows)]
        if value.shape != (*lead, *self.rows):
            raise AssertionError(f"{name} gave {tuple(value.shape)} for rows {self.rows}")
        self.calls.append(name)
        self.evaluations += math.prod(lead)
        return value

    def _look(self, sample: Sites) -> None:
        for site, size in zip(sample, self.sizes, strict=True):
            if site.shape[-1] != size or not torch.allclose(site.sum(-1), torch.ones_like(site[..., 0]), atol=1e-5):
                raise AssertionError(f"a sample outside the simplex of {size} categories")
            self.relaxed |= bool(((site != 0) & (site != 1)).any())

    def __call__(self, sample: Sites) -> Tensor:
        self._look(sample)
        return self._note("__call__", self.inner(sample))

    def hard(self, index: Sites) -> Tensor:
        for site, size in zip(index, self.sizes, strict=True):
            if site.dtype != torch.int64 or not bool(((site >= 0) & (site < size)).all()):
                raise AssertionError(f"not an int64 index of {size} categories")
        sample = tuple(
            nn.functional.one_hot(site, size).to(self.inner.weight.dtype)
            for site, size in zip(index, self.sizes, strict=True)
        )
        return self._note("hard", self.inner(sample))

    def control(self, sample: Sites) -> Tensor:
        self._look(sample)
        tilt = self.control_weight.to(sample[0].dtype) * sum(site[..., 0] ** 2 for site in sample)
        return self._note("control", self.inner(sample) + tilt)


# --- oracles --------------------------------------------------------------------------------------------------------


def enumerate_expectation(objective: Callable[[Sites], Tensor], logits: Sites) -> tuple[Tensor, Sites]:
    """E f `()` and its gradient `(K_l,)` per site: autograd through Σ_z Π_l p_l(z_l) f(z), by itertools."""
    phi = tuple(site.detach().double().requires_grad_() for site in logits)
    p = [torch.softmax(site, -1) for site in phi]
    total = torch.zeros((), dtype=torch.float64)
    for z in itertools.product(*(range(size) for size in sizes_of(logits))):
        corner = tuple(torch.eye(len(probs), dtype=torch.float64)[k] for k, probs in zip(z, p, strict=True))
        with torch.no_grad():
            value = objective(corner)
        total = total + math.prod([probs[k] for k, probs in zip(z, p, strict=True)], start=value)
    return total.detach(), torch.autograd.grad(total, phi)


def enumerate_weight_gradient(objective: Joint, logits: Sites) -> Tensor:
    """E[∂f/∂w] `()`, for the objective's one weight."""

    def slope(sample: Sites) -> Tensor:
        with torch.enable_grad():
            (grad,) = torch.autograd.grad(objective(sample), objective.weight)
        return grad

    return enumerate_expectation(slope, logits)[0]


def pathwise(objective: Callable[[Sites], Tensor], logits: Sites, u: Sites, temperature: float) -> Sites:
    """∂f(softmax((φ + G) / t))/∂φ by autograd through the sample, on given uniforms."""
    phi = tuple(site.detach().requires_grad_() for site in logits)
    soft = tuple(
        torch.softmax((site - torch.log(-torch.log(noise))) / temperature, -1)
        for site, noise in zip(phi, u, strict=True)
    )
    return torch.autograd.grad(objective(soft).sum(), phi)


def conditional_by_rejection(log_p: Tensor, winner: int, draws: int, seed: int) -> Tensor:
    """Perturbed log-probabilities `(n, K)` of those draws whose largest entry is `winner`."""
    u = torch.rand(draws, len(log_p), generator=seeded(seed), dtype=torch.float64)
    z = log_p - torch.log(-torch.log(u))
    return z[z.argmax(-1) == winner]


# --- state ----------------------------------------------------------------------------------------------------------


def randomise(estimator: Estimator, seed: int = 1) -> Estimator:
    """Move every parameter by at least 0.5: a surrogate that starts at zero hides what is wrong with it.

    So does one at a low temperature, which hardly varies between vertices: the seed is one that raises it.
    """
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in estimator.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(torch.copysign(0.5 + 0.5 * noise.abs(), noise))
    return estimator


def train(estimator: Estimator, logits: Sites, steps: int = 10) -> Estimator:
    """Some training steps of the estimator's own state, at fixed logits `(K_l,)`."""
    objective = Joint(sizes_of(logits), (8,))
    rows = tuple(site.expand(8, -1) for site in logits)
    parameters = list(estimator.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.02) if parameters else None
    generator = seeded(5)
    estimator.train()
    for _ in range(steps):
        estimator.zero_grad()
        estimator.estimate(objective, rows, estimator.draw(rows, generator))
        if optimizer is not None:
            optimizer.step()
    estimator.zero_grad()
    return estimator


def snapshot(estimator: Estimator) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in estimator.state_dict().items()}


def rows_of(logits: Sites) -> torch.Size:
    return logits[0].shape[:-1]


def run(
    estimator: Estimator, logits: Sites, objective: Callable[[Sites], Tensor] | None = None, seed: int = 0
) -> tuple[Tensor, Sites]:
    """One estimate from a fixed seed, by default of `Joint`."""
    objective = Joint(sizes_of(logits), rows_of(logits)) if objective is None else objective
    loss, grads = estimator.estimate(objective, logits, estimator.draw(logits, seeded(seed)))
    return loss, grads


def same(got: Any, expected: Any, what: str, rtol: float = 0.0, atol: float = 0.0) -> None:
    for one, other in zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")


# --- checks of means ------------------------------------------------------------------------------------------------


def check_means(samples: Tensor, truth: Tensor, what: str = "", alarm: float = ALARM, rare: float = 1.0) -> float:
    """Reject if the mean of independent samples `(n, m)` is not the truth `(m,)`.

    `rare` is the probability of the rarest draw. Returns the resolution: the smallest relative error of one component
    that would have been rejected.
    """
    n, m = samples.shape
    mean = samples.mean(0)
    centred = samples - mean
    sd = centred.square().sum(0).div(n - 1).sqrt()
    # rounding alone is no error: below it lies the spread of an exact estimator
    se = (sd / n**0.5).hypot(1e-10 * (1 + truth.abs()))
    z0 = float(stats.norm.isf(alarm / (2 * m)))
    skewness = (centred.pow(3).mean(0) / sd.pow(3)).nan_to_num(0, 0, 0).abs()
    threshold = z0 + skewness * (2 * z0**2 + 1) / (6 * n**0.5)
    # What was never drawn moved the mean as well: of probability −log(alarm) / n at most, by about the truth and 1.
    if rare < -math.log(alarm) / n:
        threshold = threshold + torch.where(sd > 1e-12, -math.log(alarm) / n * (1 + truth.abs()), 0) / se
    z = (mean - truth) / se
    if not bool((z.abs() <= threshold).all()):
        worst = int((z.abs() / threshold).nan_to_num(INF).argmax())
        raise AssertionError(
            f"{what} component {worst} of {m}: mean {mean[worst]:.5g} of {n}, expected {truth[worst]:.5g}, "
            f"z = {z[worst]:.1f}, threshold {threshold[worst]:.1f}"
        )
    told = truth.abs() > 1e-3
    return float((threshold * se / truth.abs())[told].min()) if bool(told.any()) else INF


def check_unbiased(
    estimator: Estimator,
    logits: Sites,
    objective_type: type[Joint] = Joint,
    *,
    rows: int = ROWS,
    per_call: int | None = None,
    seed: int = 0,
) -> float:
    """E[loss] = E f, E[grads] = ∂E f/∂logits and E[weight.grad] = E[∂f/∂w], by enumeration; returns the resolution.

    All rows go into one call, which finds what is wrong with one estimate; with `per_call` they go a few at a time,
    which also finds what rows do to each other (a fit on the samples that it corrects is wrong by 1/rows).
    """
    sizes = sizes_of(logits)
    rows = min(rows, 200_000 // estimator.evaluations)
    per_call = rows if per_call is None else per_call
    generator = seeded(seed)
    objective = objective_type(sizes, (per_call,))
    expanded = tuple(site.expand(per_call, -1) for site in logits)
    samples = []
    for _ in range(rows // per_call):
        objective.zero_grad()
        loss, grads = estimator.estimate(objective, expanded, estimator.draw(expanded, generator))
        assert objective.weight.grad is not None, "the weights got no gradient"
        samples.append(torch.cat([loss.unsqueeze(-1), objective.weight.grad.unsqueeze(-1), *grads], -1))
    single = objective_type(sizes)
    value, slopes = enumerate_expectation(single, logits)
    truth = torch.cat([value.view(1), enumerate_weight_gradient(single, logits).view(1), *slopes])
    possible = (torch.softmax(site, -1) for site in logits)
    rare = math.prod(float(p[p > 0].min()) for p in possible)
    return check_means(torch.cat(samples).double(), truth, "(loss, weight, logits)", rare=rare)


def check_pathwise(estimator: Estimator, logits: Sites) -> None:
    """The estimate is ∂f(softmax((φ + G) / t))/∂φ on its own noise, with t the estimator's temperature."""
    objective = Joint(sizes_of(logits), rows_of(logits))
    noise = estimator.draw(logits, seeded())
    _, grads = estimator.estimate(objective, logits, noise)
    expected = pathwise(objective, logits, noise, float(estimator.temperature.value))
    same(grads, expected, "not the pathwise gradient", rtol=1e-6, atol=1e-7)


# --- checks of behaviour --------------------------------------------------------------------------------------------


def check_state_is_of_earlier_steps(estimator: Estimator, logits: Sites) -> None:
    """What a training step learns is not used in that step: on equal noise its estimate is that of `eval()`."""
    evaluated = run(copy.deepcopy(estimator).eval(), logits)
    trained = run(copy.deepcopy(estimator).train(), logits)
    same(trained, evaluated, "training and evaluation differ", rtol=1e-6, atol=1e-8)


def check_rows_are_apart(estimator: Estimator, logits: Sites) -> None:
    """What happens in one row changes no other row's estimate, given the state; logits have rows `(R,)`."""
    for mode in (True, False):
        before = run(copy.deepcopy(estimator).train(mode), logits)
        objective = Joint(sizes_of(logits), rows_of(logits))
        with torch.no_grad():
            objective.weight[0] += 5
        moved = tuple(torch.cat([site[:1].flip(-1), site[1:]]) for site in logits)
        after = run(copy.deepcopy(estimator).train(mode), moved, objective)
        loss, grads = before
        other_loss, other_grads = after
        assert any(not torch.equal(a[0], b[0]) for a, b in zip(grads, other_grads, strict=True))
        same(other_loss[1:], loss[1:], "a row's loss moved with another row", rtol=1e-6, atol=1e-8)
        rest = [[site[1:] for site in of] for of in (other_grads, grads)]
        same(rest[0], rest[1], "a row's gradient moved with another row", rtol=1e-6, atol=1e-8)


def check_evaluation_is_pure(estimator: Estimator, logits: Sites) -> None:
    """In `eval()` mode nothing changes: no buffer, no parameter, no gradient, and so not the next estimate."""
    estimator = copy.deepcopy(estimator).eval()
    estimator.zero_grad()
    before = snapshot(estimator)
    first = run(estimator, logits)
    second = run(estimator, logits)
    same(second, first, "two evaluations of one noise differ")
    same(snapshot(estimator), before, "evaluation moved the state")
    assert not estimator.training
    grown = [name for name, parameter in estimator.named_parameters() if parameter.grad is not None]
    assert not grown, f"evaluation filled the gradient of {grown}"


def check_nothing_leaks(estimator: Estimator, logits: Sites) -> None:
    """Logits and weights get the estimate and nothing else, in both modes; `control` trains no weight."""
    sizes, rows = sizes_of(logits), rows_of(logits)
    weights = []
    for mode in (False, True):
        one = copy.deepcopy(estimator).train(mode)
        leaves = tuple(site.clone().requires_grad_() for site in logits)
        objective = Spy(Joint(sizes, rows), sizes, rows)
        _, grads = one.estimate(objective, leaves, one.draw(leaves, seeded()))
        assert all(site.grad is None for site in leaves), "estimate() wrote into the logits' gradient"
        assert all(site.is_leaf and site.requires_grad for site in leaves)
        assert objective.control_weight.grad is None, "a weight was trained through control()"
        assert objective.inner.weight.grad is not None, "the weights got no gradient"
        weights.append(objective.inner.weight.grad)

        other = copy.deepcopy(estimator).train(mode)
        objective = Spy(Joint(sizes, rows), sizes, rows)
        other.backward(objective, leaves, generator=seeded())
        same([site.grad for site in leaves], grads, "backward() gave the logits something else than estimate()")
        same(objective.inner.weight.grad, weights[-1], "backward() gave the weights something else than estimate()")
        fits = [[parameter.grad for parameter in which.parameters()] for which in (one, other)]
        same(fits[0], fits[1], "backward() and estimate() fit differently")
    same(weights[1], weights[0], "the fitting loss reached the weights", rtol=1e-6, atol=1e-8)


def check_counts(estimator: Estimator, logits: Sites) -> list[str]:
    """`evaluations` and `relaxed` are what the objective sees, in both modes, as a plain callable and with methods."""
    sizes, rows = sizes_of(logits), rows_of(logits)
    estimator = copy.deepcopy(estimator)
    names: set[str] = set()
    for mode, plain in itertools.product((True, False), repeat=2):
        spy = Spy(Joint(sizes, rows), sizes, rows)
        seen = run(estimator.train(mode), logits, (lambda sample, spy=spy: spy(sample)) if plain else spy)
        assert bool(torch.isfinite(seen[0]).all())
        assert spy.evaluations == estimator.evaluations, f"{spy.evaluations} evaluations, not {estimator.evaluations}"
        for seed in range(1, 20):  # a relaxation may draw a hard sample too
            if estimator.relaxed and not spy.relaxed:
                run(estimator, logits, spy, seed)
        assert spy.relaxed == estimator.relaxed, f"relaxed is {estimator.relaxed}, the objective saw {spy.relaxed}"
        names |= set() if plain else set(spy.calls)
    return sorted(names)


def check_randomness(estimator: Estimator, logits: Sites) -> None:
    """The generator alone decides: equal seeds, equal estimates; other seeds, others; the global one is not used."""
    estimator = copy.deepcopy(estimator).eval()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    noise = estimator.draw(logits, seeded())
    again = estimator.draw(logits, seeded())
    same(again, noise, "draw() is not decided by the generator")
    generator = seeded()
    estimator.draw(logits, generator)
    other = estimator.draw(logits, generator)
    leaves = pytree.tree_leaves(noise)
    if leaves:
        assert not all(torch.equal(a, b) for a, b in zip(leaves, pytree.tree_leaves(other), strict=True))
    objective = Joint(sizes_of(logits), rows_of(logits))
    first = estimator.estimate(objective, logits, noise)
    torch.manual_seed(1)
    same(estimator.estimate(objective, logits, noise), first, "the noise does not decide the estimate")
    torch.manual_seed(0)
    run(copy.deepcopy(estimator).train(), logits)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    for leaf in leaves:
        assert not leaf.is_floating_point() or leaf.dtype in (torch.float32, torch.float64), leaf.dtype


@contextmanager
def fake_mode() -> Iterator[None]:
    """FakeTensorMode with everything made inside it; reading a value (`.item()`, a branch) raises."""
    with FakeTensorMode():
        yield


def check_fake(make: Callable[[], Estimator], sizes: Sequence[int], rows: Sequence[int]) -> None:
    """draw() and estimate() run on tensors without values, in both modes."""
    with fake_mode():
        estimator = make()
        for mode in (True, False):
            estimator.train(mode)
            logits = tuple(torch.randn(*rows, size) for size in sizes)
            objective = Joint(sizes, rows, torch.float32)
            noise = estimator.draw(logits, torch.Generator().manual_seed(0))
            loss, grads = estimator.estimate(objective, logits, noise)
            assert loss.shape == torch.Size(rows)
            assert [grad.shape for grad in grads] == [site.shape for site in logits]
