"""A gradient to be measured on an objective of one's own, and how one estimate of it is made.

Everything that an estimate touches is put back afterwards: `.grad` of every tensor that the objective trains, and
torch's global random state.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from estimators import Estimator
from estimators.noise import gumbel_argmax, one_hot, uniform
from estimators.objective import Sites, adapt, at_least_fp32, sites_of
from suites.measure import Counted
from suites.memory import StorageCounter
from suites.tasks.base import seed_of

LONGEST = 1024
"""Numbers of a gradient that are kept. A longer gradient is projected at random (count sketch), which is linear and
keeps squared norms on average; one squared norm has a relative standard error of √(2 / LONGEST), 4.4 %."""
SEVERAL = 4
"""Samples in one call, when f is checked."""
WAITS = 3
"""f waits if an evaluation takes more than this times the seconds for which its thread computes."""
NUMBERS = 2**20
"""Most numbers of the samples of one call of the objective where several estimates are made together."""

AGAIN = "backward through the graph a second time"
"""What torch says where a graph is already freed."""
SHARED = (
    "f uses a tensor with a graph that was made outside of f, as of the logits; it is freed after one backward pass: "
    "compute the tensor inside f, or detach it"
)


class Problem:
    """The gradient of E f, summed over rows, in the logits and, where they are given, in weights.

    Args:
        objective: f, see `estimators.objective.Objective`; with `fresh`, a function without arguments which gives the
            f of the next minibatch, or the pair of f and logits where the logits depend on the minibatch.
        logits: φ, `(*rows, K_l)` per site; None if `objective` gives pairs.
        weights: tensors whose gradient is measured too, whether f depends on them or the logits do.
        fresh: whether every estimate takes a new minibatch.
        seed: of all random numbers.

    Raises:
        ValueError: these do not fit together, or f does not give one value for each sample.
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        logits: Sites | Tensor | None,
        *,
        weights: Iterable[Tensor] = (),
        fresh: bool = False,
        seed: int = 0,
    ) -> None:
        if not callable(objective):
            raise ValueError(f"the objective must be a function of a sample, got {type(objective).__name__}")
        if fresh and _accepts(objective, 1) and not _accepts(objective, 0):
            raise ValueError(
                "with fresh=True the objective is called without arguments and gives the f of the next minibatch; this "
                "one needs an argument"
            )
        if not fresh and _accepts(objective, 0) and not _accepts(objective, 1):
            raise ValueError("the objective takes no sample; if it gives the f of the next minibatch, set fresh=True")
        self._given, self.fresh, self.seed = objective, fresh, seed
        self._logits = None if logits is None else sites_of(logits)
        # logits that are leaves are measured as logits
        leaves = {id(site) for site in self._logits or ()}
        self.weights = [weight for weight in _weights(weights) if id(weight) not in leaves]
        if logits is None and not fresh:
            raise ValueError("logits are missing; only with fresh=True may the objective bring its own")
        if logits is None and not self.weights:
            raise ValueError(
                "logits that change with the minibatch have no gradient in common: give weights=, for example "
                "encoder.parameters()"
            )
        with torch.random.fork_rng([]):
            f, at = self.minibatch()
            self.sizes = tuple(int(site.shape[-1]) for site in at)
            self.rows = tuple(at[0].shape[:-1])
            self.device = at[0].device
            self.dtype = at_least_fp32(at[0]).dtype  # in which estimators give f its samples
            value = self._at_likeliest(f, at)
            if not bool(value.isfinite().all()):
                raise ValueError("the objective gives NaN or infinity at the likeliest categories")
            self.trained = _leaves(value)
        self.alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        self.scale = 0.0
        self.random, self.mixes, self.has_slopes = self._checked(f, at)
        self.together = self.steady and not fresh and not self.weights

    @property
    def steady(self) -> bool:
        """Whether a sample has the same value at every call."""
        return not self.random and not self.mixes

    @property
    def parts(self) -> tuple[str, ...]:
        """What is measured: "logits" if they are the same for every estimate, and "weights" if there are any."""
        return (("logits",) if self._logits is not None else ()) + (("weights",) if self.weights else ())

    def minibatch(self) -> tuple[Callable[[Sites], Tensor], Sites]:
        """The f of an estimate, and the logits with their graph."""
        given = self._next() if self.fresh else self._given
        pair = given if isinstance(given, tuple) else (given, self._logits)
        if len(pair) != 2 or pair[1] is None or not callable(pair[0]):
            raise ValueError(
                "with fresh=True the objective is called without arguments, and must give f or (f, logits)"
            )
        f, logits = pair
        return f, sites_of(logits)

    def generator(self, *of: object) -> torch.Generator:
        """A generator of its own for everything that is named."""
        return torch.Generator(self.device).manual_seed(seed_of(self.seed, *of))

    def estimate(self, estimator: Estimator, noise: torch.Generator) -> tuple[dict[str, np.ndarray], float]:
        """One estimate, `(D,)` per part, and the seconds that it took, without those of drawing a minibatch."""
        f, logits = self.minibatch()
        self._clear()
        begun = self._now()
        detached = tuple(site.detach() for site in logits)
        _, grads = estimator.estimate(f, detached, estimator.draw(detached, noise))
        upstream = self._upstream(logits, grads)
        spent = self._now() - begun
        found = {"logits": _sketch(_centred(grads))} if self._logits is not None else {}
        if self.weights:
            flat = torch.cat([_sum(w, w.grad, up).flatten() for w, up in zip(self.weights, upstream, strict=True)])
            found["weights"] = _sketch(flat)
        return found, spent

    def estimates(self, estimator: Estimator, noise: torch.Generator, n: int) -> np.ndarray:
        """n estimates of the logits' gradient, `(n, D)`, as rows of one call; only where `together` says so."""
        f, logits = self.minibatch()
        rows = tuple(site.detach().expand(n, *site.shape) for site in logits)
        frozen = [leaf for leaf in self.trained if leaf.requires_grad]
        for leaf in frozen:
            leaf.requires_grad_(False)
        try:
            grads = estimator.estimate(f, rows, estimator.draw(rows, noise)).grads
        finally:
            for leaf in frozen:
                leaf.requires_grad_(True)
        return _sketch(_centred(grads, n))

    def most_together(self, estimator: Estimator) -> int:
        """How many estimates one call may make."""
        numbers = math.prod(self.rows) * sum(self.sizes) * max(1, estimator.evaluations)
        return max(1, NUMBERS // numbers) if self.together else 1

    def by_hand(self) -> float:
        """Seconds of one evaluation of f at a hard sample, with the backward pass to the sample and to the weights."""
        f, logits = self.minibatch()
        index = gumbel_argmax([site.detach() for site in logits], uniform(logits, self.generator("by hand")))
        sample = tuple(one_hot(i, k, self.dtype) for i, k in zip(index, self.sizes, strict=True))
        self._clear()
        begun = self._now()
        value = adapt(f, self.sizes, self.dtype)(tuple(site.requires_grad_() for site in sample))
        if value.requires_grad:
            try:
                value.sum().backward()
            except RuntimeError as error:
                if AGAIN not in str(error):
                    raise
                raise ValueError(SHARED) from error
        return self._now() - begun

    def settle(self, seconds: float) -> float:
        """Choose the clock, and give the seconds of one evaluation: the least of 3 to 7, in about this time.

        An f that waits, for another process or a device, takes longer than its thread computes. Then all counts.
        """
        self.by_hand()  # the first call may compile or cache
        begun = time.perf_counter()
        units: list[float] = []
        walls: list[float] = []
        while len(units) < 3 or (len(units) < 7 and time.perf_counter() - begun < seconds):
            start = time.perf_counter()
            units.append(self.by_hand())
            walls.append(time.perf_counter() - start)
        if self.alone and min(walls) > WAITS * min(units):
            self.alone = False
            return min(walls)
        return min(units)

    def usage(self, estimator: Estimator) -> tuple[float, int]:
        """Evaluations of f in one estimate, for each row, and the most bytes that it allocates at a time."""
        f, logits = self.minibatch()
        detached = tuple(site.detach() for site in logits)
        counted = Counted(adapt(f, self.sizes, self.dtype))
        self._clear()
        with StorageCounter() as counter:
            estimator.estimate(counted, detached, estimator.draw(detached, self.generator("usage")))
        return counted.count / max(1, math.prod(self.rows)), sum(counter.peak.values())

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Gradients and torch's global random state are as before when this ends."""
        touched = list({id(leaf): leaf for leaf in (*self.trained, *self.weights)}.values())
        before = [leaf.grad for leaf in touched]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            self._reseed()
            for leaf in touched:
                leaf.grad = None
            try:
                yield
            finally:
                for leaf, grad in zip(touched, before, strict=True):
                    leaf.grad = grad

    def _next(self) -> Any:
        try:
            return self._given()
        except StopIteration as end:
            raise ValueError(
                "the minibatches have ended; the objective must give one at every call, so begin them anew at their end"
            ) from end

    def _upstream(self, logits: Sites, grads: Sites) -> Sequence[Tensor | None]:
        """What the weights get through the logits."""
        pairs = [(site, grad) for site, grad in zip(logits, grads, strict=True) if site.grad_fn is not None]
        if not pairs or not self.weights:
            return [None] * len(self.weights)
        sites, given = zip(*pairs, strict=True)
        kept = self._logits is not None  # the same graph serves the next estimate
        return torch.autograd.grad(sites, self.weights, given, retain_graph=kept, allow_unused=True)

    def _checked(self, f: Callable[[Sites], Tensor], logits: Sites) -> tuple[bool, bool, bool]:
        """Whether f is random, whether it mixes the samples of a call, and whether it has a slope in every site.

        A sample must have the same value again (no dropout), and alone as among others (no batch norm in training
        mode). Otherwise estimates are made one at a time, and enumeration is not the true gradient.
        """
        inner = adapt(f, self.sizes, self.dtype)
        detached = [at_least_fp32(site.detach()) for site in logits]
        index = gumbel_argmax(detached, uniform(detached, self.generator("check"), (SEVERAL,)))
        corners = [one_hot(i, k, self.dtype) for i, k in zip(index, self.sizes, strict=True)]
        with self.undisturbed():
            before = self._random_state()
            leaves = tuple(corner[0].clone().requires_grad_() for corner in corners)
            alone = inner(leaves)
            slopes: Sequence[Tensor | None] = [None]
            if alone.requires_grad:
                slopes = torch.autograd.grad(alone.sum(), leaves, allow_unused=True)
            with torch.no_grad():
                several, again = inner(tuple(corners)), inner(tuple(corners))
            self.scale = float(several.abs().max())
            drawn = not torch.equal(self._random_state(), before)
            random = drawn or not _near(several, again)
            mixes = not random and not _near(several[0], alone.detach())
        return random, mixes, all(slope is not None for slope in slopes)

    def _at_likeliest(self, f: Callable[[Sites], Tensor], logits: Sites) -> Tensor:
        """f at the likeliest categories."""
        pairs = zip(logits, self.sizes, strict=True)
        sample = tuple(one_hot(site.detach().argmax(-1), k, self.dtype) for site, k in pairs)
        return adapt(f, self.sizes, self.dtype)(sample)

    def _random_state(self) -> Tensor:
        """The state of the generators from which f may draw."""
        state = torch.random.get_rng_state()
        return torch.cat([state, torch.cuda.get_rng_state(self.device)]) if self.device.type == "cuda" else state

    def _reseed(self) -> None:
        """Seed the generators that are put back afterwards, and no others."""
        seed = seed_of(self.seed, "objective")
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)

    def _clear(self) -> None:
        for leaf in (*self.trained, *self.weights):
            leaf.grad = None

    def _now(self) -> float:
        """Seconds: of this thread on a processor if it computes alone, whatever else the machine does."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.thread_time() if self.alone else time.perf_counter()


def _accepts(objective: Callable[..., Any], arguments: int) -> bool:
    """Whether it can be called with that many arguments. Where it does not tell, it can."""
    try:
        inspect.signature(objective).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # it has no signature, as some functions in C
        return True
    return True


def _weights(given: Iterable[Tensor]) -> list[Tensor]:
    """Those that require a gradient. ValueError unless they are tensors, or if there are some and none requires it."""
    several = isinstance(given, Iterable) and not isinstance(given, Tensor)
    whole = list(given) if several else []
    if not several or not all(isinstance(weight, Tensor) for weight in whole):
        raise ValueError("weights must be a sequence of tensors, such as model.parameters()")
    found = [weight for weight in whole if weight.requires_grad]
    if whole and not found:
        raise ValueError("none of the weights requires a gradient, so there is none to measure")
    return found


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _leaves(value: Tensor) -> list[Tensor]:
    """The tensors whose `.grad` a backward pass from here would fill."""
    found: dict[int, Tensor] = {}
    seen, todo = set(), [value.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        todo += [following for following, _ in node.next_functions]
    return list(found.values())


def _centred(grads: Sites, n: int = 1) -> Tensor:
    """`(n, D)`: sites side by side, each projected onto zero sum, for a constant in the logits changes nothing."""
    parts = [(g.double() - g.double().mean(-1, keepdim=True)).reshape(n, -1) for g in grads]
    flat = torch.cat(parts, -1)
    return flat if n > 1 else flat[0]


def _sketch(flat: Tensor) -> np.ndarray:
    """`(…, D)`, or `(…, LONGEST)` by a count sketch where D is larger: each number is added, with a random sign, to one
    of the entries. Charikar, Chen, Farach-Colton 2002."""
    d = flat.shape[-1]
    if d > LONGEST:
        g = torch.Generator().manual_seed(d)
        at = torch.randint(LONGEST, (d,), generator=g).to(flat.device)
        sign = (torch.randint(2, (d,), generator=g) * 2 - 1).to(flat)
        flat = flat.new_zeros((*flat.shape[:-1], LONGEST)).index_add_(-1, at, flat * sign)
    return flat.float().cpu().numpy()


def _sum(like: Tensor, *terms: Tensor | None) -> Tensor:
    total = torch.zeros_like(like)
    for term in terms:
        if term is not None:
            total = total + term
    return total
