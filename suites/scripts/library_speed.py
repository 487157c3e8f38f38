"""Compares the speed of our estimators with other installed libraries: vmo-bench library-speed.

The objective is that of the VAE task: 64 rows, 16 sites of 10 categories, and an MLP decoder of 784 pixels. Each
library is used as in its documentation, with logits in one tensor. It alternates in one process with the objective by
hand, forward and backward once at a hard sample. Rows are written like those of the overhead suite, with library and
version as the name. torch is always installed; `pip install reinmax pyro-ppl storchastic` adds the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from results import table
from suites.commands import tables
from suites.labels import parse
from suites.overhead import Alone, interleaved, ratio
from suites.presets import resolve
from suites.scripts import rows
from suites.tasks.base import Context, Sites
from suites.tasks.vae import StepSettings, VaeTask

Objective = Callable[[Sites], Tensor]
CPU = torch.device("cpu")


class Peer(NamedTuple):
    """Another library's estimator.

    Args:
        package: the library's distribution; its version goes into the row.
        name: the estimator's name there.
        ours: the label of the same estimator here.
        make: from logits `(rows, sites, K)` that require grad and the objective, makes a function that runs one
            backward pass.
    """

    package: str
    name: str
    ours: str
    make: Callable[[Tensor, Objective], Callable[[], None]]


def _gumbel_softmax(hard: bool) -> Callable[[Tensor, Objective], Callable[[], None]]:
    def make(logits: Tensor, f: Objective) -> Callable[[], None]:
        def step() -> None:
            sample = torch.nn.functional.gumbel_softmax(logits, tau=1.0, hard=hard)
            f(sample.unbind(-2)).sum().backward()

        return step

    return make


def _pyro(name: str) -> Callable[[Tensor, Objective], Callable[[], None]]:
    def make(logits: Tensor, f: Objective) -> Callable[[], None]:
        relaxed = getattr(import_module("pyro.distributions"), name)
        temperature = torch.tensor(1.0)

        def step() -> None:
            f(relaxed(temperature, logits=logits).rsample().unbind(-2)).sum().backward()

        return step

    return make


def _reinmax(logits: Tensor, f: Objective) -> Callable[[], None]:
    reinmax = import_module("reinmax").reinmax

    def step() -> None:
        sample, _ = reinmax(logits, 1.0)
        f(sample.unbind(-2)).sum().backward()

    return step


def _storch(name: str, **options: Any) -> Callable[[Tensor, Objective], Callable[[], None]]:
    def make(logits: Tensor, f: Objective) -> Callable[[], None]:
        storch = import_module("storch")

        def value(z: Tensor) -> Tensor:
            if len(z) != len(logits):
                return f(z.unbind(-2))
            return f(z.movedim(0, 1).unbind(-2)).movedim(0, 1)  # some methods put the sample dimension after the rows

        cost = storch.deterministic(value)

        def step() -> None:
            method = getattr(storch.method, name)("z", **options)
            rows = storch.denote_independent(logits, 0, "rows")
            z = method(torch.distributions.OneHotCategorical(logits=rows))
            storch.add_cost(cost(z), "cost")
            storch.backward()

        return step

    return make


PEERS = (
    Peer("torch", "gumbel_softmax(hard=True)", "gumbel_straight_through", _gumbel_softmax(True)),
    Peer("torch", "gumbel_softmax", "concrete[temperature=1.0]", _gumbel_softmax(False)),
    Peer("pyro-ppl", "RelaxedOneHotCategoricalStraightThrough", "gumbel_straight_through",
         _pyro("RelaxedOneHotCategoricalStraightThrough")),
    Peer("pyro-ppl", "RelaxedOneHotCategorical", "concrete[temperature=1.0]", _pyro("RelaxedOneHotCategorical")),
    Peer("reinmax", "reinmax", "reinmax", _reinmax),
    Peer("storchastic", "ScoreFunction, batch average", "rloo",
         _storch("ScoreFunction", n_samples=2, baseline_factory="batch_average")),
    Peer("storchastic", "UnorderedSetEstimator", "unordered", _storch("UnorderedSetEstimator", k=2)),
)  # fmt: skip


class _Theirs:
    """A peer's backward pass as a workload."""

    def __init__(self, peer: Peer, logits: Sites, f: Objective) -> None:
        self.logits = torch.stack(tuple(logits), -2).requires_grad_()
        self.once = peer.make(self.logits, f)

    def step(self) -> None:
        self.logits.grad = None
        self.once()

    def tensors(self) -> dict[str, list[Tensor]]:
        return {"parameters": [], "optimizer": []}


def measured(pairs: int) -> Iterator[tuple[Peer, str, dict[str, Any], dict[str, Any]]]:
    """Every installed peer, its version, its row and ours."""
    f, logits = VaeTask(Context()).alone(resolve("quick").hand(StepSettings))
    for peer in PEERS:
        try:
            there = version(peer.package)
        except PackageNotFoundError:
            continue
        hand = Alone(f, logits, None)
        ours = Alone(f, logits, parse(peer.ours).make([site.shape[-1] for site in logits]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries warn about versions
            found = []
            for own in (_Theirs(peer, logits, f), ours):
                base, spent = interleaved(hand, own, CPU, pairs)
                value, se = ratio(spent, base)
                found.append(table.row("backward_ratio", value, se=se, n=pairs, unit="evaluations by hand"))
        yield peer, there, found[0], found[1]


def run(pairs: int, out: Path | None, as_json: bool = False) -> int:
    """Measure and print; write rows if a folder is given. Returns the exit status."""
    lines, found = [], []
    for peer, there, theirs, ours in measured(pairs):
        texts = [f"{row['value']:.2f} ± {1.96 * row['se']:.2f}" for row in (theirs, ours)]
        lines.append([f"{peer.package} {there}", peer.name, texts[0], peer.ours, texts[1]])
        found.append({"library": peer.package, "version": there, "name": peer.name, "theirs": theirs})
        found[-1] |= {"estimator": peer.ours, "ours": ours}
        if out is not None:
            _write(out / "rows", f"{peer.name} of {peer.package} {there}", theirs, pairs)
    if as_json:
        tables.say_json(found)
        return 0
    header = ["library", "estimator there", "ratio there", "estimator here", "ratio here"]
    tables.show("", header, lines, keys=2)
    tables.say("ratio: time of a backward pass, divided by that of the objective by hand, forward and backward")
    return 0


def _write(folder: Path, name: str, row: dict[str, Any], pairs: int) -> None:
    settings = {"vae": resolve("quick").hand(StepSettings).vae.model_dump(), "overhead": {"pairs": pairs}}
    about: dict[str, Any] = {
        "suite": "overhead",
        "task": "vae",
        "task_version": VaeTask.version,
        "name": name,
        "preset": "quick",
    }
    rows.write(folder, [row], settings=settings, **about)
