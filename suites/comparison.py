"""Estimators on your own objective: which one to use.

from suites import compare
result = compare(objective, logits, seconds=120)
print(result)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from torch import Tensor

import estimators as registry
from estimators import Estimator
from estimators.objective import Sites
from results.comparison import Comparison, Measured
from suites.labels import parse
from suites.problem import LONGEST, Problem
from suites.race import Entrant, Race

Wanted = Literal["all"] | Sequence[str | Estimator] | Mapping[str, str | Estimator]


def compare(
    objective: Callable[..., Any],
    logits: Sites | None = None,
    *,
    estimators: Wanted = "all",
    seconds: float = 120.0,
    weights: Iterable[Tensor] = (),
    fresh: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> Comparison:
    """Measure estimators of ∂E f/∂logits on your objective, at the logits and weights as they are now.

    Nothing is trained. `.grad`, torch's global random state and the estimators that are passed stay as they are; what
    the objective itself keeps, such as running statistics of batch norm, moves as at every call.

    Args:
        objective: f. It is given a tuple of one-hot samples, `(*lead, *rows, K_l)` per categorical, and gives one value
            per sample, `(*lead, *rows)`. With `fresh`, a function without arguments that gives the f of the next
            minibatch, or a pair of f and logits where an encoder computes the logits from the minibatch.
        logits: one tensor `(*rows, K_l)` per categorical, leaf or not. Rows are independent: one distribution for each
            image, say. Left out where `objective` gives pairs.
        estimators: "all" that are registered; or labels such as `"rloo[samples=4]"` and estimators of your own; or
            either by a name. A label is made anew and adapts first, for at most 200 steps; an estimator is copied and
            measured as it is.
        seconds: to spend, about. It takes longer where f is slow, for every estimator makes at least six estimates. One
            is left out if one of its estimates takes more than a twentieth of the time.
        weights: measure the gradient of these tensors too, such as `model.parameters()`. Where the logits change with
            the minibatch it is all that can be measured.
        fresh: take a new minibatch for every estimate, so that its noise counts as well.
        seed: of all random numbers.
        quiet: show no progress.

    Raises:
        ValueError: the arguments do not fit together, f gives no value per sample, or no estimator can be measured.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be greater than 0, got {seconds}")
    with torch.enable_grad(), _progress(seconds, quiet) as tell:
        problem = Problem(objective, logits, weights=weights, fresh=fresh, seed=seed)
        made, ready = _made(estimators, problem)
        race = Race(problem, made, seconds, tell, ready)
        race.run()
    return _result(race)


class Monitor:
    """`compare` from inside a training loop, every so many steps.

        monitor = Monitor(every=500, seconds=10, estimators=["rloo", "reinmax"])
        for step in range(steps):
            ...
            monitor(step, objective, logits)
        monitor.frame

    Args:
        every: steps between two comparisons; the first is at step 0.
        **options: of `compare`; `quiet` is on unless it is given.

    Attributes:
        history: the steps and their comparisons, in order.
    """

    def __init__(self, every: int, **options: Any) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every, self.options = every, {"quiet": True, **options}
        self.history: list[tuple[int, Comparison]] = []

    def __call__(
        self, step: int, objective: Callable[..., Any], logits: Sites | None = None, **options: Any
    ) -> Comparison | None:
        """The comparison if this step is one of those, otherwise None. `options` go before those of the constructor."""
        if step % self.every:
            return None
        result = compare(objective, logits, **{**self.options, **options})
        self.history.append((step, result))
        return result

    @property
    def frame(self) -> pd.DataFrame:
        """The frames of all comparisons, with a column `step` in front."""
        frames = [result.frame.assign(step=step) for step, result in self.history]
        if not frames:
            return pd.DataFrame()
        whole = pd.concat(frames, ignore_index=True)
        return whole[["step", *whole.columns.drop("step")]]


