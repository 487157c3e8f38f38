"""Tasks with an encoder: each model's objective against its formula, its step against enumeration, and whole runs."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from making import granted, planned, workshop
from oracles import check_means, same
from torch import Tensor

import estimators
from suites import labels, overhead
from suites.tasks import base, bottleneck, classifier, experts, halves, hierarchy, pixels, spelling
from suites.tasks.amortised_model import Batch, Model, Run, drawn, mode
from suites.tasks.base import Context
from suites.tasks.granted import Granted
from vmo.checkpoint import Keeper
from vmo.learner import Diverged

MODELS = ("bottleneck", "experts", "halves", "hierarchy")
TASKS = (*MODELS, "spelling")
SMALL = {"amortised.steps": 6, "amortised.hidden": 8, "amortised.batch_size": 16, "amortised.ride": 2}
COUNT = 3


def task(name: str, **changes: object) -> Granted:
    """The task at small settings, handed those of every role; changes are of the group's names."""
    changed = {**SMALL, **{f"amortised.{key}": value for key, value in changes.items()}}
    return granted(name, *(f"{key}={value}" for key, value in changed.items()))


def tiny(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Batch]:
    """A model of at most two variables of three categories, in float64, and three examples."""
    torch.manual_seed(0)
    monkeypatch.setattr(bottleneck, "VARIABLES", 2)
    monkeypatch.setattr(bottleneck, "VALUES", 3)
    monkeypatch.setattr(halves, "VARIABLES", 2)
    monkeypatch.setattr(halves, "VALUES", 3)
    for constant, size in (("LOWER", 1), ("UPPER", 1), ("VALUES", 3)):
        monkeypatch.setattr(hierarchy, constant, size)
    monkeypatch.setattr(experts, "EXPERTS", 3)
    monkeypatch.setattr(experts, "WIDTH", 4)
    mean, x = torch.rand(5).double(), torch.rand(COUNT, 5).double()
    classes = F.one_hot(torch.tensor([1, 0, 3])).double()
    models: dict[str, Callable[[], tuple[Model, Batch]]] = {
        "bottleneck": lambda: (bottleneck.Bottleneck(mean, 4, 6), (x, classes)),
        "experts": lambda: (experts.Experts(mean, 4, 6), (x, classes)),
        "halves": lambda: (halves.Halves(mean, 7, 6), (x, (torch.rand(COUNT, 7) < 0.5).double())),
        "hierarchy": lambda: (hierarchy.Hierarchy(mean, 6), ((x < 0.5).double(),)),
    }
    model, batch = models[name]()
    return model.double(), batch


def by_hand(name: str, model: Model, batch: Batch, i: int, z: tuple[int, int]) -> Tensor:
    """f of example i at the categories z, with every selection by index."""
    x = batch[0][i]
    if name == "experts":
        assert isinstance(model, experts.Experts)
        units = torch.relu(model.first(x - model.mean).view(3, 4)[z[0]])
        scores = model.second(units).view(3, 4)[z[1]]
        return F.cross_entropy(scores, batch[1][i])
    code = torch.cat([F.one_hot(torch.tensor(k), 3).double() for k in z])
    if name == "bottleneck":
        assert isinstance(model, bottleneck.Bottleneck)
        return F.cross_entropy(model.classifier(code), batch[1][i])
    if name == "hierarchy":
        assert isinstance(model, hierarchy.Hierarchy)
        p = torch.sigmoid(model.decoder(code[:3]))
        of_lower = torch.softmax(model.prior(code[3:]), -1)[z[0]].log()
        return -torch.where(x == 1, p, 1 - p).log().sum() - of_lower
    assert isinstance(model, halves.Halves)
    p = torch.sigmoid(model.decoder(code))
    return -torch.where(batch[1][i] == 1, p, 1 - p).log().sum()


