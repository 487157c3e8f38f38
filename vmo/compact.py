"""The compact network of a finished run, and what it saves.

The last checkpoint of a run of the accuracy suite holds the gated network, q, and their description under "run". The
compact network is extracted from the gated network with the architecture that the run has chosen. Its BN statistics are
measured again on training images, because those of the gated network mix many architectures. It may then be fine-tuned.
"""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vmo import checkpoint, cifar
from vmo.config import WideResNetConfig
from vmo.data import DataError, Dataset, load
from vmo.evaluate import evaluate, recalibrate
from vmo.extract import extract, parameters
from vmo.identity import Identity
from vmo.recipe import Recipe
from vmo.sources import HALVED
from vmo.space import Architecture
from vmo.train import Trainer
from vmo.wrn import WideResNet

BATCHES = (1, 128)
"""Batch sizes for which latency is measured."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        task: "depth", "width" or "joint"; "plain" for a run without a distribution.
        data: the data that it was trained on.
        seed: its seed.
        recipe: its hyperparameters.
        network: the gated network, on the CPU.
        architecture: the chosen architecture; the whole network for a run without a distribution.
    """

    task: str
    data: Identity
    seed: int
    recipe: Recipe
    network: WideResNet
    architecture: Architecture


def read(path: Path) -> Run:
    """The finished run whose checkpoint is at `path`.

    Raises:
        ValueError: no such checkpoint, or the run is not finished; one line.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    state = checkpoint.load(path)
    if state is None:
        raise ValueError(f"{path} is not a checkpoint of this version, or is damaged")
    if not isinstance(state, dict) or not {"trainer", "run", "epoch"} <= state.keys():
        raise ValueError(f"{path} is not the checkpoint of a network that the accuracy suite trained")
    try:
        run = _run(state["run"], state["trainer"])
        epochs = run.recipe.epochs + run.recipe.continued
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a complete run: {type(error).__name__}: {error}") from None
    if state["epoch"] <= epochs:
        raise ValueError(
            f"{path}: the run is not finished ({state['epoch'] - 1} of {epochs} epochs); repeat its command to resume"
        )
    return run


def _run(about: dict[str, Any], trained: dict[str, Any]) -> Run:
    network = dict(about["network"])
    hidden = network.pop("hidden")
    config = WideResNetConfig(**network, hidden=None if hidden is None else tuple(hidden))
    with torch.device("meta"):  # skips the initialisation, because all weights are loaded below
        gated = WideResNet(config)
    gated.load_state_dict(trained["learner"]["modules"]["network"], assign=True)
    chosen = about["architecture"]
    architecture = Architecture(int(chosen["blocks"]), tuple(chosen["hidden"]))
    widths = config.widths[: architecture.blocks]
    if len(architecture.hidden) != len(widths) or any(map(operator.gt, architecture.hidden, widths)):
        raise ValueError(f"blocks of {architecture.hidden} channels are not part of blocks of {config.widths}")
    data = Identity.read(about)
    return Run(about["task"], data, about["seed"], Recipe(**about["recipe"]), gated, architecture)


def dataset(run: Run, root: Path | None, device: torch.device | str = "cpu") -> Dataset:
    """The data that the run was trained on.

    Raises:
        DataError: the data cannot be loaded, or their content differs.
    """
    try:
        found = load(run.data.name, root, device)
    except DataError as error:
        raise DataError(f"the run was trained on {run.data}, but {error}; --data-root sets its folder") from None
    if found.identity.content != run.data.content:
        raise DataError(
            f"the run was trained on {run.data}, but what is found is {found.identity}; "
            "--data-root sets the folder of the run's data"
        )
    return found


def class_names(data: Dataset) -> list[str]:
    """Class names in the order of the labels; numbers if the data set has no names."""
    return cifar.CLASS_NAMES.get(HALVED.get(data.name, data.name), " ".join(map(str, range(data.classes)))).split()


def compact(
    run: Run,
    data: Dataset,
    *,
    fine_tune: int = 0,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> WideResNet:
    """The compact network of the run, on the data's device, in eval mode.

    Args:
        run: the finished run.
        data: the data that it was trained on.
        fine_tune: epochs of plain training by the run's recipe, at its last learning rate.
        progress: called after each of these epochs with its number and mean loss.

    Raises:
        Diverged: fine-tuning has diverged.
    """
    network = extract(run.network, run.architecture).to(data.train.images.device)
    recalibrate(network, data)
    if fine_tune:
        trainer = Trainer(
            network,
            data,
            replace(run.recipe, epochs=fine_tune, freeze=0, continued=0, groups=1, compile=False),
            seed=run.seed,
        )
        trainer.learner.step_count = trainer.steps  # the end of the schedule: the learning rate stays at its last value
        for epoch in range(fine_tune):
            progress(epoch + 1, trainer.epoch())
        recalibrate(network, data)
    return network


def macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates for one image of `shape` (C, H, W)."""
    image = torch.zeros(1, *shape, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2


@torch.inference_mode()
def latency(networks: Sequence[nn.Module], images: Tensor, seconds: float = 3.0) -> tuple[list[float], int]:
    """Median time in seconds of each network on a minibatch, and the number of runs of each.

    The networks run in turn, so that drifts of the machine's speed affect all of them. The first round is a warm-up.

    Args:
        networks: in eval mode, on the device of `images`.
        images: `(B, C, H, W)`, normalised.
        seconds: no further round starts after this time; there are at least 5 and at most 50 rounds.
    """
    times: list[list[float]] = [[] for _ in networks]
    began = time.perf_counter()
    while len(times[0]) < 6 or (len(times[0]) < 51 and time.perf_counter() - began < seconds):
        for network, spent in zip(networks, times, strict=True):
            begin = time.perf_counter()
            network(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            spent.append(time.perf_counter() - begin)
    return [statistics.median(spent[1:]) for spent in times], len(times[0]) - 1


def comparison(run: Run, network: WideResNet, data: Dataset, fine_tuned: int = 0) -> str:
    """A Markdown table that compares the compact network with the full one."""
    device, full, kept = data.train.images.device, run.network.config.widths, network.config.widths
    whole = extract(run.network, Architecture(len(full), full)).to(device).eval()
    both = (whole, network)
    config = run.network.config
    lines: list[tuple[str, float, float, str]] = [
        ("layers", 4 + 2 * len(full), 4 + 2 * len(kept), ",d"),
        ("hidden channels", sum(full), sum(kept), ",d"),
        ("parameters", parameters(whole), parameters(network), ",d"),
        ("MACs per image", macs(whole, data.shape), macs(network, data.shape), ",d"),
    ]
    counts = []
    for batch in BATCHES:
        (slow, fast), n = latency(both, torch.randn(batch, *data.shape, device=device))
        lines.append((f"latency, batch {batch} (ms)", slow * 1e3, fast * 1e3, ".3f"))
        counts.append(f"{n} (batch {batch})")
    accuracy = evaluate(network, data.test, data)[1]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu × {torch.get_num_threads()}"
    remark = f"; {run.data.note}" * bool(run.data.note)
    tuned = f", then fine-tuned for {fine_tuned} epoch{'s' * (fine_tuned > 1)}" if fine_tuned else ""
    return "\n".join(
        [
            f"# WRN-{config.depth}-{config.widen} on {run.data.dataset}: {run.task}",
            "",
            "| | full network | compact | compact / full |",
            "|---|---:|---:|---:|",
            *(f"| {name} | {a:{form}} | {b:{form}} | {b / a:.2f} |" for name, a, b, form in lines),
            f"| test accuracy | – | {accuracy:.4f} | |",
            "",
            f"Blocks kept: {len(kept)} of {len(full)}; hidden channels of each: "
            f"{', '.join(map(str, kept))} of {', '.join(map(str, full))}.",
            f"Latency: medians of {' and '.join(counts)} interleaved runs in eager float32 on {where}.",
            f"Accuracy: on {len(data.test):,} test images; BN recalibrated on the training images{tuned}.",
            f"Data: {run.data}{remark}.",
        ]
    )
