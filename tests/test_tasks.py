"""Tasks that are no network: their functions against enumeration, the VAE against its exact ELBO, runs that go on."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making import granted
from oracles import check_means, enumerate_expectation, logits_like, same
from torch import Tensor

import estimators
from suites import labels
from suites.measure import measure, reference
from suites.tasks import available, functions, polynomial
from suites.tasks.amortised_model import Run
from suites.tasks.base import Point, Truth
from suites.tasks.granted import Granted
from suites.tasks.multilinear import Multilinear
from suites.tasks.pixels import bound
from suites.tasks.polynomial import Polynomial
from suites.tasks.quadratic import Quadratic
from suites.tasks.toy import Joint
from suites.tasks.vae_model import Vae, divergence
from vmo.checkpoint import Keeper
from vmo.learner import Diverged

CPU = torch.device("cpu")
SMALL = {
    "vae.latents": 2, "vae.categories": 3, "vae.hidden": 8, "vae.layers": 1, "vae.steps": 12, "vae.batch_size": 16,
    "function.steps": 100,
}  # fmt: skip
ENUMERATED, SAMPLED = Truth(minibatches=60, enumerate=64), Truth(minibatches=60, enumerate=1)


def task(name: str, **changes: object) -> Granted:
    """The task, handed the settings of every role; changes are of dotted names."""
    return granted(name, *(f"{key}={value}" for key, value in {**SMALL, **changes}.items()))


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("categories", [2, 4])
def test_the_polynomial_knows_its_expectation(power: float, categories: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polynomial, "VARIABLES", 3)
    f = Polynomial(power, categories, CPU)
    logits = logits_like(f.sizes)
    value, grads = enumerate_expectation(f, logits)
    found = f.expectation(logits)
    same(found.loss, value, "E f", rtol=1e-6)
    same(list(found.grads), list(grads), "its gradient", rtol=1e-5, atol=1e-8)
    every = itertools.product(*(torch.eye(k, dtype=torch.float64) for k in f.sizes))
    assert f.minimum() == pytest.approx(min(float(f(corner)) for corner in every))
    index = torch.tensor([[0, 1, 1], [1, 1, 0]])
    corners = tuple(torch.eye(categories)[site] for site in index.unbind(-1))
    same(f.hard((*index.unbind(-1)[:2], index[:1, 2])), f((*corners[:2], corners[2][:1])), "at categories", rtol=1e-6)


def test_the_polynomial_is_that_of_the_papers() -> None:
    """128 variables, all of one value: |0 − t|^p and |1 − t|^p; half of each in between."""
    f = Polynomial(2.0, 2, CPU)
    assert len(f.sizes) == 128
    low, high = (tuple(torch.eye(2)[k] for _ in f.sizes) for k in (0, 1))
    assert float(f(low)) == pytest.approx(0.45**2)
    assert float(f(high)) == pytest.approx(0.55**2)
    assert float(f(low[:64] + high[64:])) == pytest.approx((0.45**2 + 0.55**2) / 2)
    assert float(f.expectation(tuple(torch.zeros(2) for _ in f.sizes)).loss) == pytest.approx((0.45**2 + 0.55**2) / 2)


def test_the_polynomial_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="categories >= 2"):
        Polynomial(2.0, 1, CPU)
    with pytest.raises(ValueError, match="power >= 1"):
        Polynomial(0.5, 2, CPU)


@pytest.mark.parametrize("f", [Joint(CPU), Quadratic(CPU), Multilinear(CPU)], ids=["toy", "quadratic", "multilinear"])
def test_functions_know_their_expectation_and_take_leading_dimensions(f: Joint) -> None:
    logits = logits_like(f.sizes)
    value, grads = enumerate_expectation(f, logits)
    found = f.expectation(logits)
    same((found.loss, *found.grads), (value, *grads), "by enumeration", rtol=1e-6, atol=1e-8)
    first, second, third = (torch.softmax(site, -1) for site in logits_like(f.sizes, (5,)))
    spread = f((first[:, None], second, third[None]))  # sites that broadcast
    assert spread.shape == (5, 5)
    torch.testing.assert_close(spread.diagonal(), f((first, second, third)))


@pytest.mark.parametrize(("name", "exact"), [("straight_through", "multilinear"), ("reinmax", "quadratic")])
def test_estimators_are_exact_where_their_task_says(name: str, exact: str) -> None:
    """On the task's own function, and straight-through is not on the quadratic one."""
    for which in ("multilinear", "quadratic"):
        f = {"multilinear": Multilinear, "quadratic": Quadratic}[which](CPU)
        logits = tuple(site.expand(40_000, -1) for site in logits_like(f.sizes))
        estimator = estimators.get(name, sizes=f.sizes)
        _, grads = estimator.estimate(f, logits, estimator.draw(logits, torch.Generator().manual_seed(0)))
        truth = torch.cat(list(f.expectation(logits_like(f.sizes)).grads))
        if which == exact or name == "reinmax":  # of second order, so exact on both
            check_means(torch.cat(list(grads), -1), truth)
        else:
            with pytest.raises(AssertionError):
                check_means(torch.cat(list(grads), -1), truth)


