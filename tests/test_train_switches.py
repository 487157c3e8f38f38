"""The two switches: q frozen for the last epochs, and a pass of their own for the weights."""

from dataclasses import replace

import pytest
import torch
from test_train import QUICK, logits, make, noise, same
from torch import Tensor

import estimators
from estimators import Estimator
from vmo.recipe import Recipe


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
