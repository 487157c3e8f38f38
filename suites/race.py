"""A race between estimators: time goes to those whose place is still open.

Every estimator adapts, if it learns, and makes a few estimates. Then come rounds. In each, every estimator that is
still in makes single estimates, which are timed beside one evaluation of f, and as many further ones as fit into its
part of the round. One drops out when another has the smaller error, bias² + variance · cost / C, at every compute C at
which it can make an estimate at all (both ends of 95 % intervals), or when its own numbers are exact enough. The best
unbiased and the best biased estimator never drop out by another's error.

The true gradient is enumerated where the space is small, and otherwise the mean of separate estimates by the unbiased
estimator that had the least variance × cost after the first round.
"""

from __future__ import annotations

import copy
import functools
import math
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
import torch

from estimators import Estimator
from results.contest import GRID, Contestant
from results.stats import SquaredNorm, squared_norm, t_interval, variance_trace
from suites.problem import AGAIN, SHARED, Problem
from suites.tasks.base import seed_of

ROUNDS, LEAST = 8, 3
FIRST = 8
"""Estimates before the first round."""
ADAPT, CONTROL_LR = 200, 0.01
"""Most steps for which an estimator that learns adapts, and the learning rate of its Adam."""
ADAPTING, REFERENCE = 0.2, 0.2
"""Parts of the time that adapting and the reference may take at most."""
MEASURING = 0.9
"""Part of the time after which no round begins; the rest is for the statistics."""
MOST, FEW, NUMBERS = 20_000, 500, 4_000_000
"""Estimates of one estimator that are kept: at most, at least, and the numbers that they may have in all."""
TIMED = 64
"""Most single estimates that are timed in a round."""
SEVERAL = 4
"""Rounds, each with a cost of its own, before an estimator may drop out; and estimates that are timed in each, if there
is time for them."""
SLOW = 0.05
"""Part of the whole time that one estimate may take."""
EXACT = 0.03
"""Relative standard error at which a variance and a cost are exact enough."""
ROUNDING = 1e-10
"""Variance, in units of ‖∇‖², below which it is rounding; see `Race._tiny`."""
ENUMERATED = 4096
"""Configurations of the largest space that is enumerated for the true gradient."""

Tell = Callable[[str], None]


class Skipped(Exception):
    """Why an estimator is not measured."""


