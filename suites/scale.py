"""What a training run should take on a GPU, projected from what a step computes and moves: python -m suites.scale.

    seconds of a step = max(2 · MACs / (COMPUTE · peak), bytes / (MEMORY · bandwidth), operations · LAUNCH)

MACs are counted by torch's FlopCounterMode and bytes operation by operation, inputs read and outputs written, of one
step of the trainer in bfloat16 under fake tensors, so on masks and not on slices. Nothing of it is run. That every
operation moves its tensors is what eager execution does; a compiled step fuses and moves less. Peaks and bandwidths are
those of NVIDIA's data sheets (A100: nvidia-a100-datasheet; H100: h100-tensor-core-gpu-datasheet), dense.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from suites.labels import PLAIN, parse
from suites.presets import PRESETS, Preset
from suites.tasks import factory
from suites.tasks.base import Context

COMPUTE, MEMORY = 0.3, 0.7
"""Assumed fractions of peak and of bandwidth that are reached."""
LAUNCH = 5e-6
"""Assumed seconds from one operation to the next, however small they are."""
IMAGES = 50_000
"""Of CIFAR's training sets."""
ESTIMATORS = (PLAIN, "rloo", "concrete", "rebar[coupled=true,tuning=regression]", "rebar")


class Device(NamedTuple):
    """A GPU, by what its data sheet says.

    Args:
        name: how the name that CUDA gives begins.
        peak: operations per second on dense tensors, by dtype; float32 is TF32, in which cuDNN convolves it.
        bandwidth: of its memory, bytes per second.
    """

    name: str
    peak: dict[str, float]
    bandwidth: float


DEVICES = {
    "A100": Device("NVIDIA A100", {"bfloat16": 312e12, "float32": 156e12}, 2.039e12),  # 80 GB, SXM
    "H100": Device("NVIDIA H100 80GB HBM3", {"bfloat16": 989e12, "float32": 494e12}, 3.35e12),  # SXM
}


class Moved(TorchDispatchMode):
    """Operations, and the bytes that they read and write; a view is none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
            self.operations += 1
            self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        return out


def fraction_of_peak(macs: float, seconds: float, name: str, dtype: str) -> float | None:
    """The part of a device's peak that a step reaches; None of a device whose data sheet is not in `DEVICES`."""
    found = next((device for device in DEVICES.values() if name.startswith(device.name)), None)
    return None if found is None else 2 * macs / seconds / found.peak[dtype]


def counted(preset: Preset, estimator: str, task: str = "width") -> tuple[float, float, int]:
    """Multiply-accumulates, bytes moved and operations of a training step at a preset's size, in bfloat16."""
    own = replace(preset, overhead_depth=preset.depth, overhead_widen=preset.widen, overhead_batch=preset.batch_size)
    own = replace(own, penalty="macs")
    with FakeTensorMode():
        made = factory(task)(Context(own))
        workload: Any = made.workload(None if estimator == PLAIN else parse(estimator).make, "overhead")
        workload.trainer.recipe = replace(workload.trainer.recipe, bf16=True)
        workload.step()  # the optimizers have their state after it
        with Moved() as moved, FlopCounterMode(display=False) as flops:
            workload.step()
    return flops.get_total_flops() / 2, float(moved.bytes), moved.operations


def seconds(macs: float, size: float, operations: int, device: Device) -> float:
    """Of a step, by the formula above."""
    computing = 2 * macs / (COMPUTE * device.peak["bfloat16"])
    return max(computing, size / (MEMORY * device.bandwidth), operations * LAUNCH)


def projection(names: Sequence[str]) -> str:
    """The table, in Markdown."""
    heads = [f"{head} {name}" for name in DEVICES for head in ("ms per step,", "hours per run,")]
    lines = [["preset", "estimator", "GMACs per step", "GB moved per step", "operations", *heads]]
    lines.append(["---", "---", *["---:"] * (len(lines[0]) - 2)])
    for name in names:
        preset = PRESETS[name]
        steps = preset.epochs * (IMAGES // preset.batch_size)
        for estimator in ESTIMATORS:
            macs, size, operations = counted(preset, estimator)
            each = [seconds(macs, size, operations, device) for device in DEVICES.values()]
            times = [text for s in each for text in (f"{1e3 * s:.1f}", f"{s * steps / 3600:.2g}")]
            lines.append([name, f"`{estimator}`", f"{macs / 1e9:,.0f}", f"{size / 1e9:.1f}", f"{operations:,}", *times])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the projection. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m suites.scale", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "preset", nargs="*", default=["cpu", "paper"], metavar="PRESET", help="by default cpu and paper"
    )
    args = parser.parse_args(argv)
    for name in args.preset:
        if name not in PRESETS:
            print(f"error: no preset {name!r}; there are {', '.join(PRESETS)}", file=sys.stderr)
            return 2
    assumed = f"{COMPUTE:.0%} of peak, {MEMORY:.0%} of bandwidth and {1e6 * LAUNCH:g} µs per operation"
    print(f"Projected, not measured: {assumed} are assumed.\n")
    print(projection(args.preset))
    return 0


if __name__ == "__main__":
    sys.exit(main())
