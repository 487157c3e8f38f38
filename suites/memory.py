"""Memory of a training step, counted with fake tensors: nothing is computed, but every allocation is seen.

The second step is counted, because optimizer state exists only then. The memory at the peak is split into parameters
(with buffers), gradients, optimizer state, and the rest: activations and temporary tensors. On a GPU the allocator's
peak in a real step is measured too.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from results.table import row
from suites.labels import PLAIN, Label
from suites.suite import Job, OfSteps, Rows
from suites.tasks.base import Make, Size, Workload
from suites.tasks.granted import Granted

PARTS = ("parameters", "activations", "gradients", "optimizer")
COUNTED = 512
"""Memory is not counted for steps with more evaluations than this."""


class StorageCounter(TorchDispatchMode):
    """Counts the bytes of live storages and their peak by category. A storage without a category is an activation."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[Any, int]] = {}
        self._category: dict[int, str] = {}
        self.total = 0
        self.peak: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        if self.total > sum(self.peak.values()):
            self.peak = self.split()
        return out

    def claim(self, tensors: list[Tensor], category: str) -> None:
        """Put the storages of these tensors into a category."""
        for tensor in tensors:
            self._see(tensor)
            self._category[tensor.untyped_storage()._cdata] = category

    def split(self) -> dict[str, int]:
        """The bytes that are live now, by category."""
        sums = dict.fromkeys(PARTS, 0)
        for key, (_, size) in self._live.items():
            sums[self._category.get(key, "activations")] += size
        return sums

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            size = storage.nbytes()
            self.total += size
            self._live[key] = (weakref.ref(storage, lambda _: self._free(key)), size)

    def _free(self, key: int) -> None:
        self.total -= self._live.pop(key)[1]
        self._category.pop(key, None)


def count(task: Granted, role: str, make: Make | None, size: Size | None = None) -> dict[str, int]:
    """Bytes at the peak of a training step, by category, counted with fake tensors."""
    with FakeTensorMode(), StorageCounter() as counter:
        workload = task.workload(role, make, size)
        _claim_gradients(workload, counter)
        for _ in range(2):
            kept = workload.tensors()
            for category, tensors in kept.items():
                counter.claim(tensors, category)
            counter.peak = {}
            workload.step()
    return counter.peak


def _claim_gradients(workload: Workload, counter: StorageCounter) -> None:
    def claim(parameter: Tensor) -> None:
        if parameter.grad is not None:
            counter.claim([parameter.grad], "gradients")

    for tensor in workload.tensors()["parameters"]:
        if tensor.requires_grad:
            tensor.register_post_accumulate_grad_hook(claim)


class Memory(OfSteps):
    """Memory of a training step."""

    name = "memory"
    title = "memory of a training step"
    roles = ("counted",)
    baseline = True
    measures: ClassVar = {"bytes": "bytes", "peak_ratio": "plain peaks"}

    def impossible(self, label: Label, sizes: Sequence[int]) -> str | None:
        reason = super().impossible(label, sizes)
        if reason is not None or not label.is_estimator:
            return reason
        evaluations = label.make(sizes).evaluations
        if evaluations > COUNTED:  # counting goes through every single evaluation
            return f"memory is counted up to {COUNTED} evaluations per step, but this step needs {evaluations:,}"
        return None

    def run(self, job: Job) -> Rows:
        make = None if job.label.name == PLAIN else job.label.make
        parts = count(job.on_cpu, "counted", make)
        peak, plain = sum(parts.values()), sum(count(job.on_cpu, "counted", None).values())
        rows = [row("bytes", size, part=part, unit="bytes") for part, size in parts.items()]
        rows += [row("bytes", peak, part="peak", unit="bytes"), row("peak_ratio", peak / plain, unit="plain peaks")]
        if job.task.context.device.type == "cuda":
            torch.cuda.empty_cache()
            workload = job.task.workload("counted", make)
            workload.step()
            torch.cuda.reset_peak_memory_stats()
            workload.step()
            rows.append(row("bytes", torch.cuda.max_memory_allocated(), part="cuda_peak", unit="bytes"))
        return rows
