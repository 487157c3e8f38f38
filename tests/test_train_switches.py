"""The two switches: q frozen for the last epochs, and a pass of their own for the weights."""

from dataclasses import replace

import pytest
import torch
from test_train import QUICK, logits, make, noise, same
from torch import Tensor

import estimators
from estimators import Estimator
from vmo.data import Split, split_off
from vmo.recipe import RECIPES, Recipe
from vmo.train import Trainer


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("task", ["width", "depth", "joint"])
def test_a_frozen_q_stays_and_the_weights_of_its_mode_train_on(task: str, groups: int) -> None:
    trainer = make("reinforce", task, replace(QUICK, epochs=3, freeze=2, groups=groups, phi_lr=0.5))
    trainer.epoch()
    assert trainer.frozen
    kept = logits(trainer)
    assert any((site != 0).any() for site in kept)
    before = [w.detach().clone() for w in trainer.network.parameters()]
    baseline = trainer.estimator.get_buffer("baseline").clone()  # type: ignore[union-attr]
    images, labels = next(trainer.minibatches())
    mode = tuple(site.argmax().expand(() if groups == 1 else (groups,)) for site in kept)
    expected = trainer.objective(images, labels).hard(mode).sum()
    assert torch.equal(trainer.step(images, labels), expected.detach())
    assert same(kept, logits(trainer))
    assert torch.equal(baseline, trainer.estimator.get_buffer("baseline"))  # type: ignore[union-attr]
    assert not same(before, [w.detach() for w in trainer.network.parameters()])


def test_without_freezing_nothing_is_frozen_even_past_the_end() -> None:
    trainer = make("reinforce", recipe=replace(QUICK, epochs=1))
    for _ in range(2):
        trainer.epoch()
    assert not trainer.frozen


@pytest.mark.parametrize("freeze", [-1, 3])
def test_freezing_longer_than_the_run_is_refused(freeze: int) -> None:
    with pytest.raises(ValueError, match="freeze must lie in"):
        Recipe(epochs=2, freeze=freeze)


def _grads(name: str, weights: str | None) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of φ and of the weights after the passes of one step, with learning rates of 0."""
    trainer = make(name, "width", replace(QUICK, lr=0.0, phi_lr=0.0, weight_decay=0.0))
    if weights is not None:
        assert trainer.distribution is not None
        sizes = trainer.distribution.space.sizes
        options = {"temperature": 0.5} if weights == "concrete" else {}
        trainer.weight_estimator = estimators.get(weights, sizes=sizes, **options).eval()
    data = noise()
    trainer.step(data.train.images[:16].float() / 255, data.train.labels[:16])
    assert trainer.distribution is not None
    phi = [site.grad.clone() for site in trainer.distribution.logits]  # type: ignore[union-attr]
    return phi, [w.grad.clone() for w in trainer.network.parameters()]  # type: ignore[union-attr]


def test_the_gradient_of_q_is_the_estimators_and_that_of_the_weights_the_other_passes() -> None:
    """Exact φ is the same with every weight pass; each weight pass is the same beside every φ of no noise."""
    phi, own = _grads("exact", None)
    hard_phi, hard = _grads("exact", "reinforce")
    soft_phi, soft = _grads("exact", "concrete")
    for other in (hard_phi, soft_phi):
        for a, b in zip(phi, other, strict=True):
            torch.testing.assert_close(a, b)
    # exact draws no noise, so the pass of the weights is the first to draw, as if the other estimator were alone
    _, alone = _grads("reinforce", None)
    for a, b in zip(hard, alone, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(own[0], hard[0])
    assert not torch.allclose(hard[0], soft[0])


def test_the_estimator_of_q_leaves_weights_alone_when_they_have_a_pass_of_their_own() -> None:
    class Blind(Estimator):
        """Gives the weights nothing."""

        unbiased = True

        def draw(self, logits: tuple[Tensor, ...], generator: torch.Generator | None = None) -> tuple[()]:
            return ()

        def _estimate(self, objective: object, logits: tuple[Tensor, ...], noise: tuple[()]) -> estimators.Estimate:
            return estimators.Estimate(torch.zeros(()), tuple(torch.zeros_like(site) for site in logits))

    trainer = make("reinforce", "width", replace(QUICK, lr=0.0, weight_decay=0.0))
    assert trainer.distribution is not None
    trainer.weight_estimator = Blind(trainer.distribution.space.sizes)
    data = noise()
    trainer.step(data.train.images[:16].float() / 255, data.train.labels[:16])
    assert all((w.grad == 0).all() for w in trainer.network.parameters())  # type: ignore[union-attr]
    assert all(w.requires_grad for w in trainer.network.parameters())


# --- weights on the mode --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["width", "depth", "joint"])
def test_on_the_mode_the_weights_train_on_the_network_that_q_stands_for(task: str) -> None:
    """Its gradient is that of the extracted architecture, whatever the estimator of φ draws."""
    recipe = replace(QUICK, lr=0.0, phi_lr=0.0, weight_decay=0.0)
    trainer = make("reinforce", task, recipe, step=4)
    trainer.weight_estimator = "mode"
    assert trainer.distribution is not None
    with torch.no_grad():
        for site in trainer.distribution.logits:
            site[-1] += 1.0 if site is trainer.distribution.logits[0] else -1.0
    images, labels = next(trainer.minibatches())
    loss = trainer.step(images, labels)
    found = [w.grad.clone() for w in trainer.network.parameters()]  # type: ignore[union-attr]
    trainer.network.zero_grad()
    expected = trainer.objective(images, labels).hard(tuple(torch.tensor(i) for i in trainer.choice()))
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    for weight, grad in zip(trainer.network.parameters(), found, strict=True):
        torch.testing.assert_close(grad, torch.zeros_like(grad) if weight.grad is None else weight.grad)
    assert all(site.grad is not None and site.grad.any() for site in trainer.distribution.logits)


# --- φ on images of its own -----------------------------------------------------------------------------------------


def test_held_out_images_teach_q_alone() -> None:
    """φ's gradient changes with the labels of the images held out, and that of the weights does not."""
    data, off = split_off(noise(), 0.5)
    assert len(off) == len(data.train) == 32
    recipe = replace(QUICK, lr=0.0, phi_lr=0.0, weight_decay=0.0)

    def grads(held: Split | None) -> tuple[list[Tensor], list[Tensor]]:
        trainer = make("exact", "width", recipe, data=data, step=8)
        learner = Trainer(
            trainer.network, data, recipe, distribution=trainer.distribution, estimator=trainer.estimator,
            weight_estimator="mode", held_out=held,
        )  # fmt: skip
        learner.step(*next(learner.minibatches()))
        phi = [site.grad.clone() for site in trainer.distribution.logits]  # type: ignore[union-attr]
        return phi, [w.grad.clone() for w in trainer.network.parameters()]  # type: ignore[union-attr]

    phi, weights = grads(off)
    other_phi, other_weights = grads(Split(off.images, (off.labels + 1) % 10))
    shared_phi, shared_weights = grads(None)
    assert not any(map(torch.allclose, phi, other_phi)) and not any(map(torch.allclose, phi, shared_phi))
    assert same(weights, other_weights) and same(weights, shared_weights)


