"""The interface between tasks and suites: roles, each with its own settings.

A *role* is something that a suite may ask of a task:

    points      points of a reference run at which estimators are measured
    truth       how the reference gradient is obtained at these points
    estimates   how many estimates to make at a point
    step        a training step at the size used for training
    timed       a training step at the size used for timing
    counted     a training step at the size used for counting memory
    scaled      a training step at any size
    run         a whole training run

A task declares the settings that each of its roles is handed. A suite declares the roles that it needs. The code of a
cell gets the task as a `suites.tasks.granted.Granted`, which only has these roles.
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
"""Makes an estimator for sites of the given sizes. Raises ValueError if it cannot work on them."""


@dataclass(frozen=True)
class Context:
    """The surroundings of a task. Its results depend on the data and the device only.

    Attributes:
        dataset: name of the data set; only used by tasks with data.
        data_root: the folder of the data sets; None: that of the environment, see `vmo.data`.
        device: the device of all tensors.
        cache: a folder for reference runs and gradients, which cells share; None: in memory only.
        progress: called with what is running, how much of it is done, and the total.
    """

    dataset: str = "digits"
    data_root: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: Path | None = None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass
class Point:
    """A point of a run at which estimators are measured. Everything except the noise is fixed.

    Args:
        name: "uniform", "mid" or "peaked".
        progress: progress of the run in [0, 1], for schedules.
        logits: φ, `(*rows, K_l)` per site, detached. Rows are for objectives with one q per image.
        weights: the weights of the objective; may be empty.
        objective: the objective on the i-th fresh minibatch of a named stream; deterministic in its arguments.
        ride: lets an adaptive estimator in training mode adapt on the last steps before this point.
        stochastic: whether the objective differs between minibatches.
        gradient: ∂E f/∂φ if it is known exactly.
        penalty: the exact term that is added to E f, at probabilities `(K_l,)` per site.
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
        """A hash of the bits of logits and weights."""
        state = hashlib.sha256()
        for tensor in (*self.logits, *self.weights):
            state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]


class Workload(Protocol):
    """A training step that can be repeated, and its tensors."""

    def step(self) -> None:
        """One whole training step: forward, backward, fits and optimizers."""

    def tensors(self) -> dict[str, list[Tensor]]:
        """The present tensors of "parameters" (with buffers) and of "optimizer" state."""


class Size(NamedTuple):
    """The size of a network's step: images, WRN-depth-widen, and channels per category of a width."""

    batch: int
    widen: int
    depth: int
    step: int


class Truth(Group, name="truth"):
    """The reference gradient that estimates are compared with, where it is not known in closed form."""

    minibatches: int = Field(60, ge=2)
    """Independent minibatches whose gradients are averaged."""
    enumerate: int = Field(64, ge=1)
    """Most configurations that are enumerated per minibatch; larger spaces are estimated by an unbiased estimator."""
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
    """Handed to roles that depend on no settings."""


