"""Measures estimators on your own objective, and says which one to use.

from suites import compare
result = compare(objective, logits, seconds=120)
print(result)
"""

from __future__ import annotations

import copy
import math
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

    Nothing is trained. `.grad`, torch's global random state and the estimators that are passed stay as they are. A
    state of the objective itself, such as running statistics of batch normalisation, changes as in every call.

    Args:
        objective: f. It receives a tuple of one-hot samples, `(*lead, *rows, K_l)` per categorical, and returns one
            value per sample, `(*lead, *rows)`. With `fresh`: a function without arguments that returns the f of the
            next minibatch. If an encoder computes the logits from the minibatch, it returns a pair of f and logits.
            f is called several times, so it must compute inside itself all that depends on weights.
        logits: one tensor `(*rows, K_l)` per categorical. They need not be leaves. Rows are independent distributions,
            for example one for each image. None if `objective` returns pairs.
        estimators: "all" registered ones; or a sequence of labels, such as `"rloo[samples=4]"`, and of estimators of
            your own; or a mapping from names to these. A label makes a new estimator, which first adapts for at most
            200 steps. An estimator of your own is copied and measured as it is.
        seconds: approximate time to spend. It takes longer if f is slow, because every estimator makes at least six
            estimates. An estimator is left out if one estimate takes more than a twentieth of the time.
        weights: tensors whose gradient is measured too, such as `model.parameters()`. If the logits change with the
            minibatch, only this gradient can be measured.
        fresh: use a new minibatch for every estimate, so that its noise is part of the variance.
        seed: seed of all random numbers.
        quiet: show no progress.

    Raises:
        ValueError: the arguments do not fit together, f does not return one value per sample, or no estimator can be
            measured.
    """
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be a number greater than 0, got {seconds!r}")
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
        every: number of steps between two comparisons. The first is at step 0.
        **options: options of `compare`. `quiet` is true by default.

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
        """The comparison if one is due at this step, otherwise None. `options` override those of the constructor."""
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
    """For each label the estimator, or the reason why it cannot be measured; and the labels that came as estimators."""
    if wanted == "all":
        wanted = registry.available()
    if isinstance(wanted, str | Estimator) or not isinstance(wanted, Iterable):
        got = repr(wanted) if isinstance(wanted, str) else type(wanted).__name__
        raise ValueError(f"estimators must be 'all' or a sequence of labels and estimators, got {got} alone")
    pairs: list[tuple[str | None, str | Estimator]]
    pairs = list(wanted.items()) if isinstance(wanted, Mapping) else [(None, one) for one in wanted]
    found: dict[str, Estimator | str] = {}
    ready = []
    for name, one in pairs:
        if isinstance(one, Estimator):
            label = name or type(one).__name__
            if one.sizes != problem.sizes:
                raise ValueError(f"{label} is for categoricals of sizes {one.sizes}, the logits have {problem.sizes}")
            own = copy.deepcopy(one)
            for part in own.modules():
                if isinstance(part, Estimator):
                    part.blind.clear()  # what it knows of the slopes of other objectives
            made: Estimator | str = own
            ready.append(label)
        elif not isinstance(one, str):
            raise ValueError(f"an estimator is a label, such as 'rloo', or an object, got {one!r}")
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
        why = "; ".join(reasons) or "the time was too short"
        raise ValueError(f"no estimator could be measured: {why}") from next(
            (entrant.error for entrant in race.entrants if entrant.error is not None), None
        )
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
        notes=_notes(race),
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


def _notes(race: Race) -> list[str]:
    problem, found = race.problem, []
    if problem.random:
        found.append(
            "f is random: the same sample had another value at a second call (dropout?). This noise is part of every "
            "variance, also of that of exact."
        )
    if problem.mixes:
        found.append(
            "The value of a sample depends on the other samples of the call (batch norm in training mode?). No "
            "estimator is made for that: a claim of no bias does not hold. Use eval(), or other layers."
        )
    nothing = {"logits": "f is the same for every sample", "weights": "neither f nor the logits depend on them"}
    found += [
        f"The gradient of the {part} is 0: {nothing[part]}." for part in problem.parts if not race.truth[part].any()
    ]
    if not problem.has_slopes:
        found.append(
            "f has no slope ∂f/∂sample in some categorical: f does not use it, or an argmax or an index cuts the graph."
        )
    lengths = {"logits": sum(problem.sizes) * int(torch.Size(problem.rows).numel())}
    lengths["weights"] = sum(weight.numel() for weight in problem.weights)
    if any(lengths[part] > LONGEST for part in problem.parts):
        found.append(
            f"Gradients of more than {LONGEST:,} numbers were projected at random: squared norms have a relative "
            "standard error of up to 4 % from this, beside the intervals."
        )
    return found


class _progress:
    """A progress bar with the time left, on a terminal. Entering it gives a function that sets its text."""

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
