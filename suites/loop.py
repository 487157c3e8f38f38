"""The plain loop against the least that it could do, and against the usual one: python -m suites.loop.

Epochs of `Trainer` without a distribution, augmentation and all, alternate in one process with as many steps of

    bare      forward, backward and SGD of the same network on one resident minibatch
    loader N  the same, fed as the widely used scripts are: torchvision's RandomCrop(32, padding=4, reflect), flip,
              ToTensor and Normalize, image by image, in a DataLoader of N worker processes

and each row is the trainer's time over theirs, per image.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from results import table
from suites.engine.execute import provenance
from suites.overhead import ratio
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
    """CIFAR's shapes; no time depends on what the images show."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.randint(10, (images,), generator=generator)).to(device)
    return Dataset("noise", split, split, 10, MEAN, STD, pad=4, flip=True)


def stepper(config: WideResNetConfig, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A network of its own and the usual step of it: forward, backward, SGD."""
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
    """An epoch of each, by name; the trainer's first."""
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
    """Rows: the trainer's time over that of every other loop, and the milliseconds per image of all."""
    epochs = loops(config, images, batch, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than a small machine has cores
        times: dict[str, list[float]] = {name: [] for name in epochs}
        for turn in range(pairs + 1):
            for name, epoch in epochs.items():
                begin = time.perf_counter()
                epoch()  # reads its loss at the end, and so waits for a device
                if turn:  # the first warms up
                    times[name].append((time.perf_counter() - begin) / (images // batch * batch))
    rows = []
    for name, spent in times.items():
        rows.append(table.row("loop_seconds", float(np.median(spent)), part=name, n=pairs, unit="s per image"))
        if name != "trainer":
            value, se = ratio(np.array(times["trainer"]), np.array(spent))
            rows.append(table.row("loop_ratio", value, se=se, part=name, n=pairs, unit="trainer / other"))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write rows. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m suites.loop", description=(__doc__ or "").partition(":")[0])
    for name, default, what in (
        ("depth", 16, "of the network"), ("widen", 1, "of the network"), ("images", 1280, "in an epoch"),
        ("batch", 128, "images in a minibatch"), ("pairs", 8, "epochs of each, in turn"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; by default {default}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, metavar="DIR", help="write rows to DIR/rows")
    args = parser.parse_args(argv)
    try:
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: this machine has no CUDA device that PyTorch can use")
        if args.pairs < 2 or not 1 <= args.batch <= args.images:
            raise ValueError("--pairs must be at least 2, and --batch must lie in 1 … --images")
        config = WideResNetConfig(args.depth, args.widen)
        if args.out is not None:
            (args.out / "rows").mkdir(parents=True, exist_ok=True)  # before anything is measured
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    device = torch.device(args.device)
    begin = time.perf_counter()
    rows = measure(config, args.images, args.batch, device, args.pairs)
    shown = Table("loop", "ms per image", "trainer / it (95 %)")
    ratios = {row["part"]: f"{row['value']:.3f} ± {1.96 * row['se']:.3f}" for row in rows if row["se"] is not None}
    for row in rows:
        if row["metric"] == "loop_seconds":
            shown.add_row(row["part"], f"{1e3 * row['value']:.3f}", ratios.get(row["part"], ""))
    Console(width=100).print(shown)
    if args.out is not None:
        settings = {key: value for key, value in vars(args).items() if key != "out"}
        _write(args.out / "rows", rows, settings, device, time.perf_counter() - begin)
    return 0


def _write(
    rows: Path, found: list[dict[str, Any]], settings: dict[str, Any], device: torch.device, spent: float
) -> None:
    cell = {"suite": "loop", "task": "plain", "task_version": 1, "estimator": "plain", "estimator_version": 1}
    cell |= {"preset": "loop", "dataset": "none", "seed": 0, "settings": settings}
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu × {torch.get_num_threads()}"
    shared = {"cell": cell, "provenance": {**provenance(), "device": where, "dtype": "float32", "wall_s": spent}}
    table.write(rows, hashlib.sha256(repr(cell).encode()).hexdigest()[:16], [{**one, **shared} for one in found])


if __name__ == "__main__":
    sys.exit(main())
