"""The learner: φ held still, what rides along, divergence, and runs that go on from a checkpoint to the bit."""

import copy
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_train import QUICK, logits, make, noise, same, state
from torch import Tensor, nn

import estimators
from suites.tasks import curve
from suites.tasks.amortised_model import Run as VaeRun
from suites.tasks.functions import Run
from suites.tasks.reference_run import ReferenceRun
from suites.tasks.toy import Joint
from suites.tasks.vae_model import Vae
from vmo.checkpoint import Keeper
from vmo.learner import Diverged, Learner, ride
from vmo.recipe import Recipe
from vmo.train import Trainer

CPU = torch.device("cpu")
F = Joint(CPU)


def flat(value: Any) -> list[Tensor]:
    """The tensors of a nested value, and its numbers as tensors."""
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return [tensor for one in inner for tensor in flat(one)]
    return [torch.tensor(float(value))] if isinstance(value, int | float) else []


def learner_of(phi: Tensor, optimizer: torch.optim.Optimizer, name: str = "rloo", **options: Any) -> Learner:
    """Of one site, on its own."""
    estimator = estimators.get(name, sizes=(len(phi),), **options)
    generators = {"noise": torch.Generator().manual_seed(0)}
    module = nn.ParameterList([phi])
    return Learner({"q": module}, {"phi": optimizer}, estimator=estimator, control_lr=0.01, generators=generators)


def square(sample: Any) -> Tensor:
    return (sample[0] * torch.arange(sample[0].shape[-1])).sum(-1) ** 2


# --- holding φ ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("phi_optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["rloo", "relax"])
def test_a_held_q_stays_to_the_bit_while_all_else_trains(name: str, phi_optimizer: str, warm: bool) -> None:
    """From a q that has moved, whose optimizer has moments that would move it on by themselves."""
    trainer = make(name, recipe=replace(QUICK, phi_optimizer=phi_optimizer, phi_lr=0.5), gamma=0.3)
    trainer.epoch()
    phi, weights = logits(trainer), [w.detach().clone() for w in trainer.network.parameters()]
    control = [p.detach().clone() for p in trainer.estimator.parameters()]  # type: ignore[union-attr]
    assert any((site != 0).any() for site in phi)
    moments = flat(trainer.learner.optimizers["phi"].state_dict()["state"])
    trainer.learner.hold(warm=warm)
    trainer.epoch()
    assert same(phi, logits(trainer))
    assert same(moments, flat(trainer.learner.optimizers["phi"].state_dict()["state"])) != warm
    assert not any(map(torch.equal, weights, trainer.network.parameters()))
    assert not control or not same(control, [p.detach() for p in trainer.estimator.parameters()])  # type: ignore[union-attr]
    trainer.learner.release()
    trainer.epoch()
    assert not same(phi, logits(trainer))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam])
def test_any_optimizer_can_be_held(kind: type[torch.optim.Optimizer], warm: bool) -> None:
    phi = nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))
    learner = learner_of(phi, kind([phi], lr=0.1, weight_decay=0.1))  # type: ignore[call-arg]
    step = lambda: learner.step(lambda: learner.backward(square, (phi,)))  # noqa: E731
    step()
    before = phi.detach().clone()
    learner.hold(warm=warm)
    step()
    assert torch.equal(before, phi)
    learner.release()
    step()
    assert not torch.equal(before, phi)


def test_a_release_goes_on_where_the_hold_began() -> None:
    """Cold, φ's next steps are those without the stretch in between, given the same gradients."""
    found = []
    for stretch in (0, 3):
        phi = nn.Parameter(torch.zeros(3))
        learner = learner_of(phi, torch.optim.Adam([phi], lr=0.1), "exact")
        for held in [False] * 2 + [True] * stretch + [False] * 2:
            learner.hold() if held else learner.release()
            learner.step(functools.partial(learner.backward, square, (phi,)))
        found.append(phi.detach())
    assert torch.equal(*found)


def test_a_snapshot_knows_whether_q_is_held() -> None:
    trainer = make("rloo")
    trainer.learner.hold(warm=True)
    other = make("rloo")
    other.restore(trainer.snapshot())
    assert other.learner.held
    before = logits(other)
    other.epoch()
    assert same(before, logits(other))


def test_a_q_that_is_not_learned_is_held() -> None:
    trainer = make("rloo", recipe=replace(QUICK, learn=False))
    assert trainer.learner.held
    trainer.epoch()
    assert all((site == 0).all() for site in logits(trainer))