class Task(ABC):
    """A task. It holds no settings: every method is handed those of its role.

    Attributes:
        name: part of a cell's identity.
        version: part of a cell's identity; raise it when the task changes.
        plain: whether plain training (without a distribution over architectures) exists for this task.
        slopes: whether its objective has a gradient ∂f/∂sample. Estimators that need it are infeasible without.
        narrows: whether the rivals of VMO (see `suites.rivals`) exist for this task.
        groups: the groups of settings that the task declares.
        roles: the type of the settings of each of its roles.
        plain_roles: the same for plain training, where it needs fewer.
        uses_data: the roles that depend on the data set.
    """

    name: str
    version = 1
    plain = True
    slopes = True
    narrows = False
    groups: ClassVar[tuple[type[Group], ...]] = ()
    roles: ClassVar[Mapping[str, type[Settings]]] = {}
    plain_roles: ClassVar[Mapping[str, type[Settings]]] = {}
    uses_data: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def data(self) -> Identity:
        """The identity of the data set, of the loaded one if it is loaded. Raises `vmo.data.DataError` if missing."""
        loaded = self.__dict__.get("dataset")
        if loaded is not None:
            return cast(Identity, loaded.identity)
        return identify(self.context.dataset, self.context.data_root)

    def prepare(self, role: str, settings: Any) -> None:  # noqa: B027  most tasks need no preparation
        """Load the data and check the settings against them, before anything runs.

        Raises:
            ValueError: the settings do not fit the data, or (`vmo.data.DataError`) the data are missing.
        """

    def uses(self, role: str, settings: Any) -> tuple[str, ...]:
        """Labels of estimators that a role uses besides the measured one. Their versions enter the hash."""
        return ()

    @abstractmethod
    def sizes(self, role: str, settings: Any) -> tuple[int, ...]:
        """K of each site, at the size of a role."""

    def unfit(self, name: str, settings: Any) -> str | None:
        """Why a rival of this name cannot run with these settings of "run", or None."""
        return None

    @abstractmethod
    def estimates(self, settings: Any, evaluations: int) -> int:
        """How many estimates to make at a point, if each needs this number of evaluations."""

    @abstractmethod
    def points(self, settings: Any, seed: int) -> Iterator[Point]:
        """The points of the reference run of a seed. A point is valid until the next is requested."""

    @abstractmethod
    def workload(self, role: str, settings: Any, make: Make | None, size: Size | None = None) -> Workload:
        """The training step for the role "step", "timed", "counted" or "scaled". `make` None: plain training."""

    def held(self, settings: Any, make: Make, part: float) -> Workload | None:
        """The step of "timed" with q held at a fraction of the width; None if the task has no widths."""
        return None

    def alone(self, settings: Any) -> tuple[Callable[[Sites], Tensor], Sites] | None:
        """Objective and logits of the step of "timed", if they are available without the rest of the step."""
        return None

    def at(self, settings: Any, make: Make | None, logits: Sites) -> Workload:
        """The step of "step" with q held at these logits."""
        raise NotImplementedError(f"{self.name} has no training step with q held")

    def base(self, settings: Any) -> Size:
        """The size around which "scaled" varies one number at a time. The suite sets its minibatch."""
        raise NotImplementedError(f"{self.name} has no size to vary")

    def sizes_at(self, size: Size) -> tuple[int, ...]:
        """K of each site for a network of this size."""
        raise NotImplementedError(f"{self.name} has no size to vary")

    @abstractmethod
    def run(self, settings: Any, make: Make | None, seed: int, keeper: Keeper) -> list[dict[str, Any]]:
        """A whole run, resumed from its checkpoint if there is one. Returns the rows of the accuracy suite.

        Args:
            settings: the settings of the role "run".
            make: makes the estimator; None for plain training, if the task has it.
            seed: the seed of everything.
            keeper: keeps the checkpoints.

        Raises:
            Diverged: see `vmo.learner`.
        """

    def networks(
        self, settings: Any, architecture: Architecture
    ) -> tuple[tuple[nn.Module, nn.Module], tuple[int, ...]]:
        """The full network and that of an architecture, with new weights, in eval mode; and the shape of an image."""
        raise NotImplementedError(f"{self.name} learns no architecture")

    def cut_alike(self, settings: Any, architecture: Architecture) -> Architecture:
        """The architecture of full depth and equal MACs whose blocks all keep the same fraction of their width."""
        raise NotImplementedError(f"{self.name} learns no architecture")

    def identity(self) -> tuple[str, int, str | None]:
        """Name, version and content of the data: what a cached result depends on besides settings."""
        return self.name, self.version, self.data.content if self.uses_data else None

    def kept(self, what: str, seed: int, settings: Settings, make: Callable[[], Any]) -> Any:
        """The result of `make`, cached on disk for all processes that share a cache.

        Args:
            what: the name of the result.
            seed: the seed that it depends on.
            settings: the settings that it depends on. It also depends on data, device and the task's version.
            make: computes the result: nested tensors and numbers.
        """
        if self.context.cache is None:
            return make()
        about: list[object] = [what, seed, self.identity(), settings.model_dump_json()]
        about += [str(self.context.device), torch.__version__]
        about.append([(label, parse(label).version) for label in self.uses("points", settings)])
        name = f"{self.name}-{what}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.safetensors"
        path = self.context.cache / name
        found = checkpoint.load(path, self.context.device)
        if found is None:
            found = make()
            checkpoint.save(path, found)
        return found


def dataset_of(context: Context) -> Dataset:
    """The data set of a context, on its device. All tasks share one copy as long as its content is the same."""
    content = identify(context.dataset, context.data_root).content
    return _loaded(context.dataset, context.data_root, context.device, content)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, root: Path | None, device: torch.device, content: str) -> Dataset:
    return load(name, root, device)


def seed_of(*parts: object) -> int:
    """A seed for a generator, from the `repr` of any objects."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7])
