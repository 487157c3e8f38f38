"""What a task gives the suites, and how: roles, each with settings of its own.

A *role* is something that a suite may ask of a task:

    points      moments of a reference run at which estimators are measured
    truth       how the gradient that estimates should average to is obtained there
    estimates   how many estimates to make at a point
    step        a training step at the size that is trained
    timed       a training step at the size that is timed
    counted     a training step at the size whose storage is counted
    scaled      a training step at any size
    run         a whole training run

A task names the settings that each of its roles is handed, and a suite the roles that it needs. A cell's code gets the
task as a `suites.tasks.granted.Granted` one, which has these roles and no others.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from estimators import Estimator
from suites.labels import parse
from suites.settings import Group, Settings
from vmo import checkpoint
from vmo.checkpoint import Keeper
from vmo.data import Dataset, Identity, identify, load
from vmo.space import Architecture

Sites = Sequence[Tensor]
Make = Callable[[Sequence[int]], Estimator]
"""Sizes in, estimator out; raises ValueError where the estimator cannot work on these sizes."""


@dataclass(frozen=True)
class Context:
    """Where a task works and whom it tells, none of which its numbers depend on but the data and the device.

    Attributes:
        dataset: read only by tasks that have data.
        data_root: the folder of the data sets; None: that of the environment, see `vmo.data`.
        device: of all tensors.
        cache: a folder for what cells share, reference runs and gradients; None keeps them in memory alone.
        progress: told what is under way, how much of it is done and how much there is.
    """

    dataset: str = "digits"
    data_root: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: Path | None = None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


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


class Size(NamedTuple):
    """What the cost of a network's step is measured at: WRN-depth-widen, channels per category, images."""

    batch: int
    widen: int
    depth: int
    step: int


class Truth(Group, name="truth"):
    """The gradient that estimates are compared with, where it is not known in closed form."""

    minibatches: int = Field(60, ge=2)
    """Independent minibatches whose gradients are averaged."""
    enumerate: int = Field(64, ge=1)
    """Largest space that is enumerated on each minibatch; a larger one is estimated by an unbiased estimator."""
    presets: ClassVar = {
        "smoke": {"minibatches": 4},
        "cpu": {"minibatches": 400},
        "study": {"minibatches": 400},
        "paper": {"minibatches": 2000},
    }


class TruthSettings(Settings):
    """Handed for the role "truth"."""

    truth: Truth


class Nothing(Settings):
    """Handed where a role depends on no settings."""


class Task(ABC):
    """A task. It holds no settings: every method is handed those of its role.

    Attributes:
        name, version: part of a cell's identity; the version is raised when what is measured changes.
        plain: whether "plain", training without a distribution over architectures, is a run of its own here.
        groups: the groups of settings that the task declares.
        roles: the settings of each role that it has.
        plain_roles: those of plain training, where it depends on fewer.
        uses_data: the roles that depend on the data set.
    """

    name: str
    version = 1
    plain = True
    groups: ClassVar[tuple[type[Group], ...]] = ()
    roles: ClassVar[Mapping[str, type[Settings]]] = {}
    plain_roles: ClassVar[Mapping[str, type[Settings]]] = {}
    uses_data: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def data(self) -> Identity:
        """What data set it is, by content: of what was loaded, once it is. Raises `vmo.data.DataError` without any."""
        loaded = self.__dict__.get("dataset")
        if loaded is not None:
            return cast(Identity, loaded.identity)
        return identify(self.context.dataset, self.context.data_root)

    def prepare(self, role: str, settings: Any) -> None:  # noqa: B027  most tasks have nothing to get
        """Get the data and check what only they decide, before anything runs.

        Raises:
            ValueError: the settings cannot work on these data, or (`vmo.data.DataError`) there are none.
        """

    def uses(self, role: str, settings: Any) -> tuple[str, ...]:
        """Labels of the estimators that a role uses beside the one that is measured: their versions count too."""
        return ()

    @abstractmethod
    def sizes(self, role: str, settings: Any) -> tuple[int, ...]:
        """K of each site, at the size at which a role works."""

    @abstractmethod
    def estimates(self, settings: Any, evaluations: int) -> int:
        """How many estimates of so many evaluations each to make at a point."""

    @abstractmethod
    def points(self, settings: Any, seed: int) -> Iterator[Point]:
        """The points of the reference run of a seed. A point is valid until the next is asked for."""

    @abstractmethod
    def workload(self, role: str, settings: Any, make: Make | None, size: Size | None = None) -> Workload:
        """The training step of an estimator, or of plain training, for "step", "timed", "counted" or "scaled"."""

    def held(self, settings: Any, make: Make, part: float) -> Workload | None:
        """The step of "timed" with q held at networks of a part of their width, where there are widths."""
        return None

    def alone(self, settings: Any) -> tuple[Callable[[Sites], Tensor], Sites] | None:
        """The objective of the step of "timed" and its logits, where they can be had without the rest of the step."""
        return None

    def at(self, settings: Any, make: Make | None, logits: Sites) -> Workload:
        """The step of "step" with q held at these logits."""
        raise NotImplementedError(f"{self.name} has no training step with q held")

    def base(self, settings: Any) -> Size:
        """The size around which "scaled" varies one number at a time; its minibatch is the suite's to choose."""
        raise NotImplementedError(f"{self.name} has no size to vary")

    def sizes_at(self, size: Size) -> tuple[int, ...]:
        """K of each site of a network of this size."""
        raise NotImplementedError(f"{self.name} has no size to vary")

    @abstractmethod
    def run(self, settings: Any, make: Make | None, seed: int, keeper: Keeper) -> list[dict[str, Any]]:
        """A whole run, or the rest of one that `keeper` knows: the rows of the accuracy suite.

        Args:
            settings: of the role "run".
            make: the estimator, or None for plain training, where `plain` says that there is one.
            seed: of everything.
            keeper: of its checkpoints.

        Raises:
            Diverged: see `vmo.learner`.
        """

    def cut_alike(self, settings: Any, architecture: Architecture) -> Architecture:
        """One of full depth and equal MACs, whose blocks all keep the same part of their width."""
        raise NotImplementedError(f"{self.name} learns no architecture")

    def kept(self, what: str, seed: int, settings: Settings, make: Callable[[], Any]) -> Any:
        """What `make` gives, nested tensors and numbers, made once for all processes that share a cache.

        Args:
            what: it is.
            seed: it depends on.
            settings: it depends on, beside the data, the device and the task's version.
            make: it.
        """
        if self.context.cache is None:
            return make()
        data = self.data.content if self.uses_data else None
        about = [
            what,
            seed,
            self.version,
            settings.model_dump_json(),
            data,
            str(self.context.device),
            torch.__version__,
        ]
        about.append([(label, parse(label).version) for label in self.uses("points", settings)])
        name = f"{self.name}-{what}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.safetensors"
        path = self.context.cache / name
        found = checkpoint.load(path, self.context.device)
        if found is None:
            found = make()
            checkpoint.save(path, found)
        return found


def dataset_of(context: Context) -> Dataset:
    """The data set of a context, on its device; one copy for all tasks, for as long as its content is the same."""
    content = identify(context.dataset, context.data_root).content
    return _loaded(context.dataset, context.data_root, context.device, content)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, root: Path | None, device: torch.device, content: str) -> Dataset:
    return load(name, root, device)


def seed_of(*parts: object) -> int:
    """A generator's seed from anything that can be printed."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7])
