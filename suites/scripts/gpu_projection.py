"""Projects the time of a training run on a GPU: vmo-bench gpu-projection.

    seconds of a step = max(2 · MACs / (COMPUTE · peak), bytes / (MEMORY · bandwidth), operations · LAUNCH)

One step of the trainer in bfloat16 is counted with fake tensors, on masks instead of slices; nothing is computed. MACs
are counted by torch's FlopCounterMode. Bytes are the inputs read and outputs written of each operation, as in eager
execution; a compiled step fuses operations and moves less. Peaks and bandwidths are the dense ones of NVIDIA's data
sheets (A100: nvidia-a100-datasheet; H100: h100-tensor-core-gpu-datasheet).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from estimators.options import nearest
from suites.commands import tables
from suites.labels import PLAIN, parse
from suites.presets import PRESETS, resolve
from suites.settings import Preset
from suites.tasks import factory
from suites.tasks.base import Context

COMPUTE, MEMORY = 0.3, 0.7
"""Assumed fractions of peak and bandwidth that are reached."""
LAUNCH = 5e-6
"""Assumed least time per operation, in seconds."""
IMAGES = 50_000
"""Training images of CIFAR."""
ESTIMATORS = (PLAIN, "rloo", "concrete", "rebar[coupled=true,tuning=regression]", "rebar")


class Device(NamedTuple):
    """A GPU, from its data sheet.

    Args:
        name: the beginning of its name in CUDA.
        peak: operations per second on dense tensors, by dtype. float32 means TF32, which cuDNN uses for convolutions.
        bandwidth: memory bandwidth, in bytes per second.
    """

    name: str
    peak: dict[str, float]
    bandwidth: float


DEVICES = {
    "A100": Device("NVIDIA A100", {"bfloat16": 312e12, "float32": 156e12}, 2.039e12),  # 80 GB, SXM
    "H100": Device("NVIDIA H100 80GB HBM3", {"bfloat16": 989e12, "float32": 494e12}, 3.35e12),  # SXM
}


class Moved(TorchDispatchMode):
    """Counts operations and the bytes that they read and write. Views are not counted."""

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
    """The fraction of a device's peak that a step reaches; None if the device is not in `DEVICES`."""
    found = next((device for device in DEVICES.values() if name.startswith(device.name)), None)
    return None if found is None else 2 * macs / seconds / found.peak[dtype]


def counted(preset: Preset, estimator: str, task: str = "width") -> tuple[float, float, int]:
    """Multiply-accumulates, bytes moved and operations of a training step at a preset's size, in bfloat16."""
    trained = {"depth": "network.depth", "widen": "network.widen", "batch": "train.batch_size"}
    given = {f"timed.{own}": _of(preset, name) for own, name in trained.items()}
    made, plain = factory(task)(Context()), estimator == PLAIN
    roles = {**made.roles, **(made.plain_roles if plain else {})}
    handed = preset.with_({**given, "train.bf16": True}).hand(roles["timed"])
    with FakeTensorMode():
        workload = made.workload("timed", handed, None if plain else parse(estimator).make)
        workload.step()  # creates the optimizers' state
        with Moved() as moved, FlopCounterMode(display=False) as flops:
            workload.step()
    return flops.get_total_flops() / 2, float(moved.bytes), moved.operations


def _of(preset: Preset, name: str) -> Any:
    group, _, field = name.partition(".")
    return getattr(preset.groups[group], field)


def seconds(macs: float, size: float, operations: int, device: Device) -> float:
    """The time of a step in seconds, by the formula above."""
    computing = 2 * macs / (COMPUTE * device.peak["bfloat16"])
    return max(computing, size / (MEMORY * device.bandwidth), operations * LAUNCH)


def projected(names: Sequence[str]) -> list[dict[str, Any]]:
    """For each preset and estimator: MACs, bytes and operations of a step; milliseconds and hours on each device."""
    found = []
    for name in names:
        preset = resolve(name)
        steps = _of(preset, "train.epochs") * (IMAGES // _of(preset, "train.batch_size"))
        for estimator in ESTIMATORS:
            macs, size, operations = counted(preset, estimator)
            line: dict[str, Any] = {
                "preset": name,
                "estimator": estimator,
                "macs": macs,
                "bytes": size,
                "operations": operations,
            }
            for gpu, device in DEVICES.items():
                each = seconds(macs, size, operations, device)
                line |= {f"ms per step, {gpu}": 1e3 * each, f"hours per run, {gpu}": each * steps / 3600}
            found.append(line)
    return found


def lines(names: Sequence[str]) -> list[list[str]]:
    """The table as text, header first."""
    heads = [f"{head} {name}" for name in DEVICES for head in ("ms per step,", "hours per run,")]
    found = [["preset", "estimator", "GMACs per step", "GB moved per step", "operations", *heads]]
    for one in projected(names):
        counts = [f"{one['macs'] / 1e9:,.0f}", f"{one['bytes'] / 1e9:.1f}", f"{one['operations']:,}"]
        times = [f"{one[head]:.1f}" if head.startswith("ms") else f"{one[head]:.2g}" for head in heads]
        found.append([one["preset"], one["estimator"], *counts, *times])
    return found


def run(names: Sequence[str], as_json: bool = False) -> int:
    """Print the projection. Returns the exit status. Raises ValueError for an unknown preset."""
    for name in names:
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}{nearest(name, PRESETS)}; there are {', '.join(PRESETS)}")
    if as_json:
        parts = {"of peak": COMPUTE, "of bandwidth": MEMORY, "seconds per operation": LAUNCH}
        tables.say_json({"assumed": parts, "projected": projected(names)})
        return 0
    assumed = f"{COMPUTE:.0%} of peak, {MEMORY:.0%} of bandwidth and {1e6 * LAUNCH:g} µs per operation"
    tables.say_folded(f"Projected, not measured. Assumed: {assumed}.")
    head, *rest = lines(names)
    tables.show("", head, rest, keys=2)
    return 0
