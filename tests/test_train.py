"""Training: every estimator on every task, what a step does to weights and q, determinism, and learning at all."""

import copy
import itertools
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import estimators
from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split, load
from vmo.evaluate import evaluate, recalibrate
from vmo.learner import Diverged
from vmo.objective import MinibatchObjective
from vmo.recipe import Recipe
from vmo.space import TASKS, ArchitectureDistribution, Penalty, Space, literal_penalty, normalised_penalty
from vmo.train import Trainer
from vmo.wrn import WideResNet

CONFIG = WideResNetConfig(10, 1, 10, 1, heads="all")
QUICK = Recipe(epochs=2, batch_size=16)


def noise(n: int = 64, size: int = 6) -> Dataset:
    """Images that show nothing, so few and so small that a step takes milliseconds."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.randint(10, (n,), generator=generator))
    return Dataset("noise", split, split, 10, (127.5,), (74.0,), 1, True)


def make(
    name: str | None,
    task: str = "joint",
    recipe: Recipe = QUICK,
    *,
    data: Dataset | None = None,
    seed: int = 0,
    step: int = 16,
    gamma: float | None = None,
    kind: type[Trainer] = Trainer,
    **options: Any,
) -> Trainer:
    """A fresh run; `name` None: plain training."""
    torch.manual_seed(seed)
    data = noise() if data is None else data
    if name is None:
        return Trainer(WideResNet(CONFIG), data, recipe, seed=seed)
    space = Space(task, CONFIG.widths, step)
    return kind(
        WideResNet(CONFIG),
        data,
        recipe,
        distribution=ArchitectureDistribution(space),
        estimator=estimators.get(name, sizes=space.sizes, **options),
        penalty=None if gamma is None else normalised_penalty(space, gamma, CONFIG.macs(6)),
        seed=seed,
    )


def state(trainer: Trainer) -> list[Tensor]:
    """Everything that a run has learned."""
    modules = (trainer.network, trainer.distribution, trainer.estimator)
    return [t.detach().clone() for m in modules if m is not None for t in m.state_dict().values()]


def logits(trainer: Trainer) -> list[Tensor]:
    assert trainer.distribution is not None
    return [site.detach().clone() for site in trainer.distribution.logits]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


# --- every estimator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", estimators.available())
def test_every_estimator_trains_a_network(name: str, task: str) -> None:
    """Four steps: the loss is finite, q and weights move, and so does every control variate."""
    try:
        trainer = make(name, task)
    except ValueError as error:  # it cannot work for these sites
        if not any(word in str(error) for word in ("binary", "sites to enumerate")):
            raise
        pytest.skip(str(error))
    before, weights = logits(trainer), [p.detach().clone() for p in trainer.network.parameters()]
    assert trainer.estimator is not None
    control = [p.detach().clone() for p in trainer.estimator.parameters()]
    losses = [trainer.step(*minibatch) for minibatch in itertools.islice(trainer.minibatches(), 4)]
    assert all(loss.shape == () and torch.isfinite(loss) and not loss.requires_grad for loss in losses)
    assert all(torch.isfinite(site).all() for site in logits(trainer))
    assert not same(logits(trainer), before)
    for (weight_name, weight), old in zip(trainer.network.named_parameters(), weights, strict=True):
        assert torch.isfinite(weight).all()
        assert not torch.equal(weight, old) or weight_name.startswith("heads"), weight_name
    assert not control or not same([p.detach() for p in trainer.estimator.parameters()], control)


def test_sizes_that_an_estimator_cannot_do() -> None:
    with pytest.raises(ValueError, match="exact would enumerate"):
        make("exact", step=1)


def test_groups_share_the_minibatch() -> None:
    """The gradient of φ is the mean over halves of the batch, each with BN statistics of its own; so is the loss."""
    whole = make("exact", "width", Recipe(batch_size=16, groups=2))
    images, labels = next(whole.minibatches())
    assert whole.distribution is not None
    loss = whole.learner.backward(whole.objective(images, labels), whole.rows(whole.distribution.logits)).sum()
    losses, half = [], make("exact", "width")
    assert half.distribution is not None
    for part in (slice(0, 8), slice(8, 16)):
        losses.append(half.learner.backward(half.objective(images[part], labels[part]), half.distribution.logits))
    torch.testing.assert_close(loss, sum(losses) / 2)
    for site, other in zip(whole.distribution.logits, half.distribution.logits, strict=True):
        assert site.grad is not None and other.grad is not None
        torch.testing.assert_close(site.grad, other.grad / 2, rtol=1e-4, atol=1e-7)


# --- one step -------------------------------------------------------------------------------------------------------


def test_plain_training_is_nesterov_with_weight_decay() -> None:
    """v ← 0.9 v + (g + λ w), w ← w − lr (g + λ w + 0.9 v), on every weight, g the gradient of the cross-entropy."""
    trainer = make(None, recipe=Recipe(epochs=1, batch_size=16, lr=0.05, weight_decay=0.01))
    twin = copy.deepcopy(trainer.network)
    velocity = [torch.zeros_like(p) for p in twin.parameters()]
    trainer.learner.steps = 1000  # the learning rate stays
    images, labels = next(trainer.minibatches())
    for _ in range(3):
        trainer.step(images, labels)
        twin.zero_grad()
        F.cross_entropy(twin(images), labels).backward()
        with torch.no_grad():
            for p, v in zip(twin.parameters(), velocity, strict=True):
                g = 0.01 * p + (p.grad if p.grad is not None else 0)
                v.mul_(0.9).add_(g)
                p.sub_(0.05 * (g + 0.9 * v))
    for p, q in zip(trainer.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_optimizers_and_their_groups() -> None:
    recipe = Recipe(phi_lr=0.02, control_lr=0.003)
    trainer = make("relax", recipe=recipe)
    assert set(trainer.learner.optimizers) == {"weights", "phi", "control"}
    (weights,), (phi,), (control,) = (o.param_groups for o in trainer.learner.optimizers.values())
    assert (
        weights["nesterov"] and weights["momentum"] == 0.9 and weights["weight_decay"] == 5e-4 and weights["lr"] == 0.1
    )
    assert phi["weight_decay"] == 0 and phi["lr"] == 0.02 and control["lr"] == 0.003
    assert isinstance(trainer.learner.optimizers["phi"], torch.optim.Adam)
    assert trainer.distribution is not None and trainer.estimator is not None
    for group, module in ((weights, trainer.network), (phi, trainer.distribution), (control, trainer.estimator)):
        assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters()]
    assert set(make("reinforce").learner.optimizers) == {"weights", "phi"}
    assert set(make(None).learner.optimizers) == {"weights"}


def test_phi_may_follow_the_optimizer_of_the_weights() -> None:
    trainer = make("rloo", recipe=Recipe(phi_optimizer="sgd", phi_lr=0.5))
    (group,) = trainer.learner.optimizers["phi"].param_groups
    assert isinstance(trainer.learner.optimizers["phi"], torch.optim.SGD)
    assert group["nesterov"] and group["momentum"] == 0.9 and group["weight_decay"] == 0 and group["lr"] == 0.5


@pytest.mark.parametrize("phi_optimizer", ["adam", "sgd"])
def test_learning_rates_through_a_run(phi_optimizer: str) -> None:
    trainer = make("reinforce", recipe=Recipe(epochs=5, batch_size=32, phi_optimizer=phi_optimizer, phi_lr=0.5))
    assert trainer.steps == 10
    rates: dict[str, list[float]] = {"weights": [], "phi": []}
    for _ in range(5):
        for minibatch in trainer.minibatches():
            trainer.step(*minibatch)
            for name, seen in rates.items():
                seen.append(trainer.learner.optimizers[name].param_groups[0]["lr"])
    shape = [1] * 3 + [0.2] * 3 + [0.04] * 2 + [0.008] * 2
    assert rates["weights"] == pytest.approx([0.1 * s for s in shape])
    assert rates["phi"] == pytest.approx([0.5 * s for s in shape] if phi_optimizer == "sgd" else [0.5] * 10)
    assert trainer.learner.progress == 1


def test_schedules_of_the_estimator_follow_the_run() -> None:
    trainer = make("concrete", recipe=Recipe(epochs=1, batch_size=16), temperature=(1.0, 0.01))
    seen = []
    for minibatch in trainer.minibatches():
        trainer.step(*minibatch)
        seen.append(float(trainer.estimator.temperature.value))  # type: ignore[union-attr]
    assert seen == pytest.approx([0.01 ** (i / 4) for i in range(4)])


def test_the_step_of_phi_is_the_estimate_and_the_penalty() -> None:
    trainer = make("exact", "width", gamma=0.3)
    q = trainer.distribution
    assert q is not None and trainer.estimator is not None and trainer.penalty is not None
    images, labels = next(trainer.minibatches())
    twin = copy.deepcopy(trainer.network)
    trainer.step(images, labels)
    fresh = ArchitectureDistribution(q.space)
    objective = MinibatchObjective(twin, q.space, images, labels)
    _, grads = trainer.estimator.estimate(objective, fresh.logits, ())
    slopes = torch.autograd.grad(
        trainer.penalty.expected(q.space, fresh.probabilities()), fresh.logits, materialize_grads=True
    )
    for site, grad, slope in zip(q.logits, grads, slopes, strict=True):
        assert site.grad is not None
        torch.testing.assert_close(site.grad, grad + slope, rtol=1e-4, atol=1e-7)
        assert len(site) == 1 or slope.abs().max() > 1e-3


def test_weights_that_a_sample_leaves_out_decay_with_the_others() -> None:
    """λ‖w‖² is on all weights: a run on sliced networks steps its weights like one on masked networks."""

    class Masked(Trainer):
        def objective(self, images: Tensor, labels: Tensor) -> MinibatchObjective:
            objective = super().objective(images, labels)
            objective.slicing = False
            return objective

    sliced, masked = make("reinforce"), make("reinforce", kind=Masked)
    for trainer in (sliced, masked):
        trainer.network.double()
        for images, labels in itertools.islice(trainer.minibatches(), 4):
            trainer.step(images.double(), labels)
    for one, other in zip(sliced.network.parameters(), masked.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


# --- penalties ------------------------------------------------------------------------------------------------------


def test_a_large_penalty_shrinks_the_network() -> None:
    """γ is far above any difference of losses, and its sign decides where q goes."""
    means = {}
    for gamma in (-1000.0, 1000.0):
        trainer = make("rloo", recipe=Recipe(epochs=3, batch_size=16, phi_lr=0.2), gamma=gamma)
        for _ in range(3):
            trainer.epoch()
        assert trainer.distribution is not None
        means[gamma] = [float(m()) for m in (trainer.distribution.expected_width, trainer.distribution.expected_depth)]
    assert means[1000.0][0] < 0.65 and means[1000.0][1] < 1.3
    assert means[-1000.0][0] > 0.9 and means[-1000.0][1] > 2.7


def trainer_with(penalty: Penalty, space: Space) -> Trainer:
    q, estimator = ArchitectureDistribution(space), estimators.get("rloo", sizes=space.sizes)
    return Trainer(WideResNet(CONFIG), noise(), QUICK, distribution=q, estimator=estimator, penalty=penalty)


def test_a_penalty_that_cannot_move_q_warns() -> None:
    space = Space("width", CONFIG.widths)
    with pytest.warns(UserWarning, match=r"at most 1.1e-06 nats and cannot move q"):
        trainer_with(literal_penalty(space), space)


def test_no_warning_otherwise() -> None:
    space = Space("depth", CONFIG.widths)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer_with(literal_penalty(space), space)
        trainer_with(normalised_penalty(space, 0.1, CONFIG.macs(8)), space)
        trainer_with(literal_penalty(space, 0.0, 0.0), space)


# --- the same run twice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "reinforce", "relax", "concrete"])
def test_equal_seeds_give_bit_equal_runs(name: str | None) -> None:
    runs = [make(name, gamma=0.1) for _ in range(2)]
    losses = [[trainer.epoch(), trainer.epoch()] for trainer in runs]
    assert losses[0] == losses[1]
    assert same(*map(state, runs))
    other = make(name, gamma=0.1, seed=1)
    assert other.epoch() != losses[0][0]


def test_another_seed_is_another_order_augmentation_and_noise() -> None:
    one, other = (make("reinforce", seed=seed) for seed in (0, 1))
    streams = [(t.order, t.augmentation, t.noise) for t in (one, other)]
    draws = [torch.rand(4, generator=generator) for generator in itertools.chain(*streams)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 6
    one, other = (make("reinforce", seed=seed) for seed in (0, 1))
    assert not torch.equal(next(one.minibatches())[1], next(other.minibatches())[1])


def test_estimators_see_the_same_initial_weights_and_minibatches() -> None:
    """They draw different amounts of noise; plain training draws none."""
    runs = [make(name, recipe=Recipe(epochs=2, batch_size=16)) for name in (None, "reinforce", "rloo", "relax")]
    assert all(
        same(list(runs[0].network.state_dict().values()), list(r.network.state_dict().values())) for r in runs[1:]
    )
    seen: list[list[Tensor]] = []
    for trainer in runs:
        seen.append([])
        for _ in range(2):
            for images, labels in trainer.minibatches():
                seen[-1] += [images, labels]
                trainer.step(images, labels)
    assert all(same(seen[0], other) for other in seen[1:])
    assert not torch.equal(seen[0][0], seen[0][8])  # the second epoch is another order


@pytest.mark.parametrize("name", [None, "reinforce", "relax", "concrete"])
def test_a_run_goes_on_from_a_snapshot(name: str | None) -> None:
    """Into a fresh run and into the run that went on, bit by bit; the snapshot itself does not change."""
    trainer = make(name, gamma=0.1)
    trainer.epoch()
    saved = trainer.snapshot()
    reference, loss = copy.deepcopy(saved), trainer.epoch()
    after = state(trainer)
    for other in (make(name, gamma=0.1, seed=5), trainer):
        other.restore(saved)
        assert other.learner.step_count == 4
        assert other.epoch() == loss
        assert same(state(other), after)
    kept, first = (list(one["learner"]["modules"]["network"].values()) for one in (saved, reference))
    assert same(kept, first)


def test_a_snapshot_within_an_epoch_repeats_its_steps() -> None:
    """Given the same minibatches; the order is that of a new epoch."""
    trainer = make("relax")
    minibatches = list(trainer.minibatches())
    trainer.step(*minibatches[0])
    saved = trainer.snapshot()
    runs = []
    for _ in range(2):
        trainer.restore(saved)
        for minibatch in minibatches[1:]:
            trainer.step(*minibatch)
        runs.append(state(trainer))
    assert same(*runs)


# --- learning -------------------------------------------------------------------------------------------------------


def test_plain_training_learns_digits() -> None:
    """Three epochs of minibatches of 32 are enough for 90 % on the test images."""
    data = load("digits")
    trainer = make(None, recipe=Recipe(epochs=3, batch_size=32), data=data)
    losses = [trainer.epoch() for _ in range(3)]
    recalibrate(trainer.network, data)
    loss, accuracy = evaluate(trainer.network, data.test, data)
    assert accuracy > 0.9 and loss < 0.4
    assert losses[2] < losses[1] < losses[0]


def test_bfloat16_trains() -> None:
    for name in (None, "rloo"):
        trainer = make(name, recipe=Recipe(epochs=2, batch_size=16, bf16=True))
        assert math.isfinite(trainer.epoch())
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())


@pytest.mark.parametrize("name", [None, "rloo"])
def test_a_run_that_diverges_says_so(name: str | None) -> None:
    trainer = make(name, recipe=Recipe(epochs=30, batch_size=16, lr=1e6))
    with pytest.raises(Diverged, match="after"):
        max(trainer.epoch() for _ in range(30))


def test_logits_that_diverge_are_no_error_of_the_user() -> None:
    trainer = make("rloo")
    assert trainer.distribution is not None
    nn.init.constant_(trainer.distribution.logits[1], float("nan"))
    with pytest.raises(Diverged, match="logits are not finite after 0 steps"):
        trainer.epoch()


def test_logits_that_diverge_unseen_are_found_at_the_end_of_the_epoch() -> None:
    """As on a GPU, where no step looks at them."""
    trainer = make("rloo")
    assert trainer.distribution is not None
    phi = trainer.distribution.logits[1]
    last = trainer.steps_per_epoch

    def poison() -> None:
        if trainer.learner.step_count == last:
            nn.init.constant_(phi, float("nan"))

    with pytest.raises(Diverged, match=f"logits are not finite after {last} steps"):
        trainer.epoch(poison)


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_a_distribution_needs_an_estimator() -> None:
    with pytest.raises(ValueError, match="go together"):
        Trainer(WideResNet(CONFIG), noise(), QUICK, estimator=estimators.get("rloo", sizes=(2,)))
    with pytest.raises(ValueError, match="needs a distribution"):
        Trainer(WideResNet(CONFIG), noise(), QUICK, weight_estimator="mode")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phi_optimizer": "rmsprop"}, "phi_optimizer must be 'adam' or 'sgd'"),
        ({"epochs": 0}, "epochs must be positive"),
        ({"epochs": 1.5}, "epochs must be positive and whole"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"groups": 0}, "groups must be positive"),
        ({"groups": 3}, "groups must divide the batch size of 128"),
        ({"epochs": 3, "freeze": 99}, r"freeze must lie in 0 … 3 whole epochs, got 99"),
        ({"lr": float("nan")}, "lr must be finite and not negative, got nan"),
        ({"momentum": -0.1}, "momentum must be finite and not negative"),
        ({"weight_decay": float("inf")}, "weight_decay must be finite"),
        ({"phi_lr": -1.0}, "phi_lr must be finite and not negative"),
        ({"control_lr": float("inf")}, "control_lr must be finite"),
    ],
)
def test_recipes_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


def test_the_default_recipe_is_that_of_wide_resnets() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (
        200,
        128,
        0.1,
        0.9,
        5e-4,
    )


def test_the_last_partial_minibatch_is_skipped() -> None:
    trainer = make(None, recipe=Recipe(epochs=1, batch_size=24))
    seen: list[int] = []
    trainer.epoch(lambda: seen.append(trainer.learner.step_count))
    assert seen == [1, 2] and trainer.steps == 2
