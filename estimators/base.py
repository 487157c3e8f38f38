"""The one protocol: what an estimator is given, and what it must give back.

An estimator of the gradient of an expectation over independent categoricals ("sites") z_l ~ q_l = softmax(φ_l),

    ∂/∂φ_l E_{z ~ q_φ} f(z),    l = 1 … L,

is given the logits φ and any callable f. It never asks what f is made of.
"""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from estimators.noise import Categories, one_hot, uniform
from estimators.options import Several
from estimators.sitewise import Stacked, layout_of, stacked, stacks

Sites = Sequence[Tensor]
"""One tensor per site: logits `(*rows, K_l)`, a sample `(*lead, *rows, K_l)` or an index `(*lead, *rows)`.

An objective is always given a tuple.
"""


class Objective(Protocol):
    """f, and what else an objective may know how to do. Every plain callable is one: it takes the defaults.

    A sample is a tuple of `(*lead, *rows, K_l)` tensors, one-hot or in the simplex. Of an objective that says
    `broadcasts` the leading dimensions may differ between sites, and broadcast against each other. The value has shape
    `(*lead, *rows)`.
    """

    broadcasts: bool = False
    """Whether it wants the sites as they come. By default they come to one leading shape first, as views: a plain
    callable may concatenate them."""

    @abstractmethod
    def __call__(self, sample: Sites, /) -> Tensor:
        """f at a sample whose ∂f/∂sample is wanted; weights inside f train on it."""

    def hard(self, index: Sites, /) -> Tensor:
        """f at the categories `index` (int64) where no ∂f/∂sample is wanted. By default `self(one_hot(index))`."""
        raise NotImplementedError  # one_hot needs the sizes, which `adapt` knows

    def control(self, sample: Sites, /) -> Tensor:
        """The fixed function that a control variate evaluates: the same for every term of one estimate.

        It moves no state, gives no gradient to weights, and can be differentiated twice. By default `self`.
        """
        return self(sample)

    def part(self, i: int, n: int, /) -> Objective | None:
        """The objective on the i-th of n fixed parts of its data, chosen without looking at noise; None: no parts."""
        return None

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        """f at `index`, as `hard` gives it, and the mere values of f at `others`, `(*lead, *rows)`, detached.

        The others give no gradient and move no state. They may differ from `index` in few sites, and what they have in
        common with it need not be computed twice. By default `hard` of each, the others without gradients, which moves
        what state `hard` moves: an objective that has some, or a wrapper of one, brings its own.
        """
        loss = self.hard(index)
        with torch.no_grad():
            return loss, self.hard(others).detach()


def adapt(objective: Callable[[Sites], Tensor], sizes: Sequence[int], dtype: torch.dtype) -> Objective:
    """Any callable, with the defaults of `Objective` for each method that it does not bring itself.

    Args:
        objective: a callable `sample -> (*lead, *rows)`, or an object with some of `Objective`'s methods.
        sizes: K_l of each site.
        dtype: of the one-hot samples that the default `hard` makes.

    Values come in at least fp32: estimators take differences of them. One of another shape than `(*lead, *rows)` is a
    ValueError.
    """

    return _Adapted(objective, tuple(sizes), dtype)


class _Adapted(Objective):
    def __init__(self, objective: Callable[[Sites], Tensor], sizes: tuple[int, ...], dtype: torch.dtype) -> None:
        self.inner = self.objective = objective
        self.sizes, self.dtype = sizes, dtype
        self.broadcasts = getattr(objective, "broadcasts", False)

    def _alike(self, sites: Sites, inner: int = 0) -> tuple[Tensor, ...]:
        """Sites of one leading shape, but for their `inner` last dimensions, unless the objective broadcasts them."""
        sites = tuple(sites)
        leads = {site.shape[: site.dim() - inner] for site in sites}
        if self.broadcasts or len(leads) == 1:
            return sites
        lead = torch.broadcast_shapes(*leads)
        return tuple(site.expand(*lead, *site.shape[site.dim() - inner :]) for site in sites)

    def _own(self, name: str) -> Any:
        method = getattr(self.objective, name, None)
        return None if getattr(method, "__func__", None) is getattr(Objective, name) else method

    def __call__(self, sample: Sites, /) -> Tensor:
        return _value(self.objective(self._alike(sample, 1)), sample, 1)

    def hard(self, index: Sites, /) -> Tensor:
        if (own := self._own("hard")) is not None:
            return _value(own(self._alike(index)), index)
        if isinstance(index, Categories):
            return self(index.corners)
        return self(tuple(one_hot(i, size, self.dtype) for i, size in zip(index, self.sizes, strict=True)))

    def control(self, sample: Sites, /) -> Tensor:
        return _value((self._own("control") or self.objective)(self._alike(sample, 1)), sample, 1)

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        if (own := self._own("around")) is None:
            return super().around(index, others)
        loss, values = own(self._alike(index), self._alike(others))
        return _value(loss, index), _value(values, others)

    def part(self, i: int, n: int, /) -> Objective | None:
        own = self._own("part")
        piece = None if own is None else own(i, n)
        return None if piece is None else adapt(piece, self.sizes, self.dtype)