def test_what_is_split_off_is_always_the_same_and_is_missing_from_the_rest() -> None:
    data = noise()
    rest, off = split_off(data, 0.25)
    again, same_off = split_off(data, 0.25)
    assert torch.equal(off.images, same_off.images) and torch.equal(rest.train.images, again.train.images)
    assert (len(off), len(rest.train), len(rest.test)) == (16, 48, len(data.test))
    both = torch.cat([rest.train.images, off.images]).flatten(1)
    assert sorted(both.tolist()) == sorted(data.train.images.flatten(1).tolist())
    for part in (0.001, 0.999):
        with pytest.raises(ValueError, match="cannot be split off 64 training images"):
            split_off(data, part)


def test_images_held_out_need_a_pass_of_their_own_for_the_weights() -> None:
    made = make("reinforce", "width")
    parts = {"distribution": made.distribution, "estimator": made.estimator}
    data, off = split_off(noise(), 0.5)
    with pytest.raises(ValueError, match="where the weights have a pass of their own"):
        Trainer(made.network, data, QUICK, **parts, held_out=off)  # type: ignore[arg-type]
    few = Split(off.images[:3], off.labels[:3])
    with pytest.raises(ValueError, match="3 images that are held out are no minibatch of 16"):
        Trainer(made.network, data, QUICK, **parts, weight_estimator="mode", held_out=few)  # type: ignore[arg-type]


# --- training continued ---------------------------------------------------------------------------------------------


def test_continued_training_has_a_frozen_q_and_the_learning_rates_of_a_new_run() -> None:
    trainer = make("reinforce", "width", replace(QUICK, epochs=2, continued=2, phi_lr=0.5))
    rates, frozen = [], []

    def look() -> None:
        rates.append(trainer.learner.optimizers["weights"].param_groups[0]["lr"])
        frozen.append(trainer.frozen)

    for _ in range(2):
        trainer.epoch(look)
    kept = logits(trainer)
    for _ in range(2):
        trainer.epoch(look)
    assert trainer.steps == len(rates) == 16
    assert rates[:8] == rates[8:] and rates[7] < rates[0]
    assert same(kept, logits(trainer))
    assert frozen == [False] * 7 + [True] * 9  # looked at after each step


def test_the_fast_recipe_rises_falls_and_crops_less() -> None:
    trainer = make(None, recipe=replace(QUICK, epochs=5, **RECIPES["fast"]))
    rates: list[float] = []
    for _ in range(5):
        trainer.epoch(lambda: rates.append(trainer.learner.optimizers["weights"].param_groups[0]["lr"]))
    top = rates.index(max(rates))
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    assert top == 4 and rates[top] == pytest.approx(0.1) and rates[-1] < 0.01
    assert trainer.dataset.pad == 0 and make(None).dataset.pad == 1  # half of one pixel is none


def test_a_snapshot_within_continued_training_goes_on_by_its_schedule() -> None:
    recipe = replace(QUICK, epochs=1, continued=2, phi_lr=0.5)
    one, other = (make("reinforce", "width", recipe) for _ in range(2))
    one.epoch()
    seen = []
    one.epoch(lambda: seen.append(one.snapshot()))
    other.restore(seen[1])
    assert 0 < other.learner.progress == 2 / 8
    other.epoch()
    one.epoch(), other.epoch()
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)
