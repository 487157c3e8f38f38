"""Published numbers beside ours: what is measured, and the verdicts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

import estimators
from suites.scripts import EXPERIMENTS, LONG
from suites.scripts.published import arm, arsm, images, registry, structured, sum_and_sample, unordered
from suites.scripts.published import relax as toy
from suites.scripts.published.experiment import KNOWN, Arm, Asked, Experiment, Number
from suites.scripts.published.line import Line

ALL = [(experiment, one) for experiment in registry.EXPERIMENTS.values() for one in experiment.arms]
SHORT = {"arm": 1000, "bernoulli": 100, "arsm": 2, "sum_and_sample": 100, "unordered": 100}


def steps(count: int) -> Iterable[int]:
    return range(1, count + 1)


def asked(name: str, length: int, seed: int = 0) -> Asked:
    return Asked(name, seed, length, steps)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(250, 784, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(images, "intensities", lambda root: (x[:200], x[200:]))
    monkeypatch.setattr(structured, "SAMPLES", 10)
    monkeypatch.setattr(structured, "CHUNK", 50)


# --- what is measured -----------------------------------------------------------------------------------------------


def test_what_may_be_asked_for_is_what_there_is() -> None:
    assert tuple(registry.EXPERIMENTS) == EXPERIMENTS
    assert tuple(name for name, experiment in registry.EXPERIMENTS.items() if experiment.long) == LONG


def test_there_are_numbers_of_seven_papers() -> None:
    assert len({experiment.arxiv for experiment, _ in ALL}) == 7
    for experiment, one in ALL:
        assert experiment.length > 0 and experiment.setting.endswith(".")
        for number in one.numbers:
            assert number.known in KNOWN and number.within > 0 and number.place
    for experiment in registry.EXPERIMENTS.values():
        names = [one.name for one in experiment.arms]
        assert len(set(names)) == len(names)  # the key of stored values


@pytest.mark.parametrize(("experiment", "one"), ALL, ids=lambda x: x.name)
@pytest.mark.usefixtures("few_images")
def test_a_short_run_gives_every_number(experiment: Experiment, one: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "DRAWS", 100)
    length = SHORT.get(experiment.name, 1 if experiment.unit == "epochs" else 20)
    found = experiment.measure(asked(one.name, length))
    assert len(found) == len(one.numbers)
    assert all(math.isfinite(value) for value in found)


def test_the_variance_of_arm() -> None:
    best, greatest, ratio = arm.measure(asked("arsm", 200_000))
    t = (5**0.5 - 1) / 2  # |P(b = 1) − P(b = 0)| of the greatest variance
    assert best == pytest.approx((1 + t) / 2, abs=1e-3)
    assert greatest == pytest.approx(0.039788, abs=5e-7)
    assert ratio == pytest.approx(16 * 0.039788, abs=1e-5) and ratio < 16 / 25


def test_the_toy_of_relax_begins_at_its_exact_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "DRAWS", 20_000)
    found = toy.measure(asked("reinforce[baseline=none]", 5))
    assert found[0] == pytest.approx(-4.1589, abs=0.02)


@pytest.mark.parametrize("label", ["exact", "reinmax", "straight_through"])
def test_the_polynomial_begins_in_the_middle(label: str) -> None:
    (value,) = registry.EXPERIMENTS["polynomial"].measure(asked(label, 3))
    assert value == pytest.approx((0.45**2 + 0.55**2) / 2, abs=1e-3)


def outcomes() -> list[tuple[float, float]]:
    """f and the score in θ of the 8 configurations of three Bernoulli variables."""
    every = itertools.product((0, 1), repeat=3)
    return [(sum((b - p) ** 2 for b, p in zip(z, (0.6, 0.51, 0.48), strict=True)), sum(z) - 1.5) for z in every]


def test_sums_and_samples_have_their_exact_variance() -> None:
    every = outcomes()
    derivative = sum(f * s for f, s in every) / 8
    assert sum_and_sample.measure(asked("derivative", 1)) == [pytest.approx(derivative)]
    assert derivative == pytest.approx(-0.045)
    squares = [((f - other) * s) ** 2 for f, s in every for other, _ in every]
    one = sum(squares) / 64 - derivative**2
    mean = sum(f for f, _ in every) / 8
    spread = sum((f - mean) ** 2 for f, _ in every) / 8
    summed = sum(s**2 for _, s in every) / 64 * spread
    # 5 standard errors of a variance of 20,000 draws, of kurtosis up to 4
    for label, exact in ((sum_and_sample.SAMPLED, one), (sum_and_sample.SUMMED, summed)):
        assert sum_and_sample.measure(asked(label, 20_000)) == [pytest.approx(exact, rel=5 * (3 / 20_000) ** 0.5)]


def test_an_unordered_set_of_all_configurations_is_exact() -> None:
    mean, variance = unordered.measure(asked(unordered.EVERY, 50))
    assert mean == pytest.approx(-0.045) and variance < 1e-20


def test_arsm_climbs() -> None:
    (start,), (later,) = arsm.measure(asked("arsm", 0)), arsm.measure(asked("arsm", 100))
    assert start == pytest.approx(0.5 + 31 / 2 / 900)
    assert start + 1e-4 < later < 0.5 + 1 / 30


Small = tuple[structured.Network, Tensor, list[tuple[Tensor, Tensor]]]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """A network with two units in each layer, four images, and all states of the two layers."""
    monkeypatch.setattr(structured, "HALF", 3)
    monkeypatch.setattr(structured, "UNITS", 2)
    x = torch.bernoulli(torch.full((4, 6), 0.5), generator=torch.Generator().manual_seed(0))
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)))
    return structured.Network(seed=1), x, list(itertools.product(states, states))


def log_p(logits: Tensor, b: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(logits=logits).log_prob(b).sum(-1)


def test_the_likelihood_of_a_small_network_is_that_of_all_its_states(small: Small) -> None:
    network, x, states = small
    total = x.new_zeros(4)
    for first, second in states:
        joint = log_p(network.first(x[:, :3]), first) + log_p(network.second(first), second)
        total = total + (joint + log_p(network.last(second), x[:, 3:])).exp()
    generator = torch.Generator().manual_seed(0)
    found = structured.likelihood(network, x, generator, samples=20_000)
    assert found == pytest.approx(float(-total.log().detach().mean()), abs=0.01)


def test_the_surrogate_of_two_layers_is_the_mean_over_all_states(small: Small) -> None:
    """With enumeration in both layers: the loss, and the gradient of every weight."""
    network, x, states = small
    total = x.new_zeros(4)
    for first, second in states:
        chance = (log_p(network.first(x[:, :3]), first) + log_p(network.second(first), second)).exp()
        total = total - chance * log_p(network.last(second), x[:, 3:])
    expected = torch.autograd.grad(total.sum(), list(network.parameters()))
    exact = [estimators.get("exact", sizes=(2, 2)) for _ in range(2)]
    found = network.surrogate(x[:, :3], x[:, 3:], exact, torch.Generator())
    torch.testing.assert_close(found, total)
    found.sum().backward()
    for weight, grad in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, grad)


def test_an_epoch_sees_every_image_once_and_only_the_last_counts() -> None:
    x = torch.arange(6.0)[:, None]
    weight = torch.nn.Parameter(torch.zeros(()))
    seen: list[float] = []

    def loss_of(batch: Tensor) -> Tensor:
        seen.extend(batch.flatten().tolist())
        return weight * 0 + batch.mean()

    last = images.train(asked("", 2), x, 2, torch.optim.SGD([weight], lr=0.1), loss_of)
    assert sorted(seen[:6]) == sorted(seen[6:]) == x.flatten().tolist()
    assert last == pytest.approx(2.5)


# --- verdicts -------------------------------------------------------------------------------------------------------


def line(*measured: float, **more: bool) -> Line:
    return Line("", Number("", 1.0, 0.1, "", "recalled"), measured, **more)


def test_agreement_is_within_both_errors() -> None:
    assert line(1.09).agrees == "yes"
    assert line(1.2).agrees == "no"
    assert line(1.1, 1.3).agrees == "yes"  # t interval of two seeds: ± 1.27
    assert line(1.29, 1.3).agrees == "no"
    assert line(1.0, 2.0).agrees == "too few seeds"  # ± 6.4
    assert line().agrees == "not run"
    assert line(1.0, short=True).agrees == "shorter run"
    assert line(math.nan).agrees == "no"