def test_a_step_of_many_rows_is_one_of_their_mean() -> None:
    f = Joint(CPU)
    run = functions.Run(f, estimators.get("rloo", sizes=f.sizes), rows=64, seed=3)
    run.step()
    found = [leaf.grad for leaf in run.leaves]
    estimator = estimators.get("rloo", sizes=f.sizes)
    rows = tuple(torch.zeros(64, size) for size in f.sizes)
    _, grads = estimator.estimate(f, rows, estimator.draw(rows, torch.Generator().manual_seed(3)))
    same([g.squeeze(0) for g in found if g is not None], [g.mean(0) for g in grads], "another", rtol=1e-4, atol=1e-6)


def test_a_reference_without_enumeration_estimates_the_exact_one() -> None:
    """Where all is fixed but the noise: leave-one-out in a few calls, whose mean is the gradient."""
    f = Joint(CPU)
    point = Point("mid", 0.5, logits_like(f.sizes), [], lambda stream, i: f, lambda e: None, stochastic=False)  # type: ignore[arg-type]
    exact = reference(point, ENUMERATED, None, 0, of=None)
    sampled = reference(point, SAMPLED, None, 0, of=None)
    assert exact.shape == (1, 9)
    assert sampled.shape == (3000, 9)
    check_means(torch.tensor(sampled), torch.tensor(exact[0]))
    known = reference(replace(point, gradient=f.expectation(point.logits).grads), SAMPLED, None, 0, of=None)
    np.testing.assert_allclose(known, exact, atol=1e-9)


