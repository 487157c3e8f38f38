"""The suites against things whose answer is known."""

import functools
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from making import granted, job, planned, workshop
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import estimators
from estimators.objective import adapt
from results.stats import squared_norm
from suites import bias, labels, suite
from suites.engine.plan import prepare
from suites.measure import Counted, Hardened, measure, reference
from suites.memory import StorageCounter, count
from suites.overhead import interleaved, macs
from suites.tasks.base import Context, Point, Truth
from suites.tasks.bottleneck import BottleneckTask
from suites.tasks.classifier import Classifier
from vmo.config import WideResNetConfig

Z = 4.9  # of a normal, two-sided false-alarm rate 1e-6
ENUMERATED = Truth(minibatches=2, enumerate=64)


def test_storage_counter_sees_what_is_alive() -> None:
    with FakeTensorMode(), StorageCounter() as counter:
        weight = torch.zeros(1000, requires_grad=True)  # 4,000 bytes
        counter.claim([weight], "parameters")
        doubled = weight * 2
        assert counter.total == 8000
        view = doubled[:10]
        assert counter.total == 8000
        del doubled
        assert counter.total == 8000  # the view keeps the storage
        del view
        assert counter.total == 4000
        (weight.exp().sin().sum()).backward()
        assert counter.split()["parameters"] == 4000
        # at the peak: weight, exp kept for backward, sin's output or its gradient, and scalars
        assert 12_000 <= sum(counter.peak.values()) <= 20_100


def test_memory_of_a_network_is_its_parameters_gradients_and_momentum() -> None:
    parts = count(granted("width"), "counted", None)
    size = 36_479_194 * 4
    assert parts["optimizer"] == size
    assert parts["gradients"] <= size * 1.01
    statistics = parts["parameters"] - size
    assert 0 < statistics < 0.01 * size
    # every activation is at least kept once per 3×3 convolution: 12 blocks of 3 (4, 3, 3 by group) maps
    assert parts["activations"] > 128 * 4 * (160 * 1024 + 320 * 256 + 640 * 64) * 4


def test_counted_evaluations_are_what_estimators_claim() -> None:
    sizes = (2, 3)
    for name in estimators.available():
        estimator = estimators.get(name, sizes=sizes)
        counted = Counted(adapt(lambda s: s[0][..., 0] * s[1][..., 1], sizes, torch.float32))
        logits = tuple(torch.zeros(k) for k in sizes)
        estimator.estimate(counted, logits, estimator.draw(logits))
        assert counted.count == estimator.evaluations, name


def test_hardened_evaluates_at_the_vertex_and_passes_gradients() -> None:
    seen = []

    def f(sample: tuple[Tensor, ...]) -> Tensor:
        seen.append(sample[0].detach())
        return (sample[0] * torch.tensor([1.0, 2.0, 4.0])).sum(-1)

    soft = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    Hardened(adapt(f, (3,), torch.float32))((soft,)).backward()
    assert seen[0].tolist() == [0, 1, 0]
    assert soft.grad is not None
    assert soft.grad.tolist() == [1, 2, 4]


def _point(logits: tuple[Tensor, ...], weights: list[nn.Parameter], f: object, *, stochastic: bool) -> Point:
    return Point("mid", 0.5, logits, weights, lambda stream, i: f, lambda estimator: None, stochastic)  # type: ignore[arg-type,return-value]


def test_bias_of_weights_is_that_of_soft_samples() -> None:
    """f = w · x_1²: at a hard sample ∂f/∂w is 0 or 1, at a soft one x_1²; the paired difference has a known mean."""
    w = nn.Parameter(torch.ones(1))
    point = _point((torch.zeros(2),), [w], lambda s: (w * s[0][..., 0] ** 2).sum(), stochastic=True)
    soft = measure(point, estimators.get("concrete", sizes=(2,), temperature=1.0), 4000, 0)
    assert soft.hard_weights is not None
    difference = soft.weights[: len(soft.hard_weights)] - soft.hard_weights  # type: ignore[index]
    # at t = 1 and φ = 0, x_1 is uniform on (0, 1): E[x²] − E[1{x > ½}] = 1/3 − 1/2
    z = (difference.mean() + 1 / 6) / (difference.std() / len(difference) ** 0.5)
    assert abs(z) < Z
    hard = measure(point, estimators.get("reinforce", sizes=(2,)), 20, 0)
    assert hard.hard_weights is not None
    assert (hard.weights[: len(hard.hard_weights)] == hard.hard_weights).all()  # type: ignore[index]