class Wrapper(Objective):
    """An objective around another, to which it hands everything on; a subclass changes what it is for.

    Args:
        inner: the other, with every method: see `adapt`.
    """

    broadcasts = True

    def __init__(self, inner: Objective) -> None:
        self.inner = inner

    def around_another(self, piece: Objective) -> Wrapper:
        """The same around a part of the data of the inner one."""
        return type(self)(piece)

    def __call__(self, sample: Sites, /) -> Tensor:
        return self.inner(sample)

    def hard(self, index: Sites, /) -> Tensor:
        return self.inner.hard(index)

    def control(self, sample: Sites, /) -> Tensor:
        return self.inner.control(sample)

    def part(self, i: int, n: int, /) -> Objective | None:
        piece = self.inner.part(i, n)
        return None if piece is None else self.around_another(piece)

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        return self.inner.around(index, others)


class Estimate(NamedTuple):
    """One estimate: the detached loss `(*rows)` and, per site, an estimate `(*rows, K_l)` of ∂E[f]/∂logits."""

    loss: Tensor
    grads: Sites


class Estimator(nn.Module):
    """An estimator of ∂E[f]/∂logits. A subclass writes `draw` and `_estimate`.

    Baselines and step sizes are buffers, control variates are parameters; none has a row dimension. In `eval()` mode
    nothing changes, so that an estimator can be measured as it stands.

    Args:
        sizes: K_l, the number of categories of each site.

    Raises:
        ValueError: the sizes, or an option, cannot work; the message says what is needed.
    """

    version = 1
    """Part of the identity of a result: raise it when the estimates change."""
    unbiased: bool
    """Claims E[estimate] = ∂E[f]/∂logits (and the same for weights)."""
    relaxed: bool = False
    """Evaluates the objective off the vertices of the simplex."""
    evaluations: int = 1
    """Evaluations of the objective per estimate, counting every leading sample."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = _checked(sizes)
        self.blind: dict[object, tuple[int, ...]] = {}  # sites without a slope, of each kind of f; see `slopes`

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        """All the randomness of one estimate, for logits `(*rows, K_l)`; at least fp32, whatever the logits are.

        By default uniforms `(*rows, K_l)` per site.
        """
        return uniform(logits, generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Any) -> Estimate:
        """`estimate`, given an objective with every method, and detached logits of at least fp32, the greatest 0."""
        raise NotImplementedError

    def estimate(self, objective: Callable[[Sites], Tensor], logits: Sites, noise: Any) -> Estimate:
        """The loss and the gradient estimates that `noise` gives; weights inside the objective receive `.grad`.

        In training mode a moving baseline takes its step, and the `.grad` of control-variate parameters grows by
        the gradient of the row mean of the estimator's own fitting loss.

        Args:
            objective: f, see `Objective`.
            logits: one tensor `(*rows, K_l)` per site; −inf forbids a category.
            noise: what `draw` returned for logits of this shape.

        Raises:
            ValueError: wrong number of sites, wrong shapes, logits without a distribution (NaN, +inf, all −inf), or a
                call inside an autocast region, which belongs inside the objective.
        """
        loss, grads = self._of_stacks(objective, self._stacked(logits), noise)
        return Estimate(loss, tuple(grads))

    def backward(
        self, objective: Callable[[Sites], Tensor], logits: Sites, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw, estimate, and hand the estimates to autograd at the logits, which need not be leaves.

        `.grad` accumulates, summed over rows. Returns the loss `(*rows)`, detached: the backward pass is done by then,
        of weights inside the objective too, and `loss.backward()` is neither needed nor possible.

        Raises:
            ValueError: as `estimate`, or no logits require grad.
        """
        with torch.enable_grad():
            whole = self._stacked(logits)
        if not any(stack.requires_grad for stack in whole.stacks):
            raise ValueError("no logits require grad, so that nothing would be trained; `estimate` gives the estimates")
        loss, grads = self._of_stacks(objective, whole, self.draw(logits, generator))
        pairs = zip(whole.stacks, grads.stacks, strict=True)
        if wanted := [(stack, grad) for stack, grad in pairs if stack.requires_grad]:
            torch.autograd.backward([stack for stack, _ in wanted], [grad for _, grad in wanted])
        return loss

    def _of_stacks(self, objective: Callable[[Sites], Tensor], logits: Stacked, noise: Any) -> tuple[Tensor, Stacked]:
        """`estimate`, the gradients as stacks of the logits' dtype."""
        inner = Stacked((_shifted(_at_least_fp32(stack.detach())) for stack in logits.stacks), logits.layout)
        with torch.enable_grad():
            loss, grads = self._estimate(adapt(objective, self.sizes, inner.stacks[0].dtype), inner, noise)
        pairs = zip(stacks(grads, logits.layout), logits.stacks, strict=True)
        return loss.detach(), Stacked((grad.detach().to(site.dtype) for grad, site in pairs), logits.layout)

    def anneal(self, progress: float) -> None:
        """Move schedules to `progress` in [0, 1] of the run."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {progress}")
        for child in self.children():
            if isinstance(child, Temperature):
                child.anneal(progress)

    def _stacked(self, logits: Sites) -> Stacked:
        """The logits, stacked. Raises ValueError where there is something wrong with them, see `estimate`."""
        shapes = [tuple(site.shape) for site in logits]
        rows = shapes[0][:-1] if shapes else ()
        if shapes != [(*rows, size) for size in self.sizes]:
            if [shape[-1:] for shape in shapes] == [(size,) for size in self.sizes]:
                raise ValueError(f"every site must have the same rows, got shapes {shapes}")
            raise ValueError(
                f"logits must be one (*rows, K) tensor per site with K = {self.sizes}, got shapes {shapes}"
            )
        if torch.is_autocast_enabled(logits[0].device.type):  # it would round scores, slopes and every backward pass
            raise ValueError("an estimator must run outside autocast; open the autocast region inside the objective")
        layout = layout_of(self.sizes)
        return Stacked(stacks(logits, layout), layout)

    def _fit(self, loss: Tensor) -> None:
        """Add the gradient of the row mean of a fitting loss to this estimator's own parameters and nothing else."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:  # frozen
            return
        grads = torch.autograd.grad(loss.mean(), parameters, allow_unused=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad


class SeveralSamples(Estimator):
    """An estimator of S samples, the leading dimension of one call to the objective, on uniforms `(S, *rows, K_l)`.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2; weights train on the mean over it.
    """

    def __init__(self, sizes: Sequence[int], *, samples: Several = 2) -> None:
        super().__init__(sizes)
        self.evaluations = samples

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        return uniform(logits, generator, (self.evaluations,))


def train_weights(loss: Tensor, weight: Tensor | float = 1.0) -> None:
    """Backpropagate Σ weight · loss at once, so that its graph is freed before the next is built.

    Only leaves of the objective's graph receive a gradient: its weights, and a sample made to require one.
    """
    if loss.requires_grad:
        # a number is filled in on the device: a copy from the host would wait for it
        loss.backward(weight.to(loss).expand_as(loss) if isinstance(weight, Tensor) else torch.full_like(loss, weight))


class Temperature(nn.Module):
    """A temperature: a constant, or a pair (start, end) followed geometrically as `progress` goes from 0 to 1."""

    value: Tensor

    def __init__(self, temperature: float | tuple[float, float]) -> None:
        super().__init__()
        pair = temperature if isinstance(temperature, tuple) else (temperature, temperature)
        self.start, self.end = pair
        self.register_buffer("value", torch.tensor(self.start, dtype=torch.float64))

    def forward(self, sites: Sites) -> Tensor:
        """The temperature in the dtype of these sites."""
        return self.value.to(stacked(sites).stacks[0].dtype)

    def anneal(self, progress: float) -> None:
        self.value.fill_(self.start * (self.end / self.start) ** progress)


def _shifted(logits: Tensor) -> Tensor:
    """Logits of which the greatest is 0: of a large constant no digit of the noise is lost. ValueError: NaN or inf."""
    most = logits.amax(-1, keepdim=True)
    # A read of the values waits for the device, so it is done only where that is free.
    plain = type(most) is Tensor and not torch.compiler.is_compiling()
    # of numbers that are finite the sum may not be, but seldom
    if plain and most.device.type == "cpu" and not math.isfinite(most.sum()) and not bool(most.isfinite().all()):
        raise ValueError("logits must be finite, or -inf for a forbidden category but not for all: NaN or inf")
    return logits - most


def _checked(sizes: Sequence[int]) -> tuple[int, ...]:
    """K_l of each site as plain integers. Raises ValueError where they are none."""
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise ValueError(f"sizes must be a sequence, the number of categories of each site, got {sizes!r}")
    try:
        found = tuple(operator.index(size) for size in sizes)
    except TypeError:
        found = ()
    if not found or min(found) < 1:
        raise ValueError(f"sizes must name at least one site of at least one category, got {sizes!r}")
    return found


def _at_least_fp32(site: Tensor) -> Tensor:
    return site if site.dtype in (torch.float32, torch.float64) else site.float()


def _value(value: Tensor, sites: Sites, inner: int = 0) -> Tensor:
    """The value of an objective, if it has the shape of the sites but for their `inner` last dimensions."""
    if isinstance(sites, Stacked):  # the shapes of the sites without a view of each
        sites, inner = sites.stacks, inner + 1
    shapes = {site.shape[: site.dim() - inner] for site in sites}
    shape = shapes.pop() if len(shapes) == 1 else torch.broadcast_shapes(*shapes)
    if value.shape != shape:
        raise ValueError(f"the objective must give {tuple(shape)}, one value per sample, got {tuple(value.shape)}")
    return _at_least_fp32(value)
