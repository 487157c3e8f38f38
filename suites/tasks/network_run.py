"""A whole run of a network: its epochs, and the rows of its results."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from results.table import row
from vmo.checkpoint import Keeper
from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split
from vmo.evaluate import evaluate, recalibrate
from vmo.extract import extract, parameters
from vmo.space import Architecture
from vmo.train import Trainer
from vmo.wrn import WideResNet

TRAIN_IMAGES = 10_000  # used for the training accuracy: as many as CIFAR has test images
POINTS = 10  # most evaluations of the chosen network during a run
SAMPLED = 10  # architectures drawn from q for its own accuracy


def whole_run(
    trainer: Trainer,
    whole: WideResNetConfig,
    seed: int,
    about: Mapping[str, Any],
    keeper: Keeper,
    progress: Callable[[str, int, int], None],
    measured: str = "test",
) -> list[dict[str, Any]]:
    """Train to the end, from the checkpoint of `keeper` if there is one. Returns the rows.

    Args:
        trainer: a new trainer.
        whole: the configuration of the full network.
        seed: the seed of the run.
        about: further entries of the checkpoint's description of the run, for `vmo.compact`.
        keeper: keeps the checkpoints.
        progress: called after every step.
        measured: the name of the images on which accuracy is measured.
    """
    epochs = trainer.recipe.epochs + trainer.recipe.continued
    curves = _state(trainer, 0)
    epoch = 1
    if (saved := keeper.load(trainer.dataset.train.images.device)) is not None:
        trainer.restore(saved["trainer"])
        curves, epoch = saved["curves"], saved["epoch"]

    def state() -> dict[str, Any]:
        network = {"network": asdict(trainer.network.config), "architecture": asdict(trainer.architecture())}
        run = {**about, **network, "recipe": asdict(trainer.recipe)}
        return {"trainer": trainer.snapshot(), "curves": curves, "epoch": epoch, "run": run}

    def on_step() -> None:
        progress(f"epoch {epoch} of {epochs}", trainer.learner.step_count, trainer.steps)
        keeper.offer(state)

    while epoch <= epochs:
        loss = trainer.epoch(on_step)
        curves.append(row("curve_loss", loss, x=epoch, unit="nats"))
        if epoch * POINTS // epochs > (epoch - 1) * POINTS // epochs:
            curves += _so_far(trainer, epoch, measured)
        curves += _state(trainer, epoch)
        if epoch == epochs:
            trainer.finish()
        epoch += 1
    keeper.finish(state())
    return _results(trainer, whole, seed, measured) + curves


def cut_alike(config: WideResNetConfig, size: int, architecture: Architecture) -> Architecture:
    """The network of full depth, with all blocks narrowed by one factor, whose MACs are nearest to an architecture's.

    Args:
        config: the full network.
        size: height and width of an image, in pixels.
        architecture: the architecture whose multiply-accumulates are to be matched.
    """
    kept = replace(config, hidden=architecture.hidden, blocks=architecture.blocks).total_macs(size)
    rest, fixed, slope = config.macs(size)
    most = max(config.widths)
    # try every factor at which some block loses a channel; take the one with the nearest cost
    cuts = [tuple(max(1, round(i * k / most)) for k in config.widths) for i in range(1, most + 1)]
    macs = [rest + sum(fixed) + sum(map(operator.mul, slope, cut)) for cut in cuts]
    best = min(range(most), key=lambda i: abs(macs[i] - kept))
    return Architecture(len(config.widths), cuts[best])


def _results(trainer: Trainer, whole: WideResNetConfig, seed: int, measured: str) -> list[dict[str, Any]]:
    """The rows of a finished run."""
    q, data = trainer.distribution, trainer.dataset
    chosen = trainer.architecture()
    compact = _calibrated(trainer, trainer.deployed())
    size = data.shape[-1]
    macs = compact.config.total_macs(size)
    rows = []
    for part, split in (("train", _first(data, TRAIN_IMAGES)), (measured, data.test)):
        loss, accuracy = evaluate(compact, split, data)
        rows.append(row("loss", loss, part=part, n=len(split), unit="nats"))
        rows.append(row("accuracy", accuracy, part=part, n=len(split), unit="fraction"))
    kept = torch.tensor([k / most for k, most in zip(chosen.hidden, whole.widths, strict=False)])
    rows += [
        row("layers", 4 + 2 * chosen.blocks, unit="layers"),
        row("width_fraction", float(kept.mean()), unit="fraction"),
        row("width_sd_blocks", float(kept.std(correction=0)), unit="fraction"),
        row("parameters", parameters(compact), unit="parameters"),
        row("macs", macs, unit="MACs"),
        row("macs_ratio", macs / whole.total_macs(size), unit="fraction"),
        *(row("block_width", k, x=block, unit="channels") for block, k in enumerate(chosen.hidden, 1)),
    ]
    if q is not None:
        device = data.test.images.device
        noise, right = torch.Generator(device).manual_seed(seed), 0.0
        for i in range(SAMPLED):  # each architecture is evaluated on its own part of the test images
            images, labels = (t.tensor_split(SAMPLED)[i] for t in (data.test.images, data.test.labels))
            drawn = _calibrated(trainer, extract(trainer.network, q.sample(noise)), minibatches=10)
            right += len(labels) * evaluate(drawn, Split(images, labels), data)[1]
        rows.append(row("sampled_accuracy", right / len(data.test), n=SAMPLED, unit="fraction"))
        rows.append(row("entropy", float(q.entropy().mean()), unit="nats per site"))
    if (cost := trainer.cost()) is not None:
        rows.append(row("training_cost", cost, unit="plain runs"))
    return rows


def _first(data: Dataset, count: int) -> Split:
    return Split(data.train.images[:count], data.train.labels[:count])


def _calibrated(trainer: Trainer, compact: WideResNet, minibatches: int = 50) -> WideResNet:
    recalibrate(compact, trainer.dataset, limit=minibatches)
    return compact


def _so_far(trainer: Trainer, epoch: int, measured: str) -> list[dict[str, Any]]:
    """Loss and accuracy of the network chosen after this epoch, on the images on which accuracy is measured."""
    images = trainer.dataset.test
    loss, accuracy = evaluate(_calibrated(trainer, trainer.deployed(), minibatches=10), images, trainer.dataset)
    return [
        row("curve_test_loss", loss, x=epoch, part=measured, n=len(images), unit="nats"),
        row("curve_accuracy", accuracy, x=epoch, part=measured, n=len(images), unit="fraction"),
    ]


def _state(trainer: Trainer, epoch: int) -> list[dict[str, Any]]:
    """What q, or the gates of the channels, are like at the end of an epoch."""
    q, width, found = trainer.distribution, trainer.expected_width(), []
    if width is not None:
        found.append(row("curve_width", width, x=epoch, unit="fraction"))
    if q is not None:
        found.append(row("curve_depth", float(4 + 2 * q.expected_depth()), x=epoch, unit="layers"))
        found.append(row("curve_entropy", float(q.entropy().mean()), x=epoch, unit="nats per site"))
    return found