def test_bias_suite_tells_biased_from_unbiased_on_the_toy() -> None:
    task = granted("toy", "function.steps=200")
    for point in task.points(0):
        truth = reference(point, ENUMERATED, None, 0, of=None)
        assert truth.shape == (1, 9)
        sizes = tuple(site.shape[-1] for site in point.logits)
        right = measure(point, estimators.get("rloo", sizes=sizes), 20_000, 0)
        assert squared_norm(right.logits, reference=truth[0]).p > 1e-6
        if point.name == "mid":
            wrong = measure(point, estimators.get("straight_through", sizes=sizes), 20_000, 0)
            found = squared_norm(wrong.logits, reference=truth[0])
            assert found.value - Z * found.se > 0


def test_reference_is_cached_by_the_points_own_bits(tmp_path: object) -> None:
    logits = (torch.zeros(3),)
    calls = []

    def f(sample: tuple[Tensor, ...]) -> Tensor:
        calls.append(1)
        return sample[0][..., 0]

    for _ in range(2):
        first = reference(_point(logits, [], f, stochastic=False), ENUMERATED, tmp_path, 0, of=None)  # type: ignore[arg-type]
    assert len(calls) == 1
    moved = (torch.tensor([0.5, 0.0, 0.0]),)
    second = reference(_point(moved, [], f, stochastic=False), ENUMERATED, tmp_path, 0, of=None)  # type: ignore[arg-type]
    assert not np.allclose(first, second)