def _made(wanted: Wanted, problem: Problem) -> tuple[dict[str, Estimator | str], list[str]]:
    """The estimators by label, each ready to be measured or the reason why it cannot be; and which of them came as
    estimators."""
    if isinstance(wanted, str):
        if wanted != "all":
            raise ValueError(f"estimators must be 'all' or a sequence of labels and estimators, got {wanted!r}")
        wanted = registry.available()
    pairs: list[tuple[str | None, str | Estimator]]
    pairs = list(wanted.items()) if isinstance(wanted, Mapping) else [(None, one) for one in wanted]
    found: dict[str, Estimator | str] = {}
    ready = []
    for name, one in pairs:
        if isinstance(one, Estimator):
            label = name or type(one).__name__
            if one.sizes != problem.sizes:
                raise ValueError(f"{label} is for categoricals of sizes {one.sizes}, the logits have {problem.sizes}")
            made: Estimator | str = copy.deepcopy(one)
            for part in made.modules():
                if isinstance(part, Estimator):
                    part.blind.clear()  # what it knows of the slopes of other objectives
            ready.append(label)
        else:
            typed = parse(one)
            label = name or str(typed)
            try:
                made = typed.make(problem.sizes).to(problem.device)
            except ValueError as reason:  # it does not work on these sizes
                made = f"not applicable: {reason}"
        if label in found:
            raise ValueError(f"estimator {label!r} is named twice")
        found[label] = made
    if not found:
        raise ValueError("no estimator is named")
    return found, ready


def _result(race: Race) -> Comparison:
    problem = race.problem
    if not any(entrant.ratios for entrant in race.running):
        reasons = dict.fromkeys(entrant.status for entrant in race.entrants if entrant.status != "ok")
        raise ValueError(f"no estimator could be measured: {'; '.join(reasons) or 'the time was too short'}")
    parts = {}
    for part in problem.parts:
        norm = race.size(part)
        parts[part] = {e.label: c for e in race.running if (c := race.contestant(e, part, norm)) is not None}
    return Comparison(
        problem=_described(problem),
        truth=race.by,
        unit=race.unit,
        seconds=race.spent,
        measured={entrant.label: _measured(entrant) for entrant in race.entrants},
        parts=parts,
        norms={part: (race.size(part), race.norm(part)) for part in problem.parts},
        notes=_notes(problem),
    )


def _measured(entrant: Entrant) -> Measured:
    seconds = min(entrant.seconds, default=float("nan"))
    return Measured(
        status=entrant.status if entrant.status != "ok" or entrant.ratios else "not measured: the time was too short",
        unbiased=entrant.unbiased,
        slopes=entrant.slopes,
        evaluations=entrant.evaluations,
        seconds=seconds,
        bytes=entrant.bytes,
        adapted=entrant.adapted,
    )


def _described(problem: Problem) -> str:
    sizes = problem.sizes
    alike = len(set(sizes)) == 1 and len(sizes) > 1
    what = (
        f"{len(sizes)} categoricals of K = {sizes[0]}" if alike else f"categoricals of K = {', '.join(map(str, sizes))}"
    )
    if len(sizes) > 12 and not alike:
        what = f"{len(sizes)} categoricals of K = {min(sizes)} to {max(sizes)}"
    rows = f", {' × '.join(map(str, problem.rows))} rows" if problem.rows else ""
    return f"{what}{rows}; {'a new minibatch for every estimate' if problem.fresh else 'one fixed objective'}"


def _notes(problem: Problem) -> list[str]:
    found = []
    if not problem.has_slopes:
        found.append("f has no slope ∂f/∂sample in some categorical: an argmax or an index cuts the graph there.")
    lengths = {"logits": sum(problem.sizes) * int(torch.Size(problem.rows).numel())}
    lengths["weights"] = sum(weight.numel() for weight in problem.weights)
    if any(lengths[part] > LONGEST for part in problem.parts):
        found.append(
            f"Gradients of more than {LONGEST:,} numbers were projected at random: squared norms have a relative "
            "standard error of up to 4 % from this, beside the intervals."
        )
    return found


class _progress:
    """A bar with the time left, on a terminal; a function that takes a line for it."""

    def __init__(self, seconds: float, quiet: bool) -> None:
        console = Console(stderr=True)
        self._seconds = seconds
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Callable[[str], None]:
        self._bars.start()
        self._begun = time.perf_counter()
        self._task = self._bars.add_task("", total=self._seconds)
        return self._tell

    def _tell(self, line: str) -> None:
        self._bars.update(self._task, description=line, completed=time.perf_counter() - self._begun)

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
