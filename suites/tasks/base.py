"""What a task gives the suites: points of a run, a training step to weigh and to time, and a whole run."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from estimators import Estimator
from suites.presets import Preset, select
from vmo import checkpoint
from vmo.checkpoint import Keeper
from vmo.data import identity
from vmo.space import Architecture

Sites = Sequence[Tensor]
Make = Callable[[Sequence[int]], Estimator]
"""Sizes in, estimator out; raises ValueError where the estimator cannot work on these sizes."""


@dataclass(frozen=True)
class Context:
    """What a task is resolved with. `dataset` is read only by tasks that have data, and only when they need it.

    `cache` is a folder for what cells share, reference runs and gradients; None keeps them in memory alone.
    """

    preset: Preset
    dataset: str = "digits"
    data_root: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: Path | None = None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    """Told what is under way, and how far it is."""


@dataclass
class Point:
    """A moment of a run at which estimators are measured, with everything but the noise held fixed.

    Args:
        name: "uniform", "mid" or "peaked".
        progress: of the run, in [0, 1], which schedules follow.
        logits: φ, `(*rows, K_l)` per site, detached; rows where the objective has several q, one per image.
        weights: what the objective trains, maybe nothing.
        objective: the objective on the i-th fresh minibatch of a named stream; the same arguments give the same.
        ride: let a stateful estimator in training mode take the last steps up to here.
        stochastic: whether the objective differs between minibatches.
        gradient: ∂E f/∂φ, where it is known exactly.
        penalty: what is added to E f and known exactly, at probabilities `(K_l,)` per site.
    """

    name: str
    progress: float
    logits: Sites
    weights: list[nn.Parameter]
    objective: Callable[[str, int], Callable[[Sites], Tensor]]
    ride: Callable[[Estimator], None]
    stochastic: bool
    gradient: Sites | None = None
    penalty: Callable[[Sites], Tensor] = lambda p: p[0].new_zeros(())

    def digest(self) -> str:
        """Identifies the logits and weights, to the bit."""
        state = hashlib.sha256()
        for tensor in (*self.logits, *self.weights):
            state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]


class Workload(Protocol):
    """A training step that can be repeated, and what it keeps."""

    def step(self) -> None:
        """One whole training step: forward, backward, fits and optimizers."""

    def tensors(self) -> dict[str, list[Tensor]]:
        """ "parameters" (with buffers) and "optimizer" state, as they are now."""


class Task(ABC):
    """A task, resolved with its context.

    `settings` names the fields of the preset that each suite's cells depend on here.
    """

    name: str
    version = 1
    plain = True
    """Whether "plain", training without a distribution over architectures, is a run of its own here."""
    uses_data: frozenset[str] = frozenset()
    """The suites whose cells depend on the data set."""
    settings: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.preset = context.preset

    def prepare(self) -> None:  # noqa: B027  most tasks have nothing to get
        """Get the data, before anything runs. Raises `vmo.data.DataError` where they cannot be had."""

    @abstractmethod
    def sizes(self, suite: str) -> tuple[int, ...]:
        """K of each site, at the size at which a suite works."""

    @abstractmethod
    def estimates(self, evaluations: int) -> int:
        """How many estimates of so many evaluations each to make at a point."""

    def alone(self, suite: str) -> tuple[Callable[[Sites], Tensor], Sites] | None:
        """The objective of a training step and its logits, where they can be had without the rest of the step."""
        return None

    def held(self, make: Make, part: float) -> Workload | None:
        """The training step of "overhead" with q held at networks of a part of their width, where there are widths."""
        return None

    def at(self, make: Make | None, logits: Sites) -> Workload:
        """The training step of "contest" with q held at these logits."""
        raise NotImplementedError(f"{self.name} has no contest")

    @abstractmethod
    def points(self, seed: int) -> Iterator[Point]:
        """The points of the reference run of a seed. A point is valid until the next is asked for."""

    @abstractmethod
    def workload(self, make: Make | None, suite: str) -> Workload:
        """The training step of an estimator, or of plain training, for "memory", "overhead" or (one estimate's cost at
        the measured size) "variance"."""

    @abstractmethod
    def train(
        self,
        make: Make | None,
        seed: int,
        keeper: Keeper,
    ) -> list[dict[str, Any]]:
        """A whole run, or the rest of one that `keeper` knows: the rows of the accuracy suite.

        Args:
            make: the estimator, or None for plain training, where `plain` says that there is one.
            seed: of everything.
            keeper: of its checkpoints.

        Raises:
            Diverged: see `vmo.learner`.
        """

    def kept(self, what: str, seed: int, names: Sequence[str], make: Callable[[], Any]) -> Any:
        """What `make` gives, nested tensors and numbers, made once for all processes that share a cache.

        Args:
            what: it is.
            seed: it depends on.
            names: of the fields of the preset that it depends on, beside the data, the device and the task's version.
            make: it.
        """
        if self.context.cache is None:
            return make()
        about = [what, seed, self.version, select(self.preset, names), str(self.context.device), torch.__version__]
        if self.uses_data:
            about.append(identity(self.context.dataset, self.context.data_root))
        name = f"{self.name}-{what}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.safetensors"
        path = self.context.cache / name
        found = checkpoint.load(path, self.context.device)
        if found is None:
            found = make()
            checkpoint.save(path, found)
        return found

    def cut_alike(self, architecture: Architecture) -> Architecture:
        """One of full depth and equal MACs, whose blocks all keep the same part of their width."""
        raise NotImplementedError(f"{self.name} learns no architecture")


def seed_of(*parts: object) -> int:
    """A generator's seed from anything that can be printed."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7])