@pytest.mark.parametrize("phi_optimizer", ["adam", "sgd"])
def test_the_reference_run_holds_q_uniform_for_its_first_third(phi_optimizer: str) -> None:
    """Whatever moves it afterwards."""
    settings = SimpleNamespace(trajectory=SimpleNamespace(steps=12, ride=2))
    recipe = Recipe(epochs=1, batch_size=16, phi_optimizer=phi_optimizer, phi_lr=0.5)

    def build(_: object) -> Trainer:
        return make("rloo", "width", recipe)

    run = ReferenceRun("width", build, settings, 0, lambda what, i, n: None, lambda made: made())  # type: ignore[arg-type]
    initial = [w.detach().clone() for w in make("rloo", "width", recipe).network.parameters()]
    points = {point.name: (point.logits, [w.detach().clone() for w in point.weights]) for point in run.points()}
    assert all((site == 0).all() for site in points["uniform"][0])
    assert any((site != 0).any() for site in points["mid"][0])
    assert not same(initial, points["uniform"][1])


# --- riding along ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relax", "rebar", "reinforce", "nvil"])
def test_what_rides_along_takes_the_steps_of_its_own_optimizer(name: str) -> None:
    """As written out by hand, to the bit; and each moment is asked for when the one before has been used."""
    path = [tuple(0.1 * i * torch.arange(float(size)) for size in F.sizes) for i in range(4)]
    one, other = (estimators.get(name, sizes=F.sizes).train() for _ in range(2))
    other.load_state_dict(one.state_dict())
    seen: list[list[Tensor]] = []

    def moments() -> Iterator[tuple[Callable[[Any], Tensor], Any]]:
        for at in path:
            seen.append(flat(one.state_dict()))
            yield F, at

    ride(one, moments(), control_lr=0.05, noise=torch.Generator().manual_seed(3))
    control, generator = list(other.parameters()), torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(control, lr=0.05) if control else None
    for at, before in zip(path, seen, strict=True):
        assert same(before, flat(other.state_dict()))
        other.zero_grad()
        other.estimate(F, at, other.draw(at, generator))
        if optimizer is not None:
            optimizer.step()
    assert same(flat(one.state_dict()), flat(other.state_dict()))
    assert not same(seen[0], seen[-1])


# --- progress and divergence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "expected"), [(4, [1.0, 0.1**0.5, 0.1, 0.1**1.5, 0.01, 0.01]), (None, [0.1] * 6)])
def test_estimators_are_annealed_where_a_run_has_an_end_and_left_alone_elsewhere(
    steps: int | None, expected: list[float]
) -> None:
    phi = nn.Parameter(torch.zeros(3))
    learner = learner_of(phi, torch.optim.Adam([phi], lr=0.1), "concrete", temperature=(1.0, 0.01))
    learner.steps = steps
    learner.estimator.anneal(0.5)  # type: ignore[union-attr]
    seen = []
    for _ in expected:
        learner.step(lambda: learner.backward(square, (phi,)))
        seen.append(float(learner.estimator.temperature.value))  # type: ignore[union-attr]
    assert seen == pytest.approx(expected)


def test_logits_that_are_not_finite_have_diverged_and_other_errors_are_the_users() -> None:
    phi = nn.Parameter(torch.zeros(3))
    learner = learner_of(phi, torch.optim.Adam([phi], lr=0.1))
    with pytest.raises(ValueError, match="one value per sample"):
        learner.backward(lambda sample: sample[0], (phi,))
    with pytest.raises(ValueError, match="logits must be one"):
        learner.backward(square, (phi[:2],))
    forbidden = torch.tensor([0.0, -math.inf, 0.0], requires_grad=True)
    with pytest.raises(ValueError, match="one value per sample"):
        learner.backward(lambda sample: sample[0], (forbidden,))
    nn.init.constant_(phi, math.nan)
    with pytest.raises(Diverged, match="not finite after 0 steps"):
        learner.step(lambda: learner.backward(square, (phi,)))
    assert learner.step_count == 0


@pytest.mark.parametrize(("step", "said"), [(2, "the logits are not finite after 2 steps"), (4, "at step 4")])
def test_a_function_that_diverges_says_so(step: int, said: str, tmp_path: Path) -> None:
    """Between two moments, where its estimator sees it, and at one."""
    run = function("rloo")

    class Poisoned(Keeper):
        def offer(self, state: Callable[[], Any]) -> None:
            if run.learner.step_count == step:
                nn.init.constant_(run.leaves[0], math.nan)

    with pytest.raises(Diverged, match=said):
        train(run, Poisoned(tmp_path / "run"))


def test_what_a_learner_has_not() -> None:
    plain = make(None)
    with pytest.raises(ValueError, match="no φ to hold"):
        plain.learner.hold()
    with pytest.raises(ValueError, match="no estimator"):
        plain.learner.backward(square, (torch.zeros(3),))
    optimizers = {"phi": torch.optim.Adam([nn.Parameter(torch.zeros(3))])}
    with pytest.raises(ValueError, match="no optimizer is called fi; there are phi"):
        Learner({}, optimizers, schedules={"fi": lambda progress: 1.0}, control_lr=0.1, generators={})


