"""Our estimators beside those of other libraries, where these are installed: python -m suites.peers.

The objective of the VAE task: 64 rows, 16 sites of 10 categories, and an MLP decoder of 784 pixels. Each library is
used as its documentation has it, on logits in one tensor, and alternates in one process with the objective by hand,
forward and backward once at a hard sample. Rows go into the table as those of the overhead suite do, named by library
and version. torch is always there; `pip install reinmax pyro-ppl storchastic` adds the others.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from results import table
from suites.engine.execute import provenance
from suites.labels import parse
from suites.overhead import Alone, interleaved, ratio
from suites.presets import PRESETS
from suites.tasks.base import Context, Sites
from suites.tasks.vae import VaeTask

Objective = Callable[[Sites], Tensor]
CPU = torch.device("cpu")


class Peer(NamedTuple):
    """Another library's estimator.

    Args:
        package: its distribution, whose version goes into the row.
        name: what it is called there.
        ours: the label of the same estimator here.
        make: given logits `(rows, sites, K)` that require a gradient and the objective, one backward pass.
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
            return f(z.movedim(0, 1).unbind(-2)).movedim(0, 1)  # some methods put their samples behind the rows

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
    """A peer's backward pass as something to be timed."""

    def __init__(self, peer: Peer, logits: Sites, f: Objective) -> None:
        self.logits = torch.stack(tuple(logits), -2).requires_grad_()
        self.once = peer.make(self.logits, f)

    def step(self) -> None:
        self.logits.grad = None
        self.once()

    def tensors(self) -> dict[str, list[Tensor]]:
        return {"parameters": [], "optimizer": []}


def measured(pairs: int) -> Iterator[tuple[Peer, str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Every peer that is installed, its version, and the rows of it and of ours."""
    task = VaeTask(Context(PRESETS["quick"]))
    f, logits = task.alone("overhead")
    for peer in PEERS:
        try:
            found = version(peer.package)
        except PackageNotFoundError:
            continue
        hand = Alone(f, logits, None)
        ours = Alone(f, logits, parse(peer.ours).make([site.shape[-1] for site in logits]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other libraries, about versions
            rows = []
            for own in (_Theirs(peer, logits, f), ours):
                base, spent = interleaved(hand, own, CPU, pairs)
                value, se = ratio(spent, base)
                rows.append([table.row("backward_ratio", value, se=se, n=pairs, unit="evaluations by hand")])
        yield peer, found, rows[0], rows[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and, with --out, write rows. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m suites.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=30, metavar="N", help="interleaved pairs of each; by default 30")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write rows to DIR/rows")
    args = parser.parse_args(argv)
    if args.pairs < 2:
        print(f"error: --pairs must be at least 2, got {args.pairs}", file=sys.stderr)
        return 2
    shown = Table("library", "estimator there", "ratio there", "estimator here", "ratio here")
    for peer, found, theirs, ours in measured(args.pairs):
        texts = [f"{rows[0]['value']:.2f} ± {1.96 * rows[0]['se']:.2f}" for rows in (theirs, ours)]
        shown.add_row(f"{peer.package} {found}", peer.name, texts[0], peer.ours.replace("[", r"\["), texts[1])
        if args.out is not None:
            _write(args.out / "rows", f"{peer.name} of {peer.package} {found}", theirs)
    Console(width=130).print(shown)
    print("time of a backward pass, in evaluations of the objective by hand, forward and backward")
    return 0


def _write(rows: Path, name: str, found: list[dict[str, Any]]) -> None:
    cell = {"suite": "overhead", "task": "vae", "task_version": VaeTask.version, "estimator": name}
    cell |= {"estimator_version": 1, "preset": "quick", "dataset": "none", "seed": 0, "settings": {}}
    shared = {"cell": cell, "provenance": {**provenance(), "device": f"cpu × {torch.get_num_threads()}"}}
    shared["provenance"] |= {"dtype": "float32", "wall_s": None}
    table.write(rows, hashlib.sha256(repr(cell).encode()).hexdigest()[:16], [{**one, **shared} for one in found])


if __name__ == "__main__":
    sys.exit(main())