def exact_loss(name: str, model: Model, batch: Batch) -> Tensor:
    """Σ_i E f_i, by enumeration, plus the exact terms."""
    log_q = torch.log_softmax(model.logits(batch[0]), -1)
    total = torch.zeros((), dtype=torch.float64)
    for i, j, k in itertools.product(range(COUNT), range(3), range(3)):
        total = total + (log_q[i, 0, j] + log_q[i, 1, k]).exp() * by_hand(name, model, batch, i, (j, k))
    if name == "experts":
        share = log_q.exp().mean(0)
        total = total - 0.3 * COUNT * torch.distributions.Categorical(share).entropy().sum()
    if name == "hierarchy":  # log p(u) = −log 3
        total = total - torch.distributions.Categorical(log_q.exp()).entropy().sum() + COUNT * math.log(3)
    return total


@pytest.mark.parametrize("name", MODELS)
def test_a_step_follows_the_gradient_of_the_expectation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and weights of f: exactly with enumeration, in the mean with an unbiased estimator."""
    model, batch = tiny(name, monkeypatch)
    expected = torch.autograd.grad(exact_loss(name, model, batch), list(model.parameters()))

    def run(estimator: str) -> Run:
        made = estimators.get(estimator, sizes=(3, 3))
        return Run(model, made, batch, name=name, lr=0.0, control_lr=0.0, batch_size=COUNT, seed=0)

    run("exact").train_on(batch)
    same([p.grad for p in model.parameters()], list(expected), "the gradient", rtol=1e-8, atol=1e-11)
    found, sampled = [], run("rloo")
    for _ in range(2000):
        sampled.train_on(batch)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    check_means(torch.stack(found), torch.cat([g.flatten() for g in expected]))


@pytest.mark.parametrize("name", MODELS)
def test_an_objective_takes_leading_dimensions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny(name, monkeypatch)
    f, sample = model.objective(batch), torch.softmax(torch.randn(2, 4, 5, COUNT, 3).double(), -1)
    whole = f((sample[0], sample[1]))
    assert whole.shape == (4, 5, COUNT)
    same(whole[2, 3], f((sample[0, 2, 3], sample[1, 2, 3])), "one of them", rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_of_an_objective_are_those_of_which_it_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny(name, monkeypatch)
    loss = model.objective(batch)(mode(model.logits(batch[0]).detach())).sum()
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    used = [p for p, grad in zip(model.parameters(), grads, strict=True) if grad is not None]
    assert [id(p) for p in used] == [id(p) for p in model.weights()]
    assert used


@pytest.mark.parametrize("name", ["bottleneck", "experts"])
def test_right_is_the_class_with_the_highest_score(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, _) = tiny(name, monkeypatch)
    assert isinstance(model, classifier.Classifier)
    sample = mode(model.logits(x).detach())
    best = model.scores((x, x))(sample).argmax(-1)
    for shift in range(4):
        target = F.one_hot((best + shift) % 4, 4).double()
        assert model.right((x, target))(sample).tolist() == [shift == 0] * COUNT


def test_the_bound_of_halves_tends_to_the_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """−log Σ_z q(z|x) p(lower | z), by enumeration."""
    model, batch = tiny("halves", monkeypatch)
    p, every = torch.softmax(model.logits(batch[0]).detach(), -1), itertools.product(range(3), repeat=2)
    likelihood = torch.zeros(COUNT, dtype=torch.float64)
    for j, k in every:
        lost = torch.stack([by_hand("halves", model, batch, i, (j, k)) for i in range(COUNT)]).detach()
        likelihood += p[:, 0, j] * p[:, 1, k] * (-lost).exp()
    torch.testing.assert_close(halves.bound(model, batch, 40_000), -likelihood.log(), rtol=0.005, atol=0)


# --- spelling ---------------------------------------------------------------------------------------------------------


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_the_edit_distance_is_that_of_its_definition(first: str, second: str) -> None:
    """By the recursion over first letters: keep, or replace, insert, delete."""

    def recursion(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return recursion(a[1:], b[1:])
        return 1 + min(recursion(a[1:], b[1:]), recursion(a, b[1:]), recursion(a[1:], b))

    def tokens(word: str) -> Tensor:
        return torch.tensor([" abc".index(letter) for letter in word] + [0] * (5 - len(word)))

    assert float(spelling.distance(tokens(first), tokens(second))) == recursion(first, second)


def test_what_follows_the_end_of_a_word_does_not_count() -> None:
    one = spelling.tokens()[1]
    same(spelling.distance(torch.tensor([*one[:3], 0, 7]), one), torch.tensor(0.0), "after the end")
    assert float(spelling.distance(torch.tensor([*one[:3], 7, 0]), one)) == 1
    assert float(spelling.distance(torch.zeros(5, dtype=torch.int64), one)) == 3


def test_the_words_are_the_names_of_the_digits() -> None:
    words = ["".join(spelling.TOKENS[t] for t in word) for word in spelling.tokens()]
    assert words == list(spelling.NAMES)
    assert len(spelling.TOKENS) == 16
    between = spelling.distance(spelling.tokens()[:, None], spelling.tokens()[None])
    same(between, between.T, "symmetric")
    assert float(between[4, 5]) == 3  # "four" and "five"


def test_estimators_that_need_slopes_are_infeasible_where_there_are_none(tmp_path: Path) -> None:
    names = ("concrete", "rebar", "averaged[of='reinmax']", "sweep", "sweep[slopes=False]", "relax", "rloo")
    found = {str(item.cell.label): item.impossible for item in planned(workshop(tmp_path), "spelling", names, ["bias"])}
    for name, why in found.items():
        if name in ("relax", "rloo") or "slopes=False" in name:
            assert why is None
        else:
            assert why == f"{name} needs ∂f/∂sample, and the objective of spelling has none"


def test_spelling_needs_ten_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = task("spelling")
    few = base.dataset_of(Context())
    monkeypatch.setitem(found.task.__dict__, "dataset", type("Few", (), {"classes": 3, "name": "few", "train": few}))
    with pytest.raises(ValueError, match="needs 10 classes, and few has 3"):
        found.task.prepare("run", found.handed["run"])


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_run_learns_and_goes_on_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    """Bit-identical rows; the objective falls; the quality of the network is among the rows."""
    make, long = labels.parse("rloo[samples=4]").make, {"steps": 150, "lr": 0.01}
    whole = task(name, **long).run(make, 0, Keeper(tmp_path / "whole.safetensors", 1e9))

    class Killed(Exception):
        pass

    class Stopping(Keeper):
        saved = 0

        def offer(self, state: object) -> None:
            super().offer(state)  # type: ignore[arg-type]
            self.saved += 1
            if self.saved == 70:
                raise Killed

    with pytest.raises(Killed):
        task(name, **long).run(make, 0, Stopping(tmp_path / "run.safetensors", 0.0))
    assert task(name, **long).run(make, 0, Keeper(tmp_path / "run.safetensors", 0.0)) == whole
    curve = [abs(row["value"]) for row in whole if row["metric"].startswith("curve_")]
    # the decoder of a hierarchy begins at the mean image, so there is less to gain
    assert curve[-1] < (0.98 if name == "hierarchy" else 0.9) * curve[0]
    final = {(row["metric"], row["part"]): row["value"] for row in whole if not row["metric"].startswith("curve_")}
    metrics = {"halves": ("objective", "nll"), "hierarchy": ("elbo",)}.get(name, ("objective", "accuracy"))
    assert set(final) == {(metric, part) for metric in metrics for part in ("train", "test")}
    if name == "halves":  # Jensen: the bound with more samples is below the mean
        assert final["nll", "test"] < final["objective", "test"]
    elif name == "hierarchy":  # a bound that is no looser than the last point of its curve
        assert final["elbo", "test"] == pytest.approx(-curve[-1], rel=0.02)
    elif name != "spelling":  # words need longer
        assert final["accuracy", "test"] > 0.2  # one in ten by chance


@pytest.mark.parametrize("name", TASKS)
def test_what_is_measured_at_a_point(name: str) -> None:
    found = task(name)
    points = list(found.points(0))
    assert [point.name for point in points] == ["uniform", "mid", "peaked"]
    variables, categories = len(found.sizes("points")), found.sizes("points")[0]
    for point in points:
        assert [tuple(site.shape) for site in point.logits] == [(4, categories)] * variables
        f = point.objective("any", 0)
        value = f(tuple(F.one_hot(site.argmax(-1), categories).float() for site in point.logits))
        assert value.shape == (4,)
        assert bool(point.weights) == (name != "spelling")
        for _ in range(2):  # f is evaluated many times, each with a backward pass
            estimators.get("rloo", sizes=found.sizes("points")).estimate(
                f, point.logits, tuple(torch.rand(2, *site.shape) for site in point.logits)
            )
        point.ride(estimators.get("nvil", sizes=found.sizes("points")))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("label", [None, "rloo", "relax", "averaged[of=disarm]"])
@pytest.mark.parametrize("role", ["step", "timed", "counted"])
def test_steps_can_be_repeated_with_every_kind_of_estimator(name: str, label: str | None, role: str) -> None:
    workload = task(name).workload(role, None if label is None else labels.parse(label).make)
    for _ in range(2):
        workload.step()


@pytest.mark.parametrize("name", TASKS)
def test_an_evaluation_by_hand_can_be_repeated(name: str) -> None:
    alone = task(name).alone()
    assert alone is not None
    step = overhead.Alone(*alone, None)
    for _ in range(2):
        step.step()


def test_the_elbo_of_a_hierarchy_is_that_of_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """E_q log p(x, z, u) / q(z, u | x), by enumeration, constants included."""
    model, batch = tiny("hierarchy", monkeypatch)
    log_q = torch.log_softmax(model.logits(batch[0]), -1)
    expected = torch.zeros(COUNT, dtype=torch.float64)
    for i, j, k in itertools.product(range(COUNT), range(3), range(3)):
        q = log_q[i, 0, j] + log_q[i, 1, k]
        expected[i] += (q.exp() * (-by_hand("hierarchy", model, batch, i, (j, k)) - math.log(3) - q)).detach()
    lost, rate = pixels.bound(model, batch[0], 40_000)
    torch.testing.assert_close(-(lost + rate), expected, rtol=0.005, atol=0)


def test_samples_follow_q_and_the_mode_is_its_most_probable_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny("bottleneck", monkeypatch)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(4)
    ((_, logits, f),) = drawn(model, batch, 4000)
    every = [(j, k) for j in range(3) for k in range(3)]
    means = [sum(_weighted(model, batch, i, z, logits) for z in every) for i in range(COUNT)]
    check_means(f, torch.stack(means).detach())
    picked = torch.stack([site.argmax(-1) for site in mode(logits)], -1)
    assert torch.equal(picked, logits.argmax(-1))


def _weighted(model: Model, batch: Batch, i: int, z: tuple[int, int], logits: Tensor) -> Tensor:
    p = torch.softmax(logits[i], -1)
    return p[0, z[0]] * p[1, z[1]] * by_hand("bottleneck", model, batch, i, z)


@pytest.mark.parametrize("name", TASKS)
def test_logits_that_are_not_finite_are_said_to_diverge(name: str, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="not finite"):
        task(name, lr=1e30).run(labels.parse("reinforce").make, 0, Keeper(tmp_path / "x"))


def test_a_minibatch_that_is_too_large_is_said_so() -> None:
    found = task("halves", batch_size=5000)
    with pytest.raises(ValueError, match=r"amortised\.batch_size=5000 exceeds"):
        found.task.prepare("run", found.handed["run"])