# --- going on -------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """What interrupts a run here."""


class Stopping(Keeper):
    """Keeps every step, and interrupts the run at one of them."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(path, 0.0)
        self.left = step

    def offer(self, state: Callable[[], Any]) -> None:
        super().offer(state)
        self.left -= 1
        if not self.left:
            raise Stop


def function(name: str) -> Run:
    return Run(F, estimators.get(name, sizes=F.sizes), rows=2, seed=5, steps=23)


def vae(name: str) -> VaeRun:
    torch.manual_seed(0)
    images = torch.rand(10, 5, generator=torch.Generator().manual_seed(1))
    estimator = estimators.get(name, sizes=(3, 3))
    model = Vae(images.mean(0), 2, 3, 1, 4)
    return VaeRun(model, estimator, (images,), name="vae", lr=0.01, control_lr=0.01, batch_size=3, seed=0, steps=23)


def train(run: Run | VaeRun, keeper: Keeper) -> curve.Curve:
    def watch() -> float:
        if isinstance(run, Run):
            return run.value()
        return float(sum(w.detach().double().sum() for w in run.model.parameters()))

    return curve.train(run, watch, keeper, moments=5, device=CPU, progress=lambda what, i, n: None)


@pytest.mark.parametrize("step", [1, 4, 11, 22, 23])
@pytest.mark.parametrize("name", ["relax", "concrete", "reinforce"])
@pytest.mark.parametrize("kind", [function, vae])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    kind: Callable[[str], Run | VaeRun], name: str, step: int, tmp_path: Path
) -> None:
    """φ or weights, what the estimator learned, optimizers, generators and the curve: all of the last checkpoint."""
    whole = kind(name)
    expected = train(whole, Keeper(tmp_path / "whole", 1e9))
    assert [at for at, _ in expected] == [0, 4, 8, 12, 16, 20, 23]
    with pytest.raises(Stop):
        train(kind(name), Stopping(tmp_path / "run", step))
    again = kind(name)
    assert train(again, Keeper(tmp_path / "run", 1e9)) == expected
    assert same(flat(again.snapshot()), flat(whole.snapshot()))
    assert train(kind(name), Keeper(tmp_path / "run", 1e9)) == expected  # finished: nothing is left to do


@pytest.mark.parametrize("step", [1, 3, 4, 7])
@pytest.mark.parametrize("name", [None, "relax", "concrete"])
def test_an_interrupted_network_ends_as_if_it_had_not_been(name: str | None, step: int, tmp_path: Path) -> None:
    """Within an epoch or at its end, by the file."""

    def finish(trainer: Trainer, keeper: Keeper) -> list[float]:
        if (saved := keeper.load(CPU)) is not None:
            trainer.restore(saved)
        losses = []
        while trainer.learner.step_count < trainer.steps:
            losses.append(trainer.epoch(lambda: keeper.offer(trainer.snapshot)))
        return losses

    whole = make(name, gamma=0.1)
    expected = finish(whole, Keeper(tmp_path / "whole", 1e9))
    with pytest.raises(Stop):
        finish(make(name, gamma=0.1), Stopping(tmp_path / "run", step))
    again = make(name, gamma=0.1)
    found = finish(again, Keeper(tmp_path / "run", 1e9))
    assert found == expected[-len(found) :]
    assert same(state(again), state(whole))
    assert same(flat(again.learner.snapshot()), flat(whole.learner.snapshot()))


def test_a_snapshot_is_a_copy() -> None:
    run = vae("relax")
    run.step()
    saved = run.snapshot()
    first = copy.deepcopy(saved)
    for _ in range(3):
        run.step()
    run.restore(saved)
    run.step()
    assert same(flat(saved), flat(first))


def test_what_is_kept_is_counted() -> None:
    trainer = make("relax")
    assert not trainer.learner.tensors()["optimizer"]
    trainer.step(*(noise().train.images[:16].float() / 255, noise().train.labels[:16]))
    found = trainer.learner.tensors()
    modules = (trainer.network, trainer.distribution, trainer.estimator)
    expected = [t for m in modules if m is not None for t in (*m.parameters(), *m.buffers())]
    assert {id(t) for t in found["parameters"]} == {id(t) for t in expected}
    numbers = sum(p.numel() for p in trainer.network.parameters())  # of momentum; Adam keeps two of each, and a step
    numbers += sum(2 * p.numel() + 1 for m in modules[1:] if m is not None for p in m.parameters())
    assert sum(t.numel() for t in found["optimizer"]) == numbers
