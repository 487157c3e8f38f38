"""Random gates: their formulas against quadrature, and the ARM gradient against enumeration."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators
from suites.rivals.gates import BETA, GAMMA, ZETA, Gates, hard_concrete, open_probability, stretched
from suites.rivals.l0_arm import BernoulliRun, GateObjective

LOGITS = torch.tensor([-4.0, -1.2, 0.0, 0.7, 2.2, 5.0], dtype=torch.float64)
N = 200_000
MIDPOINTS = (torch.arange(N, dtype=torch.float64) + 0.5) / N


def samples() -> Tensor:
    """Gates `(N, logits)` at equally spaced uniforms."""
    return hard_concrete(LOGITS.expand(N, -1), MIDPOINTS[:, None].expand(-1, len(LOGITS)))


def test_a_hard_concrete_gate_is_open_as_often_as_the_formula_says() -> None:
    torch.testing.assert_close((samples() > 0).double().mean(0), open_probability(LOGITS), atol=2 / N, rtol=0)


def test_the_mean_of_a_hard_concrete_gate_is_the_integral_of_its_distribution() -> None:
    """E[z] = ∫₀¹ P(z > x) dx, with P(s ≤ x) = σ(β logit x − φ) of the binary concrete distribution."""
    x = MIDPOINTS[:, None]
    above = 1 - torch.sigmoid(BETA * torch.logit((x - GAMMA) / (ZETA - GAMMA)) - LOGITS)
    torch.testing.assert_close(samples().mean(0), above.mean(0), atol=1e-4, rtol=0)


def test_the_constants_are_those_of_the_paper() -> None:
    assert (BETA, GAMMA, ZETA) == (2 / 3, -0.1, 1.1)


def test_the_final_gate_is_the_stretched_sigmoid() -> None:
    expected = [min(1.0, max(0.0, 1.2 / (1 + math.exp(-float(phi))) - 0.1)) for phi in LOGITS]
    assert stretched(LOGITS.sigmoid()).tolist() == pytest.approx(expected)
    assert expected[0] == 0.0 and expected[-1] == 1.0


def test_a_gate_passes_its_gradient_to_the_logit() -> None:
    logits, u = LOGITS.clone().requires_grad_(), torch.full_like(LOGITS, 0.4)
    hard_concrete(logits, u).sum().backward()
    near = [hard_concrete(LOGITS + h, u) for h in (1e-6, -1e-6)]
    torch.testing.assert_close(logits.grad, (near[0] - near[1]) / 2e-6, atol=1e-6, rtol=1e-4)


def stub(weight: Tensor | None = None) -> Any:
    """A run of two blocks with two gates and one gate, whose loss is not additive."""
    gates = Gates((2, 1), 0.6)
    with torch.no_grad():
        gates.logits.copy_(torch.tensor([0.8, -0.5, 0.3]))

    def loss(images: Tensor, labels: Tensor, *, masks: Any, momentum: float) -> Tensor:
        one, two = masks
        value = (1.5 * one[0] - one[1] * two[0] + 0.7) ** 2 + 2 * one.sum() * two[0]
        return value if weight is None else value * weight

    return SimpleNamespace(gates=gates, loss=loss)


@pytest.mark.parametrize("name", ["arsm", "disarm"])
def test_the_gradient_of_the_gates_is_unbiased(name: str) -> None:
    """Within 4.5 standard errors of enumeration in 4 numbers: a false alarm in 37,000 seeds."""
    weight = torch.ones((), requires_grad=True)
    run, generator = stub(weight), torch.Generator().manual_seed(0)
    estimator, phi = estimators.get(name, sizes=(2, 2, 2)), run.gates.logits
    objective = GateObjective(run, torch.zeros(1), torch.zeros(1))
    found = []
    for _ in range(1500):
        phi.grad = weight.grad = None
        estimator.backward(objective, BernoulliRun.sites(run), generator=generator)
        assert phi.grad is not None and weight.grad is not None
        found.append(torch.cat([phi.grad, weight.grad.view(1)]))
    drawn = torch.stack(found)
    exact = torch.zeros(())
    for corner in itertools.product((0.0, 1.0), repeat=3):
        z = torch.tensor(corner)
        p = torch.where(z > 0, phi.sigmoid(), 1 - phi.sigmoid()).prod()
        exact = exact + p * run.loss(None, None, masks=run.gates.split(z), momentum=0.1)
    wanted = torch.cat(
        [torch.autograd.grad(exact, phi, retain_graph=True)[0], torch.autograd.grad(exact, weight)[0].view(1)]
    )
    error = (drawn.mean(0) - wanted) / (drawn.std(0) / len(drawn) ** 0.5)
    assert error.abs().max() < 4.5
    assert wanted.abs().min() > 0.05


def test_soft_and_hard_samples_of_gates_agree_and_statistics_move_once() -> None:
    run, seen = stub(), []
    inner = run.loss
    run.loss = lambda *data, masks, momentum: seen.append(momentum) or inner(*data, masks=masks, momentum=momentum)
    objective = GateObjective(run, torch.zeros(1), torch.zeros(1))
    index = tuple(torch.tensor(site) for site in ([0, 1, 1], [1, 1, 0], [1, 0, 1]))
    hard = objective.hard(index)
    soft = objective(tuple(torch.nn.functional.one_hot(site, 2).float() for site in index))
    assert hard.shape == (3,) and torch.equal(hard, soft)
    left = 1.0
    for momentum in seen[:3]:
        left *= 1 - momentum
    assert left == pytest.approx(0.9)
