"""The fit of control variates, by finite differences, and the arithmetic of `exact` where it is hardest."""

import pytest
import torch
from torch import Tensor

import estimators
from estimators import Estimator

SIZES = (2, 3)


def objective(sample: tuple[Tensor, ...]) -> Tensor:
    """Joint and not quadratic."""
    return torch.tanh(2 * sample[0][..., 0] - sample[1][..., 1] + sample[0][..., 1] * sample[1][..., 2]) + 0.3


@pytest.mark.parametrize(
    ("name", "options"), [("rebar", {}), ("relax", {}), ("relax", {"relaxed_objective": True, "hidden": 3})]
)
def test_the_fit_descends_the_row_mean_of_the_squared_estimate(name: str, options: dict[str, object]) -> None:
    """`.grad` against central differences of mean ‖g‖² on the same noise, in float64, for every parameter."""
    estimator = estimators.get(name, sizes=SIZES, **options).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    rows = 7
    logits = tuple(torch.randn(rows, k, generator=generator, dtype=torch.float64) for k in SIZES)
    noise = estimator.draw(logits, generator)

    def squared(model: Estimator) -> Tensor:
        grads = model.eval().estimate(objective, logits, noise).grads
        return torch.stack([g.square().sum(-1) for g in grads]).sum(0).mean()

    estimator.train().estimate(objective, logits, noise)
    fitted = {key: parameter.grad.clone() for key, parameter in estimator.named_parameters()}  # type: ignore[union-attr]
    step = 1e-6
    for key, parameter in estimator.named_parameters():
        flat = parameter.data.view(-1)
        for i in range(len(flat)):
            kept = flat[i].item()
            ends = []
            for sign in (1, -1):
                flat[i] = kept + sign * step
                ends.append(squared(estimator))
            flat[i] = kept
            slope = (ends[0] - ends[1]) / (2 * step)
            assert fitted[key].view(-1)[i] == pytest.approx(slope.item(), rel=1e-5, abs=1e-8), key


def test_exact_keeps_its_digits_beside_a_large_constant() -> None:
    """fp32 values of f near 100 have an ulp of 8e-6; sums in fp32 would add 4,096 of them up to some per cent."""
    sizes = (8, 8, 8, 8)
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(k, generator=generator) for k in sizes]
    logits = tuple(torch.randn(k, generator=generator) for k in sizes)

    def f(sample: tuple[Tensor, ...], constant: float = 0.0) -> Tensor:
        terms = [(x.double() * t.double()).sum(-1) for x, t in zip(sample, tables, strict=True)]
        return torch.tanh(torch.stack(terms).sum(0)) * 0.1 + constant

    exact = estimators.get("exact", sizes=sizes)
    plain = torch.cat(exact.estimate(f, logits, ()).grads)
    shifted = torch.cat(exact.estimate(lambda s: f(s, 100.0).float(), logits, ()).grads)
    assert (shifted - plain).norm() < 2e-3 * plain.norm()


def test_exact_does_not_ask_about_forbidden_categories() -> None:
    w = torch.ones((), requires_grad=True)
    slopes = torch.tensor([1.0, float("inf"), 3.0])

    def f(sample: tuple[Tensor, ...]) -> Tensor:
        return w * torch.where(sample[0] > 0, slopes, 0.0).sum(-1)

    logits = (torch.tensor([0.1, -torch.inf, 0.3]),)
    loss, (grad,) = estimators.get("exact", sizes=(3,)).estimate(f, logits, ())
    p = torch.softmax(logits[0], -1)
    mean = p[0] + 3 * p[2]
    torch.testing.assert_close(loss, mean)
    torch.testing.assert_close(w.grad, mean)
    torch.testing.assert_close(grad, torch.tensor([p[0] * (1 - mean), 0.0, p[2] * (3 - mean)]))