def test_a_cached_reference_is_not_that_of_another_version_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step logits and weights are equal to the bit although f is another."""

    def at_the_start() -> np.ndarray:
        bias._references.cache_clear()
        settings = ("amortised.steps=1", "amortised.hidden=4")
        task = granted("bottleneck", *settings, context=Context(cache=tmp_path))
        return bias._references(task.task, task.handed["points"], ENUMERATED, 0)["uniform"]

    first, original = at_the_start(), Classifier.objective
    monkeypatch.setattr(Classifier, "objective", lambda self, batch: lambda sample: 2 * original(self, batch)(sample))
    assert np.array_equal(at_the_start(), first)  # nobody has said that f changed
    monkeypatch.setattr(BottleneckTask, "version", BottleneckTask.version + 1)
    assert np.allclose(at_the_start(), 2 * first, rtol=1e-4, atol=1e-6)


def test_points_of_a_network_run_repeat_and_ride_leaves_them_alone() -> None:
    task = granted("width", "trajectory.steps=9", "trajectory.ride=2")
    names = []
    for point in task.points(0):
        names.append(point.name)
        digest, batch = point.digest(), point.objective("fresh", 3)
        relax = estimators.get("relax", sizes=tuple(site.shape[-1] for site in point.logits))
        before = {key: value.clone() for key, value in relax.state_dict().items()}
        point.ride(relax)
        assert point.digest() == digest
        assert any(not torch.equal(before[key], value) for key, value in relax.state_dict().items())
        assert torch.equal(batch.images, point.objective("fresh", 3).images)  # type: ignore[attr-defined]
        assert not torch.equal(batch.images, point.objective("fresh", 4).images)  # type: ignore[attr-defined]
    assert names == ["uniform", "mid", "peaked"]
    uniform = next(iter(task.points(0)))
    assert all((site == 0).all() for site in uniform.logits)


def test_macs_of_a_plain_step_are_three_forwards_but_for_the_first_convolution() -> None:
    task = granted("width", "timed.depth=10", "timed.widen=1", "timed.batch=2")
    forward = WideResNetConfig(10, 1).total_macs(32)
    stem = 9 * 3 * 16 * 32**2
    assert macs(task.workload("timed", None), 1) == pytest.approx(2 * (3 * forward - stem), rel=1e-3)


def test_labels_read_back_and_are_ordered() -> None:
    for text in ("relax", "relax[hidden=3, temperature=0.25]", "concrete[temperature=(0.2, 0.001)]"):
        assert str(labels.parse(text)) == text
    assert labels.parse("relax[temperature=0.5,hidden=3]") == labels.parse("relax[hidden=3, temperature=0.5]")
    assert str(labels.parse("relax[temperature=0.5]")) == "relax"  # which is its default
    assert labels.parse("straight_through[through=identity]").make((2,)).through == "identity"
    assert labels.parse("relax[relaxed_objective=true]").make((2,)).evaluations == 3


@pytest.mark.parametrize("name", estimators.available())
def test_what_does_not_learn_need_not_ride_along(name: str) -> None:
    """Estimators that are not taken along the run before a point are those that it would not change."""
    sizes = (2, 3, 4)
    estimator = estimators.get(name, sizes=sizes).train()
    before = {key: value.clone() for key, value in estimator.state_dict().items()}
    logits = tuple(torch.randn(5, size, requires_grad=True) for size in sizes)
    control = list(estimator.parameters())
    estimator.backward(lambda sample: sum(site[..., 0] for site in sample) ** 2, logits)
    assert estimator.learns or not control
    if control:
        torch.optim.Adam(control).step()
    moved = any(not torch.equal(before[key], value) for key, value in estimator.state_dict().items())
    assert moved == estimator.learns


@pytest.mark.parametrize("task", ["depth", "width", "joint"])
def test_a_held_step_runs_networks_of_that_width(task: str) -> None:
    """The MACs of a sliced hard sample are those of the network that it is; where it is whole, those of plain."""
    of = granted(task, "timed.depth=16", "timed.widen=1", "timed.batch=4")
    plain = macs(of.workload("timed", None), 1)
    make = labels.parse("reinforce").make
    found = [of.held(make, part) for part in (0.5, 1.0)]
    if task == "depth":
        assert found == [None, None]
        return
    half, full = (macs(step, 1) / plain for step in found if step is not None)
    assert full == pytest.approx(1, abs=0.01)
    # a quarter of the stem, shortcuts and heads apart, all MACs are proportional to hidden widths
    assert 0.5 < half < 0.6


@functools.cache
def peak(task: str, estimator: str | None) -> int:
    make = None if estimator is None else labels.parse(estimator).make
    return sum(count(granted(task, preset="quick"), "counted", make).values())


LEAN = ["concrete", "straight_through", "gumbel_straight_through", "reinforce", "relax", "rloo[parts=own]"]


@pytest.mark.parametrize(
    ("task", "estimator", "most"),
    [
        *(("width", name, 1.03) for name in LEAN),
        *(("joint", name, 1.03) for name in LEAN[:3]),
        *(("depth", name, 1.03) for name in (*LEAN[:4], "exact")),
        ("width", "rebar[coupled=true,tuning=regression]", 1.10),
        ("width", "relax[relaxed_objective=true,coupled=true,sees=noise,tuning=regression]", 1.10),
        ("width", "rloo[parts=first]", 1.06),
    ],
)
def test_peak_storage_of_a_step_against_plain(task: str, estimator: str, most: float) -> None:
    """Counted, at WRN-28-10 and a minibatch of 128; textbook forms need two to four times as much."""
    assert peak(task, estimator) < most * peak(task, None)


@pytest.mark.parametrize(
    ("weights", "relaxed", "temperature"),
    [("hard", False, None), ("soft", True, 0.1), ("concrete[temperature=1.0]", True, 1.0)],
)
def test_weights_train_on_the_samples_of_whom_the_preset_names(
    weights: str, relaxed: bool, temperature: float | None
) -> None:
    of = granted("width", f"train.weights={weights}")
    trainer = of.task.trainer(of.handed["run"], labels.parse("rloo").make, 0)  # type: ignore[attr-defined]
    assert trainer.weight_estimator.relaxed == relaxed and trainer.weight_estimator.evaluations == 1
    if temperature is not None:
        assert float(trainer.weight_estimator.temperature.value) == pytest.approx(temperature)


@pytest.mark.parametrize("suites", [["accuracy"], ["memory"], ["scaling"]])
@pytest.mark.parametrize("weights", ["sotf", "plain", "concrete[temperature=0]", "concrete[temprature=1.0]"])
def test_weights_that_nobody_can_train_on_are_refused_before_anything_runs(
    weights: str, suites: list[str], tmp_path: Path
) -> None:
    """By their name or their options when they are given, by what they make of a task when that is prepared."""
    with pytest.raises(ValueError, match=r"setting train\.weights: must be own, mode, hard, soft or an estimator"):
        prepare(workshop(tmp_path), planned(workshop(tmp_path), "width", ["rloo"], suites, f"train.weights={weights}"))


@pytest.mark.parametrize(("patience", "least", "most"), [(0.0, 2, 2), (0.1, 2, 19), (math.inf, 20, 20)])
def test_pairs_are_timed_until_patience_ends_and_twice_at_least(patience: float, least: int, most: int) -> None:
    class Slow:
        def step(self) -> None:
            time.sleep(0.005)

        def tensors(self) -> dict[str, list[Tensor]]:
            return {}

    base, spent = interleaved(Slow(), Slow(), torch.device("cpu"), 20, patience)
    assert least <= len(base) == len(spent) <= most


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_impatience_leaves_out_pairs_and_nothing_else(seconds: float) -> None:
    settings = ("timed.depth=10", "timed.widen=1", "timed.batch=2", f"overhead.seconds={seconds}")
    rows = suite.get("overhead").run(job(workshop(Path("unused")), "width", "overhead", "rloo", *settings))
    assert {row["x"] for row in rows if row["metric"] == "time_ratio_held"} == {0.5, 0.75, 1.0}
    (counted,) = (row for row in rows if row["metric"] == "macs_ratio")
    (timed,) = (row for row in rows if row["metric"] == "time_ratio")
    assert counted["n"] == 10 and timed["n"] == (3 if seconds else 2)