def test_many_estimates_do_not_depend_on_how_many_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only on their noise: their mean is that of one call, within its error."""
    f = Joint(CPU)
    point = Point("mid", 0.5, logits_like(f.sizes), [], lambda stream, i: f, lambda e: None, stochastic=False)  # type: ignore[arg-type]
    estimator = estimators.get("rloo", sizes=f.sizes)
    whole = measure(point, estimator, 4000, 0).logits
    monkeypatch.setattr("suites.measure.TOGETHER", 1000)
    parts = measure(point, estimator, 4000, 0).logits
    assert parts.shape == whole.shape
    check_means(torch.tensor(parts - whole), torch.zeros(9, dtype=torch.float64))


# --- the VAE ----------------------------------------------------------------------------------------------------------


def tiny(seed: int = 0) -> tuple[Vae, Tensor]:
    """Two latent variables of three categories, five pixels, in float64, and three images."""
    torch.manual_seed(seed)
    vae = Vae(torch.tensor([0.2, 0.5, 0.7, 0.1, 0.9]), 2, 3, 1, 4).double()
    return vae, (torch.rand(3, 5) < 0.5).double()


def exact_elbo(vae: Vae, x: Tensor) -> Tensor:
    """−ELBO `(B,)`, by enumeration, with every distribution written out."""
    log_q = torch.log_softmax(vae.logits(x), -1)
    total = torch.zeros(len(x), dtype=torch.float64)
    for i, j in itertools.product(range(3), repeat=2):
        corner = torch.cat([torch.eye(3)[i], torch.eye(3)[j]]).double().expand(len(x), -1)
        p = torch.sigmoid(vae.decoder(corner))
        log_px = (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
        log_qz = log_q[:, 0, i] + log_q[:, 1, j]
        total = total + log_qz.exp() * (log_qz - log_px - 2 * math.log(1 / 3))
    return total


def test_a_step_of_the_vae_follows_the_gradient_of_the_elbo() -> None:
    """Encoder and decoder, exactly: with enumeration as the estimator."""
    vae, x = tiny()
    expected = torch.autograd.grad(exact_elbo(vae, x).sum(), list(vae.parameters()))
    exact = estimators.get("exact", sizes=(3, 3))
    run = Run(vae, exact, (x,), name="vae", lr=0.0, control_lr=0.0, batch_size=3, seed=0)
    run.train_on((x,))
    same([p.grad for p in vae.parameters()], list(expected), "the gradient", rtol=1e-8, atol=1e-11)


def test_a_step_of_the_vae_is_unbiased_where_its_estimator_is() -> None:
    vae, x = tiny()
    expected = torch.autograd.grad(exact_elbo(vae, x).sum(), list(vae.parameters()))
    run = Run(vae, estimators.get("rloo", sizes=(3, 3)), (x,), name="vae", lr=0.0, control_lr=0.0, batch_size=3, seed=0)
    found = []
    for _ in range(4000):
        run.train_on((x,))
        found.append(torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None]))
    check_means(torch.stack(found), torch.cat([g.flatten() for g in expected]))


def test_the_bound_is_the_elbo() -> None:
    vae, x = tiny()
    lost, rate = bound(vae, x, 100_000)
    torch.testing.assert_close(lost + rate, exact_elbo(vae, x).detach(), rtol=0.01, atol=0)
    q = torch.distributions.Categorical(logits=vae.logits(x))
    uniform = torch.distributions.Categorical(logits=torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(divergence(vae.logits(x)), torch.distributions.kl_divergence(q, uniform).sum(-1))


@pytest.mark.parametrize("estimator", ["rebar", "reinforce", "concrete"])
@pytest.mark.parametrize("name", ["vae", "toy", "polynomial"])
def test_a_run_goes_on_from_its_checkpoint(name: str, estimator: str, tmp_path: Path) -> None:
    """Bit-identical rows: what is trained, what the estimator learned, optimizers, the curve, and every generator."""
    make = labels.parse(estimator).make
    whole = task(name).run(make, 0, Keeper(tmp_path / "whole.safetensors", 1e9))

    class Killed(Exception):
        pass

    saved = 0

    class Stopping(Keeper):
        def offer(self, state: object) -> None:
            nonlocal saved
            super().offer(state)  # type: ignore[arg-type]
            saved += 1
            if saved == 7:
                raise Killed

    with pytest.raises(Killed):
        task(name).run(make, 0, Stopping(tmp_path / "run.safetensors", 0.0))
    again = task(name).run(make, 0, Keeper(tmp_path / "run.safetensors", 0.0))
    assert again == whole


@pytest.mark.parametrize("estimator", ["reinforce", "straight_through"])
def test_a_vae_that_diverges_says_so(estimator: str, tmp_path: Path) -> None:
    vae = task("vae", **{"vae.lr": 1e30, "vae.steps": 100})
    with pytest.raises(Diverged, match="not finite"):
        vae.run(labels.parse(estimator).make, 0, Keeper(tmp_path / "x"))


def test_a_bound_of_logits_that_are_not_finite_is_none() -> None:
    vae, x = tiny()
    with torch.no_grad():
        next(vae.encoder.parameters()).fill_(math.nan)
    with pytest.raises(Diverged, match="not finite"):
        bound(vae, x, 1)


def test_what_is_measured_of_the_vae_is_a_sum_over_images() -> None:
    """Rows of a point are images, each with logits of its own; bias is that of all of them together."""
    pixels = 64
    for point in task("vae").points(0):
        assert point.logits[0].shape == (4, 3)
        m = measure(point, estimators.get("exact", sizes=(3, 3)), 20, 0)
        assert m.logits.shape == (20, 4 * 2 * 3)
        assert m.evaluations == 9
        truth = reference(point, ENUMERATED, None, 0, of=None)
        np.testing.assert_allclose(m.logits, np.broadcast_to(truth, m.logits.shape), rtol=1e-4, atol=1e-6)
        soft = measure(point, estimators.get("concrete", sizes=(3, 3), temperature=1.0), 20, 0)
        assert soft.weights is not None and soft.hard_weights is not None
        assert soft.weights.shape[1] == (6 * 8 + 8) + (8 * pixels + pixels)  # of the decoder
        assert not np.allclose(soft.weights[: len(soft.hard_weights)], soft.hard_weights)


@pytest.mark.parametrize("name", available())
def test_every_task_has_a_row_in_the_readme(name: str) -> None:
    assert f"| `{name}` |" in (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
