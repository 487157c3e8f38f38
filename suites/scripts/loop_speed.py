"""Compares the plain training loop with two others: vmo-bench loop-speed.

Epochs of `Trainer` without a distribution, including augmentation, alternate in one process with the same number of
steps of

    bare      forward, backward and SGD of the same network on one fixed minibatch
    loader N  the same, with data from a DataLoader of N worker processes that transforms single images, as common
    scripts
              do: torchvision's RandomCrop(32, padding=4, reflect), flip, ToTensor and Normalize

Rows hold the trainer's time per image, divided by theirs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from results import table
from suites.commands import tables
from suites.overhead import ratio
from suites.scripts import rows
from vmo.config import WideResNetConfig
from vmo.data import Dataset, Split
from vmo.recipe import Recipe
from vmo.train import Trainer
from vmo.wrn import WideResNet

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
WORKERS = (0, 2)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images with their labels, transformed one at a time."""

    def __init__(self, split: Split) -> None:
        self.images = [to_pil_image(image) for image in split.images.cpu()]
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i]), self.labels[i]


def data(images: int, device: torch.device) -> Dataset:
    """Random data of CIFAR's shapes. Times do not depend on the content of images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.randint(10, (images,), generator=generator)).to(device)
    return Dataset("noise", split, split, 10, MEAN, STD, pad=4, flip=True)


def stepper(config: WideResNetConfig, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A new network and its usual training step: forward, backward, SGD."""
    with device:
        network = WideResNet(config).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def loops(config: WideResNetConfig, images: int, batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """One epoch of each loop, by name; the trainer's first."""
    dataset = data(images, device)
    with device:
        network = WideResNet(config)
    trainer = Trainer(network, dataset, Recipe(epochs=10**6, batch_size=batch))
    resident = torch.randn(batch, 3, 32, 32, device=device), dataset.train.labels[:batch]
    steps, bare = images // batch, stepper(config, device)

    def repeated() -> float:
        return float(sum(bare(*resident) for _ in range(steps)))

    found: dict[str, Callable[[], object]] = {"trainer": trainer.epoch, "bare": repeated}
    for workers in WORKERS:
        loader = DataLoader(
            Pictures(dataset.train), batch, shuffle=True, num_workers=workers, drop_last=True,
            pin_memory=device.type == "cuda", persistent_workers=workers > 0,
        )  # fmt: skip
        found[f"loader {workers}"] = _fed(loader, stepper(config, device), device)
    return found


def _fed(
    loader: DataLoader[tuple[Tensor, int]], step: Callable[[Tensor, Tensor], Tensor], device: torch.device
) -> Callable[[], object]:
    def epoch() -> float:
        total = torch.zeros((), device=device)
        for images, labels in loader:
            total += step(images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        return float(total)

    return epoch


def measure(
    config: WideResNetConfig, images: int, batch: int, device: torch.device, pairs: int
) -> list[dict[str, Any]]:
    """Rows: the time per image of every loop in seconds, and the trainer's time divided by that of each other loop."""
    epochs = loops(config, images, batch, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # warns of more workers than cores
        times: dict[str, list[float]] = {name: [] for name in epochs}
        for turn in range(pairs + 1):
            for name, epoch in epochs.items():
                begin = time.perf_counter()
                epoch()  # reads its loss at the end, and so waits for the device
                if turn:  # the first turn is a warm-up
                    times[name].append((time.perf_counter() - begin) / (images // batch * batch))
    found = []
    for name, spent in times.items():
        found.append(table.row("loop_seconds", float(np.median(spent)), part=name, n=pairs, unit="s per image"))
        if name != "trainer":
            value, se = ratio(np.array(times["trainer"]), np.array(spent))
            found.append(table.row("loop_ratio", value, se=se, part=name, n=pairs, unit="trainer / other"))
    return found


def run(
    depth: int, widen: int, images: int, batch: int, pairs: int, on: str, out: Path | None, as_json: bool = False
) -> int:
    """Measure and print; with a folder, write rows. Returns the exit status. Raises ValueError for bad arguments."""
    if on == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no CUDA device that PyTorch can use")
    if batch > images:
        raise ValueError(f"--batch must not exceed --images, got {batch} and {images}")
    config = WideResNetConfig(depth, widen)
    if out is not None:
        (out / "rows").mkdir(parents=True, exist_ok=True)  # before anything is measured
    device = torch.device(on)
    begin = time.perf_counter()
    found = measure(config, images, batch, device, pairs)
    if out is not None:
        settings = {"loop": {"depth": depth, "widen": widen, "images": images, "batch": batch, "pairs": pairs}}
        spent = time.perf_counter() - begin
        rows.write(out / "rows", found, suite="loop", task="plain", settings=settings, device=device, seconds=spent)
    if as_json:
        tables.say_json(found)
        return 0
    ratios = {row["part"]: f"{row['value']:.3f} ± {1.96 * row['se']:.3f}" for row in found if row["se"] is not None}
    lines = [
        [row["part"], f"{1e3 * row['value']:.3f}", ratios.get(row["part"], "")]
        for row in found
        if row["metric"] == "loop_seconds"
    ]
    tables.show("", ["loop", "ms per image", "trainer / it (95 %)"], lines)
    return 0