@dataclass(eq=False)
class Entrant:
    """An estimator in the race, and what is known of it.

    Attributes:
        label: as it is written.
        estimator: in `eval()` mode once it has adapted.
        status: "ok", or why it is not measured.
        dropped: the round in which it dropped out; None if it did not.
        error: what it failed with, if it did.
    """

    label: str
    estimator: Estimator | None
    status: str = "ok"
    adapted: int = 0
    evaluations: float = math.nan
    bytes: int = 0
    dropped: int | None = None
    error: Exception | None = None
    draws: dict[str, list[np.ndarray]] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bundle: int = 2
    noise: torch.Generator | None = None

    @property
    def unbiased(self) -> bool:
        return bool(self.estimator is not None and self.estimator.unbiased)

    @property
    def n(self) -> int:
        """Estimates so far."""
        return sum(map(len, next(iter(self.draws.values()), [])))

    def values(self, part: str) -> np.ndarray:
        """All estimates of a part, `(n, D)`."""
        joined = np.concatenate(self.draws[part])
        self.draws[part] = [joined]
        return joined

    @property
    def most(self) -> int:
        """How many estimates are kept."""
        length = max((values[0].shape[-1] for values in self.draws.values()), default=1)
        return min(MOST, max(FEW, NUMBERS // length))

    @property
    def slopes(self) -> str:
        """Whether it asks f for ∂f/∂sample: "no", "yes", "yes, f has some" or "yes, f has none"."""
        modules = [] if self.estimator is None else self.estimator.modules()
        parts = [part for part in modules if isinstance(part, Estimator)]
        missing = [len(sites) / len(part.sizes) for part in parts for sites in part.blind.values()]
        if not missing:
            return "no"
        return "yes" if not any(missing) else "yes, f has none" if min(missing) == 1 else "yes, f has some"


class Race:
    """The race.

    Args:
        problem: the gradient.
        estimators: by label; an estimator, or the reason why there is none.
        seconds: to spend.
        tell: given a line when something begins.
        ready: labels of those that have adapted before.

    Attributes:
        entrants: all of them, in the order given.
        truth: by part, estimates of the true gradient, `(m, D)`; m = 1 where it is exact.
        by: what the true gradient comes from.
        unit: seconds of one evaluation of f by hand.
    """

    def __init__(
        self,
        problem: Problem,
        estimators: Mapping[str, Estimator | str],
        seconds: float,
        tell: Tell,
        ready: Collection[str] = (),
    ) -> None:
        self.problem, self.seconds, self.tell, self._ready = problem, seconds, tell, ready
        self.entrants = [
            Entrant(label, None, given) if isinstance(given, str) else Entrant(label, given)
            for label, given in estimators.items()
        ]
        self.truth: dict[str, np.ndarray] = {}
        self.by, self.unit, self.spent = "", math.nan, 0.0
        self._known: dict[Entrant, Contestant] = {}
        self._zero = 0.0  # where the true gradient is 0: entries below it are rounding
        self._coin = np.random.default_rng(seed_of(problem.seed, "order"))

    def run(self) -> None:
        """Spend the time, and in any case enough for `LEAST` rounds of one estimate each."""
        self.tell("preparing")
        import_module("torch._dynamo")  # torch does so by itself at the first count of memory, and takes seconds for it
        self._begun = time.perf_counter()
        with self.problem.undisturbed(), warnings.catch_warnings():
            # of sites without a slope the table says more than the warning
            warnings.filterwarnings("ignore", message=".*needs ∂f/∂sample.*")
            self.unit = self.problem.settle(SLOW * self.seconds)
            self._enumerate()
            for entrant in self.running:
                self.tell(f"{entrant.label}: first estimates")
                self._try(entrant, self._enter)
            source = None
            for number in range(1, ROUNDS + 1):
                racing = [e for e in self.running if e.dropped is None]
                if not racing or (self._left() <= 0 and number > LEAST):
                    break
                self.tell(f"round {number} of {ROUNDS}: {len(racing)} of {len(self.running)} estimators in the race")
                round_ = max(0.0, self._left()) / (ROUNDS + 1 - number)
                if source is None and not self.exact and number > 1:
                    source = self._source()
                if source is not None and source.status == "ok":
                    self._try(source, functools.partial(self._refer, share=round_ * REFERENCE))
                    round_ *= 1 - REFERENCE
                    if not self.truth:
                        raise ValueError(f"the true gradient cannot be estimated by {source.label}: {source.status}")
                once = functools.partial(self._round, share=round_ / len(racing))
                for entrant in racing:
                    self._try(entrant, once)
                if self.truth:
                    self._drop(number)
        self.spent = time.perf_counter() - self._begun

    @property
    def running(self) -> list[Entrant]:
        """Those that can be measured."""
        return [entrant for entrant in self.entrants if entrant.status == "ok"]

    @property
    def exact(self) -> bool:
        """Whether the true gradient is known exactly."""
        return any(len(found) == 1 for found in self.truth.values())

    def norm(self, part: str) -> SquaredNorm | None:
        """‖∇‖² of the true gradient, or None where that is known exactly and not 0."""
        known = self.truth[part]
        if len(known) > 1:
            return squared_norm(known)
        return None if known.any() else SquaredNorm(0.0, 0.0, 1.0, 1, 0.0)

    def size(self, part: str) -> float:
        """‖∇‖², or 1 where the true gradient is not significantly different from 0."""
        norm = self.norm(part)
        if norm is None:
            return float((self.truth[part].astype(np.float64) ** 2).sum())
        return norm.value if norm.value > 2 * norm.se else 1.0

    def contestant(self, entrant: Entrant, part: str, norm: float) -> Contestant | None:
        """What is known of an entrant, or None if that is too little."""
        if entrant.status != "ok" or entrant.n < 2 or len(entrant.ratios) < 1:
            return None
        draws, truth = entrant.values(part), self.truth[part]
        known = {"reference": truth[0]} if len(truth) == 1 else {"reference_estimates": truth}
        bias, (variance, variance_error) = squared_norm(draws, **known), variance_trace(draws)
        if variance < self._tiny(part, norm):
            variance = variance_error = 0.0
            if bias.value < self._zero**2 * draws.shape[1]:
                bias = bias._replace(value=0.0, se=0.0, p=1.0)
        cost = t_interval(np.log(entrant.ratios))
        value = math.exp(cost.estimate)
        error = value * (cost.high - cost.low) / 2 / 1.96 if cost.n > 1 else value / 2
        return Contestant(
            entrant.label,
            entrant.label.partition("[")[0],
            entrant.unbiased,
            (variance, variance_error),
            (bias.value, bias.se),
            (value, error),
            bias.p,
            len(draws),
            norm,
            self.entrants.index(entrant),
        )

    def _tiny(self, part: str, norm: float) -> float:
        """The variance below which it is rounding. Where the gradient is 0, f alone tells the scale."""
        if part != "logits":
            return ROUNDING * norm
        return ROUNDING * min(norm, math.prod(self.problem.rows) * self.problem.scale**2)

    def _left(self) -> float:
        return MEASURING * self.seconds - (time.perf_counter() - self._begun)

    def _try(self, entrant: Entrant, do: Callable[[Entrant], object]) -> None:
        """Do it; what an estimator or f does not bear ends the entrant and not the race."""
        try:
            do(entrant)
        except Skipped as reason:
            entrant.status = str(reason)
        except Exception as error:  # of anybody's code
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
            entrant.status = f"failed: {SHARED if AGAIN in what else what}"
            entrant.error = error

    def _enumerate(self) -> None:
        """The exact gradient, where one estimate of it is affordable and f is the same at every call."""
        count = math.prod(self.problem.sizes)
        if self.problem.fresh or not self.problem.steady:
            return
        if count > ENUMERATED or count * self.unit > SLOW * self.seconds:
            return
        import estimators

        exact = Entrant("exact", estimators.get("exact", sizes=self.problem.sizes).to(self.problem.device))
        exact.noise = self.problem.generator("exact")
        self._try(exact, self._single)  # if it fails, the true gradient is estimated
        if exact.status != "ok":
            return
        self.truth = {part: exact.values(part) for part in exact.draws}
        self.by = f"enumeration of {count:,} configurations"
        least = 4 * torch.finfo(self.problem.dtype).eps * self.problem.scale
        if "logits" in self.truth and float(np.abs(self.truth["logits"]).max()) < least:
            self.truth["logits"][:] = 0  # what rounding leaves of values of this size
            self._zero = least

    def _enter(self, entrant: Entrant) -> None:
        """Adapt, and make the first estimates."""
        estimator = entrant.estimator
        assert estimator is not None
        about = max(1, estimator.evaluations) * self.unit
        if about > SLOW * self.seconds:
            raise Skipped(
                f"too slow: {estimator.evaluations:,} evaluations take about {about:.2g} s, more than {SLOW:.0%} of "
                f"the {self.seconds:g} s"
            )
        entrant.noise = self.problem.generator("estimator", entrant.label)
        if entrant.label not in self._ready and estimator.learns:
            self._adapt(entrant, ADAPTING * self.seconds / max(1, len(self.running)))
        estimator.eval()
        entrant.evaluations, entrant.bytes = self.problem.usage(estimator)
        if entrant.slopes == "yes, f has none" and not entrant.unbiased:
            raise Skipped("not applicable: it needs ∂f/∂sample, and f has none (an argmax or an index cuts the graph)")
        until = time.perf_counter() + self.seconds / len(self.entrants) / 4
        while entrant.n < FIRST and (entrant.n < 2 or time.perf_counter() < until):
            self._single(entrant)

    def _adapt(self, entrant: Entrant, seconds: float) -> None:
        """Let it learn at these logits, on as many minibatches as the time allows."""
        estimator = entrant.estimator
        assert estimator is not None
        estimator.train()
        parameters = list(estimator.parameters())
        optimizer = torch.optim.Adam(parameters, lr=CONTROL_LR) if parameters else None
        begun = time.perf_counter()
        noise = self.problem.generator("adapt", entrant.label)
        for _ in range(ADAPT):
            f, logits = self.problem.minibatch()
            detached = tuple(site.detach() for site in logits)
            estimator.zero_grad(set_to_none=True)
            estimator.estimate(f, detached, estimator.draw(detached, noise))
            if optimizer is not None:
                optimizer.step()
            entrant.adapted += 1
            if time.perf_counter() - begun > seconds:
                break

    def _single(self, entrant: Entrant) -> float:
        assert entrant.estimator is not None and entrant.noise is not None
        found, spent = self.problem.estimate(entrant.estimator, entrant.noise)
        for part, values in found.items():
            if not np.isfinite(values).all():
                raise Skipped("failed: an estimate is not finite")
            entrant.draws.setdefault(part, []).append(values[None])
        return spent

    def _round(self, entrant: Entrant, share: float) -> None:
        """Timed single estimates for a third of the share, and then as many as fit.

        Of several times the shortest counts: whatever else the machine does makes the others longer.
        """
        assert entrant.estimator is not None and entrant.noise is not None
        begun = time.perf_counter()
        times: list[float] = []
        units: list[float] = []
        spent = 0.0
        while not times or (spent < share / 3 and len(times) < TIMED) or (spent < share and len(times) < SEVERAL):
            # in random order: otherwise one of them would only see every second of minibatches that come in turn
            first = self._coin.random() < 0.5
            if first:
                units.append(self.problem.by_hand())
            times.append(self._single(entrant))
            if not first:
                units.append(self.problem.by_hand())
            spent = time.perf_counter() - begun
        entrant.seconds.append(min(times))
        entrant.ratios.append(min(times) / min(units))
        most = self.problem.most_together(entrant.estimator)
        if most == 1:
            return self._one_by_one(entrant, begun + share)
        most = min(most, entrant.most // ROUNDS)
        until = min(entrant.most, entrant.n + entrant.most // ROUNDS)
        while entrant.n < until and (left := begun + share - time.perf_counter()) > 0:
            n = min(entrant.bundle, until - entrant.n)
            start = time.perf_counter()
            values = self.problem.estimates(entrant.estimator, entrant.noise, n)
            spent = time.perf_counter() - start
            if not np.isfinite(values).all():
                raise Skipped("failed: an estimate is not finite")
            entrant.draws["logits"].append(values)
            if 2 * spent < left and spent / n < entrant.seconds[-1]:  # more at once is still cheaper
                entrant.bundle = min(2 * n, most)
            elif spent > left:
                break

    def _one_by_one(self, entrant: Entrant, until: float) -> None:
        while entrant.n < entrant.most and time.perf_counter() < until:
            self._single(entrant)

    def _source(self) -> Entrant | None:
        """The unbiased estimator of least variance × cost, as one that estimates the true gradient."""
        part = self.problem.parts[0]
        products = {
            entrant: variance_trace(entrant.values(part))[0] * math.exp(np.log(entrant.ratios).mean())
            for entrant in self.running
            if entrant.unbiased and entrant.n > 1 and entrant.ratios
        }
        if not products:
            raise ValueError(
                "none of the estimators is unbiased, and the space is too large to enumerate: nothing tells the true "
                "gradient; add an unbiased one, such as rloo"
            )
        best = min(products, key=products.__getitem__)
        self.by = f"estimates by {best.label}"
        twin = Entrant(best.label, copy.deepcopy(best.estimator), evaluations=best.evaluations, bundle=best.bundle)
        twin.noise, twin.seconds = self.problem.generator("reference"), list(best.seconds)
        return twin

    def _refer(self, source: Entrant, share: float) -> None:
        """More estimates of the true gradient."""
        before = source.n
        self._round(source, share)
        while source.n < max(FIRST, before + 2):
            self._single(source)
        self.truth = {part: source.values(part) for part in source.draws}

    def _drop(self, number: int) -> None:
        """Who drops out after this round."""
        part = self.problem.parts[0]
        norm = self.size(part)
        racing = [e for e in self.running if e.dropped is None]
        self._known |= {e: c for e in racing if (c := self.contestant(e, part, norm)) is not None}
        here = {e: c._replace(norm=norm) for e, c in self._known.items() if e.status == "ok"}
        curves = {e: _bounds(c) for e, c in here.items()}
        safe = {
            min(group, key=lambda e: float(curves[e][1].min()), default=None)
            for group in ([e for e in here if e.unbiased], [e for e in here if not e.unbiased])
        }
        for entrant in [e for e in racing if e in here]:
            low, _ = curves[entrant]
            can = np.isfinite(low)
            beaten = any((curves[other][1][can] < low[can]).all() for other in here if other is not entrant)
            done = _exact_enough(here[entrant]) or entrant.n >= entrant.most
            if len(entrant.ratios) >= SEVERAL and (done or (beaten and entrant not in safe)):
                entrant.dropped = number


def _bounds(one: Contestant) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of the error along `GRID`; infinite where C does not pay for one estimate."""
    _, low, high = one.error(GRID)
    affordable = one.cost[0] <= GRID
    return np.where(affordable, low, np.inf), np.where(affordable, high, np.inf)


def _exact_enough(one: Contestant) -> bool:
    """Whether more time would not change what is said of it."""
    (variance, error), (cost, cost_error), (bias, bias_error) = one.variance, one.cost, one.bias
    if error > EXACT * variance or cost_error > EXACT * cost:
        return False
    return one.unbiased or bias_error < EXACT * max(bias, 0.0)
