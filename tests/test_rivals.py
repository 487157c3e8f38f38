"""The rivals of VMO: their runs, their networks, and how they are named and refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from making import cell, granted, workshop
from torch import Tensor

from suites import labels, presets, rivals, suite
from suites.commands import listing
from suites.rivals.slimmable import SearchedRun
from suites.run import main
from suites.tasks import factory, network
from suites.tasks.base import Context
from suites.tasks.network_roles import RunSettings
from vmo import compact
from vmo.data import load
from vmo.evaluate import evaluate, recalibrate
from vmo.extract import extract
from vmo.narrow import Narrowing
from vmo.train import Trainer

ALL = rivals.available()
TARGET = 0.6
TINY = ("train.batch_size=32", "network.width_step=4", f"penalty.target_macs={TARGET}", "train.images=128")


def trainer(label: str, *settings: str, seed: int = 0) -> Trainer:
    task = factory("width")(Context())
    assert isinstance(task, network.NetworkTask)
    handed = presets.resolve("smoke", [*TINY, *settings]).hand(RunSettings)
    return task.trainer(handed, None, seed, rival=labels.parse(label).rival)


def rows(out: Path, label: str, *settings: str) -> list[dict[str, Any]]:
    shop = workshop(out)
    return suite.get("accuracy").run(shop.job(cell(shop, "width", "accuracy", label, *TINY, *settings)))


def value(found: list[dict[str, Any]], metric: str, part: str | None = None) -> float:
    (one,) = [row["value"] for row in found if row["metric"] == metric and row["part"] == part]
    return float(one)


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["l0", "l0_arm", "pruned", "slimmable[candidates=3]"])
def test_a_rival_meets_the_budget_with_the_rows_of_any_run_and_can_be_exported(label: str, tmp_path: Path) -> None:
    found = rows(tmp_path, label)
    plain = rows(tmp_path / "plain", "plain")
    metrics = {row["metric"] for row in found}
    assert {row["metric"] for row in plain} | {"training_cost", "curve_width"} <= metrics
    assert metrics <= set(suite.get("accuracy").measures)
    assert value(found, "macs_ratio") == pytest.approx(TARGET, abs=0.0125)  # half of the dearest channel of 8×8 images
    widths = [row["value"] for row in found if row["metric"] == "block_width"]
    assert len(widths) == 3 and value(found, "parameters") < value(plain, "parameters")
    run = compact.read(next((tmp_path / "checkpoints").iterdir()))
    assert run.task == "width" and run.architecture.hidden == tuple(widths)
    data = replace(trainer(label).dataset, test=load("digits").test)  # the run's training images
    made = compact.compact(run, data)
    assert evaluate(made, data.test, data)[1] == value(found, "accuracy", "test")
    assert value(found, "macs") == compact.macs(made, data.shape)
    assert value(found, "parameters") == sum(one.numel() for one in made.parameters())


@pytest.mark.parametrize("label", ALL)
def test_a_rival_starts_as_vmo_does(label: str) -> None:
    """Equal initial weights, and equal minibatches where the rival holds no images back."""
    mine = trainer(label)
    task = factory("width")(Context())
    assert isinstance(task, network.NetworkTask)
    vmo = task.trainer(presets.resolve("smoke", TINY).hand(RunSettings), labels.parse("rloo").make, 0)
    for one, other in zip(mine.network.parameters(), vmo.network.parameters(), strict=True):
        assert torch.equal(one, other)
    if not isinstance(mine, SearchedRun):
        for one, other in zip(mine.minibatches(), vmo.minibatches(), strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def masked(run: Narrowing, images: Tensor) -> Tensor:
    """The logits of the network with masks for the channels that would be kept now."""
    kept, scores, factors = run.architecture().hidden, run.scores(), run.factors()
    masks = []
    for i, (k, one) in enumerate(zip(kept, scores, strict=True)):
        mask = torch.zeros_like(one)
        chosen = one.argsort(descending=True, stable=True)[:k]
        mask[chosen] = 1.0 if factors is None else factors[i][chosen]
        masks.append(mask)
    return run.network(images, masks=masks)


@pytest.mark.parametrize("label", ["l0", "l0_arm", "pruned"])
@torch.no_grad()
def test_the_compact_network_equals_the_masked_one(label: str) -> None:
    run = trainer(label)
    assert isinstance(run, Narrowing)
    generator = torch.Generator().manual_seed(0)
    for tensor in [
        p for p in (*run.network.parameters(), *(run.phi or torch.nn.Module()).parameters()) if p.dim() == 1
    ]:
        tensor.copy_(2 * torch.randn(tensor.shape, generator=generator))
    run.network.eval()
    images = torch.randn(5, 1, 8, 8, generator=generator)
    expected = masked(run, images)
    before = run.deployed()
    run.finish()
    for made in (before, run.deployed()):
        assert made.config.hidden == run.kept
        torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-4)


def test_the_penalty_of_gates_counts_the_macs_of_the_open_channels() -> None:
    for label in ("l0", "l0_arm"):
        run: Any = trainer(label)
        kept = (5, 20, 33)
        with torch.no_grad():
            for logits, k in zip(run.gates.split(run.gates.logits), kept, strict=True):
                logits.copy_(torch.where(torch.arange(len(logits)) < k, 60.0, -60.0))
        whole = run.network.config
        ratio = replace(whole, hidden=kept).total_macs(8) / whole.total_macs(8)
        assert float(run.penalty_of_gates().detach()) == pytest.approx(50 * (ratio - TARGET) ** 2, rel=1e-3)
        assert run.expected_width() == pytest.approx((5 / 16 + 20 / 32 + 33 / 64) / 3)


@pytest.mark.parametrize("label", ["l0", "l0_arm"])
def test_the_penalty_and_its_gradient_are_those_of_the_expected_macs(label: str) -> None:
    """At logits whose gates are often open and often closed. P(z ≠ 0) is written out."""
    run: Any = trainer(label)
    logits = run.gates.logits
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.9))
    with torch.no_grad():
        logits.copy_(torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)))
    opened = (logits + (2 / 3) * math.log(11) if label == "l0" else logits).sigmoid()
    rest, fixed, slope = run.network.config.macs(8)
    macs = rest + sum(fixed) + sum(s * one.sum() for s, one in zip(slope, run.gates.split(opened), strict=True))
    penalty = 50 * (macs / run.network.config.total_macs(8) - TARGET) ** 2
    assert float(run.penalty_of_gates().detach()) == pytest.approx(float(penalty.detach()), rel=1e-4)
    (wanted,) = torch.autograd.grad(penalty, logits)

    images, label_of = next(run.minibatches())
    noise, found = run.noise.get_state(), []
    for penalised in (run.penalty_of_gates, lambda: torch.zeros((), requires_grad=True)):
        logits.grad, run.penalty_of_gates = None, penalised
        run.noise.set_state(noise)
        run.gradients(images, label_of)
        found.append(logits.grad)
    torch.testing.assert_close(found[0] - found[1], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("label", ["l0", "l0_arm", "l0_arm[estimator=disarm]"])
def test_gates_are_drawn_anew_for_every_channel_and_step(label: str) -> None:
    """At φ = 0 the two samples of an antithetic pair are complements."""
    run: Any = trainer(label)
    with torch.no_grad():
        run.gates.logits.zero_()
    inner, seen = run.loss, []
    run.loss = lambda *data, masks, **how: seen.append(torch.cat(masks).detach()) or inner(*data, masks=masks, **how)
    images, label_of = next(run.minibatches())
    for _ in range(2):
        run.gradients(images, label_of)
    if label == "l0":
        inside = [one[(one > 0) & (one < 1)] for one in seen]
        assert all(len(one) > 40 and len(one.unique()) == len(one) for one in inside)
    else:
        assert len(seen) == 4 and all(torch.equal(seen[i], 1 - seen[i + 1]) for i in (0, 2))
        assert all(30 < one.sum() < 82 for one in seen)  # of 112; 4.9 standard deviations
    first, *_, last = seen
    assert not torch.equal(first, last) and not torch.equal(first, 1 - last)


def test_after_the_pruning_the_kept_channels_train_as_a_network_of_their_own() -> None:
    run: Any = trainer("pruned")
    images, label_of = next(run.minibatches())
    run.step(images, label_of)
    optimizer, scale = run.learner.optimizers["weights"], run.network.blocks[1].bn2.weight
    with torch.no_grad():
        scale[3] = -5.0  # the score is the size of the scale, whatever its sign
    order, momentum = scale.abs().argsort(descending=True), optimizer.state[scale]["momentum_buffer"].clone()
    run.narrow()
    assert scale[0] == -5.0
    assert torch.equal(optimizer.state[scale]["momentum_buffer"], momentum[order])

    alone, optimizer = run.deployed().train(), optimizer.zero_grad()
    run.gradients(images, label_of)
    torch.nn.functional.cross_entropy(alone(images), label_of).backward()
    grads = {name: one.grad for name, one in run.network.named_parameters()}
    for name, one in alone.named_parameters():
        corner = grads[name][tuple(map(slice, one.shape))]
        torch.testing.assert_close(corner, one.grad, rtol=1e-3, atol=1e-5)
        assert grads[name].count_nonzero() == corner.count_nonzero()


@pytest.mark.parametrize(
    ("label", "steps", "search"),
    [
        ("l0", 1.0, 0.0),
        ("l0_arm", 2.0, 0.0),
        ("l0_arm[estimator=disarm]", 2.0, 0.0),
        # ¾ of the images; 3 candidates see 96 + 32 images in a forward pass, a third of a step, of 2 · 128 in the run
        ("slimmable[candidates=3, held=0.25]", 0.75, TARGET * 3 * (96 + 32) / 3 / (2 * 128)),
    ],
)
def test_the_cost_of_a_run(label: str, steps: float, search: float) -> None:
    run = trainer(label)
    expected = 1.0
    if isinstance(run, SearchedRun):
        assert run.distribution is not None
        space, q = run.distribution.space, run.distribution.probabilities()
        expected = float(run.target.cost.expected(space, q).detach())
    assert run.cost() == pytest.approx(steps * expected + search)


def test_the_scales_are_penalised_until_the_channels_are_pruned() -> None:
    run, free = trainer("pruned[at=0.5, sparsity=0.5]"), trainer("pruned[at=0.5, sparsity=0.0]")
    assert isinstance(run, Narrowing)
    images, label = next(run.minibatches())
    for one in (run, free):
        one.network.train()
        one.gradients(images, label)
    scales = [[p.grad for name, p in one.network.named_parameters() if "bn2.weight" in name] for one in (run, free)]
    for one, other in zip(*scales, strict=True):
        torch.testing.assert_close(one - other, torch.full_like(one, 0.5))  # type: ignore[operator]
    kept = []
    run.epoch(lambda: kept.append(run.kept))
    run.epoch(lambda: kept.append(run.kept))
    assert len(kept) == 8 and kept[3] is None and kept[4] is not None and kept[4] == kept[-1]
    scores = torch.cat([block.abs() for block in run.scores()])
    assert scores.isfinite().all()
    assert run.cost() == pytest.approx(0.5 + 0.5 * TARGET, abs=0.01)


# --- the search -----------------------------------------------------------------------------------------------------


def test_the_search_sees_no_test_image_and_finds_the_best_on_images_that_train_no_weights() -> None:
    run = trainer("slimmable[candidates=8, held=0.25]")
    assert isinstance(run, SearchedRun)
    assert len(run.held) == 32 and len(run.dataset.train) == 96
    train = {image.numpy().tobytes() for image in run.dataset.train.images}
    digits = load("digits")
    assert len({image.numpy().tobytes() for image in run.held.images} & train) <= 1  # digits has a few equal images
    assert {image.numpy().tobytes() for image in run.held.images} <= {i.numpy().tobytes() for i in digits.train.images}
    run.epoch()
    first = run.choice()
    run.dataset = replace(run.dataset, test=None)  # type: ignore[arg-type]  any use of it is an error
    run.finish()
    assert run.found is not None and run.choice() == run.found and run.distribution is not None
    space, accuracies = run.distribution.space, {}
    drawn = [index for _, index in zip(range(8), run.samples(), strict=False)]
    assert drawn[0] == first and run.found in drawn
    for index in drawn:
        made = extract(run.network, space.architecture(index))
        assert made.config.total_macs(8) / run.network.config.total_macs(8) == pytest.approx(TARGET, abs=0.0101)
        recalibrate(made, run.dataset)
        accuracies[index] = evaluate(made, run.held, run.dataset)[1]
    assert accuracies[run.found] == max(accuracies.values())


def test_before_the_search_the_weights_are_those_of_random(tmp_path: Path) -> None:
    """On the same images: the baseline `random` is the same training with one sample as its choice."""
    run = trainer("slimmable[held=0.25]")
    task = granted("width", *TINY).task
    assert isinstance(task, network.NetworkTask)
    handed = presets.resolve("smoke", TINY).hand(RunSettings)
    other = task.trainer(handed, labels.parse("reinforce[baseline=none]").make, 0, learn=False)
    other.dataset = run.dataset
    assert run.epoch() == other.epoch()
    assert run.choice() == other.choice()


def test_a_search_needs_a_minibatch_of_images_to_train_on() -> None:
    with pytest.raises(ValueError, match=r"^slimmable: held=0.9 leaves 13 images, no minibatch of 32$"):
        trainer("slimmable[held=0.9]")


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_label_is_canonical_and_versions_are_those_of_what_is_used() -> None:
    assert [str(labels.parse(name)) for name in ALL] == list(ALL)
    label = labels.parse("pruned[at=0.25]")
    assert str(label) == "pruned[at=0.25]" and labels.parse(str(label)) == label
    assert dict(label.options) == {"at": 0.25, "sparsity": 1e-4} and not label.is_estimator
    assert labels.parse("pruned[at=0.5]") == labels.parse("pruned")
    assert labels.parse("l0_arm").inside == ("arsm",) and labels.parse("l0").inside == ()
    control = labels.parse("scratch[of=l0_arm[estimator=disarm]]")
    assert control.of == labels.parse("l0_arm[estimator=disarm]") and control.inside == ("disarm",)
    assert set(ALL) <= set(listing.names("baselines"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pruned[at=1.5]", "pruned: at must be a number > 0 and < 1, got 1.5"),
        ("slimmable[candidate=2]", "has no option 'candidate', did you mean 'candidates'?"),
        ("slimmable[candidates=0]", "slimmable: candidates must be a whole number ≥ 1, got 0"),
        ("l0[start=open]", "l0: start must be a number > 0 and < 1, got 'open'"),
        ("l0_arm[estimator=rloo]", "l0_arm: estimator must be 'arsm' or 'disarm', got 'rloo'"),
    ],
)
def test_what_is_no_rival_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        labels.parse(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_options_and_estimators_are_in_the_hash(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    names = ("l0", "l0_arm", "l0_arm[estimator=disarm]", "pruned", "pruned[at=0.25]", "scratch[of=pruned]", "random")
    cells = [cell(shop, "width", "accuracy", name, *TINY) for name in names]
    assert len({one.hash for one in cells}) == len(names)
    assert dict(cells[1].uses) == {"arsm": 1} and cells[5].needed() == cells[3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "pruned needs a budget: --target-macs R"),
        (("--target-macs", "0.1"), "target_macs=0.1 cannot be met"),
        (("--target-macs", "0.6", "--set", "train.freeze=1"), "without train.freeze, got 1"),
        (("--target-macs", "0.6", "--set", "train.weights=mode"), "without train.weights, got 'mode'"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--estimator", "pruned", "--task", "width", "--suite", "accuracy", "--preset", "smoke"]
    assert main([*asked, *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("rows/*"))


def test_rivals_are_of_the_width_task_and_of_whole_runs() -> None:
    for task in ("depth", "joint", "toy", "width"):
        for name in ("bias", "memory", "accuracy"):
            of = suite.get(name)
            wanted = (task, name) == ("width", "accuracy")
            assert of.applies(factory(task)(Context()), labels.parse("l0")) == wanted
    with pytest.raises(ValueError, match="l0 is a baseline"):
        presets.resolve("smoke", ["train.weights=l0"])