@pytest.mark.parametrize("name", estimators.available())
def test_autocast_around_an_estimator_is_refused_and_inside_the_objective_is_not(name: str) -> None:
    estimator = estimators.get(name, sizes=SIZES)
    logits = tuple(torch.zeros(k) for k in SIZES)
    noise = estimator.draw(logits)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="inside the objective"):
        estimator.estimate(objective, logits, noise)

    def cast(sample: tuple[Tensor, ...]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return objective(sample)

    assert estimator.estimate(cast, logits, noise).loss.isfinite()


@pytest.mark.parametrize(("name", "options"), [("rebar", {}), ("relax", {"relaxed_objective": True, "hidden": 3})])
def test_the_regression_is_one_and_its_difference_quotient_is_a_slope(name: str, options: dict[str, object]) -> None:
    """η is Σ aᵀd / Σ dᵀd of the steps before, and what reaches log λ is ∂ mean ‖a − η d‖²/∂ log λ."""
    estimator = estimators.get(name, sizes=SIZES, coupled=True, tuning="regression", every=2, **options).double()
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter += 0.3
    generator = torch.Generator().manual_seed(3)
    logits = tuple(torch.randn(500, k, generator=generator, dtype=torch.float64) for k in SIZES)
    noise = estimator.draw(logits, generator)

    def estimates(eta: float) -> Tensor:
        """g = a − η d of the noise, `(rows, Σ K)`."""
        estimator.tuner.cross.fill_(eta)  # type: ignore[operator]
        estimator.tuner.square.fill_(1.0)  # type: ignore[operator]
        return torch.cat(estimator.eval().estimate(objective, logits, noise).grads, -1)

    a, d = estimates(0.0), estimates(0.0) - estimates(1.0)
    estimator.tuner.cross.zero_()  # type: ignore[operator]
    estimator.tuner.square.zero_()  # type: ignore[operator]
    estimator.train()
    torch.testing.assert_close(
        torch.cat(estimator.estimate(objective, logits, noise).grads, -1), a - d
    )  # η = 1 at first
    assert estimator.log_temperature.grad is None  # type: ignore[union-attr]
    eta = float(estimator.tuner.cross / estimator.tuner.square)  # type: ignore[operator]
    best, prior = float((a * d).sum() / (d * d).sum()), 10 * 0.99  # ten steps of η = 1, one step ago
    assert eta == pytest.approx((prior * 1 + best) / (prior + 1), rel=1e-9)
    second = torch.cat(estimator.estimate(objective, logits, noise).grads, -1)
    torch.testing.assert_close(second, a - eta * d)  # of the steps before it alone

    def squared(log_temperature: float) -> float:
        kept = estimator.log_temperature.data.clone()  # type: ignore[union-attr]
        estimator.log_temperature.data.fill_(log_temperature)  # type: ignore[union-attr]
        found = estimates(eta).square().sum(-1).mean()
        estimator.log_temperature.data.copy_(kept)  # type: ignore[union-attr]
        return float(found)

    at = float(estimator.log_temperature.detach())  # type: ignore[arg-type]
    slope = (squared(at + 1e-5) - squared(at - 1e-5)) / 2e-5
    quotients = []
    for step in (2, 4):  # the signs in turn, so that their mean is a central difference
        estimator.zero_grad()
        estimates(eta)
        estimator.tuner.steps = step - 1
        estimator.train().estimate(objective, logits, noise)
        quotients.append(float(estimator.log_temperature.grad))  # type: ignore[arg-type]
    assert quotients[0] != pytest.approx(quotients[1], rel=1e-3)
    assert sum(quotients) / 2 == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize(("name", "options"), [("rebar", {}), ("relax", {"relaxed_objective": True})])
def test_a_step_that_tunes_the_temperature_costs_an_evaluation_and_estimates_the_same(
    name: str, options: dict[str, object]
) -> None:
    weight = torch.ones((), requires_grad=True)
    relaxed = []

    class Counting:
        def __call__(self, sample: tuple[Tensor, ...]) -> Tensor:
            return weight * objective(sample)

        def control(self, sample: tuple[Tensor, ...]) -> Tensor:
            relaxed.append(sample)
            return weight.detach() * objective(sample)

    logits = tuple(torch.randn(3, k, generator=torch.Generator().manual_seed(0)) for k in SIZES)
    found = []
    for steps in (0, 4):
        estimator = estimators.get(name, sizes=SIZES, coupled=True, tuning="regression", every=5, **options)
        estimator.tuner.steps = steps  # type: ignore[assignment]
        weight.grad = None
        relaxed.clear()
        estimate = estimator.estimate(Counting(), logits, estimator.draw(logits, torch.Generator().manual_seed(1)))
        assert len(relaxed) == (2 if steps == 4 else 1)
        assert (estimator.log_temperature.grad is not None) == (steps == 4)  # type: ignore[union-attr]
        found.append((torch.cat(estimate.grads, -1), weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
