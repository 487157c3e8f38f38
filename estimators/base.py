"""The protocol of all estimators: what an estimator receives and what it returns.

There are L independent categorical variables ("sites"), z_l ~ q_l = softmax(φ_l). An estimator estimates

    ∂/∂φ_l E_{z ~ q_φ} f(z),    l = 1 … L.

It receives the logits φ and any callable f, and needs to know nothing else about f.

Notation in the docstrings of all estimators:

    K_l                       number of categories of site l
    p_l = softmax(φ_l)        probabilities of site l
    z                         a sample; z_l is one-hot in sums and products
    g_l                       the estimate for site l, `(*rows, K_l)`
    ∇_l f                     ∂f/∂z_l, the slope of f
    J(p) v = p ⊙ (v − pᵀv)    Jacobian of the softmax at p, times v; ⊙ is the elementwise product
    G_l                       standard Gumbel noise, independent for each category
    hard, soft                a hard sample is one-hot at every site; a soft sample lies inside the simplex
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from estimators.noise import uniform
from estimators.objective import Objective, Sites, adapt, at_least_fp32, sites_of
from estimators.options import Several
from estimators.sitewise import Stacked, layout_of, stacked, stacks


class Estimate(NamedTuple):
    """One estimate: the detached loss `(*rows)` and, for each site, an estimate `(*rows, K_l)` of ∂E[f]/∂logits."""

    loss: Tensor
    grads: Sites


class Estimator(nn.Module):
    """An estimator of ∂E[f]/∂logits. A subclass implements `draw` and `_estimate`.

    Baselines and step sizes are buffers. Control variates are parameters. None of them has a row dimension. In `eval()`
    mode none of them changes, so that an estimator can be measured without altering it.

    Args:
        sizes: K_l, the number of categories of each site.

    Raises:
        ValueError: invalid sizes or options; the message says what is needed.
    """

    version = 1
    """Part of the identity of a result: raise it when the estimates change."""
    unbiased: bool
    """Whether E[estimate] = ∂E[f]/∂logits, and the same for the weights' gradient."""
    relaxed: bool = False
    """Whether the objective is evaluated at soft samples."""
    evaluations: int = 1
    """Evaluations of the objective per estimate, counting every sample."""
    pathwise: bool = False
    """Asks for one sample `(*rows, K_l)` of each site, and its gradient is linear in ∂f/∂sample there and depends on
    nothing else of f; it learns nothing. Then `estimators.sample` can do without the objective."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = _checked(sizes)
        self.blind: dict[object, tuple[int, ...]] = {}  # sites without a slope, of each kind of f; see `slopes`

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "blind": {}}  # what was found out about functions of this process

    @property
    def learns(self) -> bool:
        """Whether it adapts to what it is given; a temperature, which only `anneal` moves, does not."""
        scheduled = tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, Temperature))
        return any(not name.startswith(scheduled) for name in self.state_dict())

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        """All randomness of one estimate, for logits `(*rows, K_l)`. At least fp32, whatever the logits' dtype.

        By default uniforms `(*rows, K_l)` for each site.
        """
        return uniform(logits, generator)

    def _estimate(self, objective: Objective, logits: Sites, noise: Any) -> Estimate:
        """As `estimate`; the objective has every method, the logits are detached, at least fp32, with maximum 0."""
        raise NotImplementedError

    def estimate(self, objective: Callable[[Sites], Tensor], logits: Sites, noise: Any) -> Estimate:
        """The loss and the gradient estimates for this noise. Weights inside the objective receive `.grad`.

        In training mode a moving baseline is updated, and the gradient of the estimator's own fitting loss (mean over
        rows) is added to the `.grad` of its parameters.

        Args:
            objective: f, see `Objective`.
            logits: one tensor `(*rows, K_l)` per site; −inf forbids a category.
            noise: what `draw` returned for logits of this shape.

        Raises:
            ValueError: wrong number of sites, wrong shapes, noise for other rows, or a call inside an autocast region
                (open that region inside the objective). On the CPU also logits that are NaN, +inf or all −inf.
        """
        loss, grads = self._of_stacks(objective, self._stacked(logits), noise)
        return Estimate(loss, tuple(grads))

    def backward(
        self, objective: Callable[[Sites], Tensor], logits: Sites, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw, estimate, and backpropagate the estimates through the logits, which need not be leaves.

        `.grad` accumulates, summed over rows. Returns the detached loss `(*rows)`. The backward pass is then complete,
        for weights inside the objective too. `loss.backward()` is not needed and raises an error.

        Raises:
            ValueError: as for `estimate`, or no logits require grad.
        """
        with torch.enable_grad():
            whole = self._stacked(logits)
        if not any(stack.requires_grad for stack in whole.stacks):
            raise ValueError("no logits require grad, so nothing would be trained; `estimate` returns the estimates")
        loss, grads = self._of_stacks(objective, whole, self.draw(logits, generator))
        pairs = zip(whole.stacks, grads.stacks, strict=True)
        if wanted := [(stack, grad) for stack, grad in pairs if stack.requires_grad]:
            torch.autograd.backward([stack for stack, _ in wanted], [grad for _, grad in wanted])
        loss.backward = _is_done  # type: ignore[method-assign]
        return loss

    def _of_stacks(self, objective: Callable[[Sites], Tensor], logits: Stacked, noise: Any) -> tuple[Tensor, Stacked]:
        """As `estimate`; returns the gradients as stacks in the logits' dtype."""
        inner = Stacked((_shifted(at_least_fp32(stack.detach())) for stack in logits.stacks), logits.layout)
        rows = inner.stacks[0].shape[:-2]
        fits = not isinstance(noise, Stacked) or noise.stacks[0].shape[-2 - len(rows) : -2] == rows
        if fits:
            with torch.enable_grad():
                loss, grads = self._estimate(adapt(objective, self.sizes, inner.stacks[0].dtype), inner, noise)
            fits = loss.shape == rows
        if not fits:
            raise ValueError(f"the noise was not drawn for logits with rows {tuple(rows)}")
        pairs = zip(stacks(grads, logits.layout), logits.stacks, strict=True)
        return loss.detach(), Stacked((grad.detach().to(site.dtype) for grad, site in pairs), logits.layout)

    def anneal(self, progress: float) -> None:
        """Set all schedules to `progress` in [0, 1], the completed part of the run."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {progress}")
        for child in self.children():
            if isinstance(child, Temperature):
                child.anneal(progress)

    def _stacked(self, logits: Sites) -> Stacked:
        """The logits, stacked. Raises ValueError if they are invalid, see `estimate`."""
        if not isinstance(logits, tuple | list | Stacked):
            logits = sites_of(logits)
        shapes = [getattr(site, "shape", (0,)) for site in logits]
        rows = shapes[0][:-1] if shapes else ()
        if shapes != [(*rows, size) for size in self.sizes]:
            sites_of(logits)  # says what else is wrong
            raise ValueError(
                f"logits must be one (*rows, K) tensor per site with K = {self.sizes}, got shapes "
                f"{[tuple(shape) for shape in shapes]}"
            )
        if torch.is_autocast_enabled(logits[0].device.type):  # it would round scores, slopes and all backward passes
            raise ValueError("an estimator must run outside autocast; open the autocast region inside the objective")
        layout = layout_of(self.sizes)
        whole = Stacked(stacks(logits, layout), layout)
        first, *others = whole.stacks  # few, where there may be many sites
        if not first.is_floating_point() or not first.numel() or any(one.dtype != first.dtype for one in others):
            sites_of(logits)  # says what is wrong
        return whole

    def _fit(self, loss: Tensor) -> None:
        """Add the gradient of a fitting loss, averaged over rows, to the `.grad` of this estimator's own parameters."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters or not loss.requires_grad:  # frozen, or all that this loss depends on
            return
        grads = torch.autograd.grad(loss.mean(), parameters, allow_unused=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def _is_done(*_: object, **__: object) -> None:
    """Replaces `backward` of the returned loss, because users may call it by habit."""
    raise RuntimeError("the loss returned by an estimator's `backward` is backpropagated already: leave out this call")


class SeveralSamples(Estimator):
    """An estimator that evaluates S samples in one call to the objective. Its noise is uniforms `(S, *rows, K_l)`.

    Args:
        sizes: K_l of each site.
        samples: S ≥ 2; weights train on the mean over the samples.
    """

    def __init__(self, sizes: Sequence[int], *, samples: Several = 2) -> None:
        super().__init__(sizes)
        if samples < 2:
            raise ValueError(f"samples must be at least 2, got {samples}")
        self.evaluations = samples

    def draw(self, logits: Sites, generator: torch.Generator | None = None) -> Any:
        return uniform(logits, generator, (self.evaluations,))


def train_weights(loss: Tensor, weight: Tensor | float = 1.0) -> None:
    """Backpropagate Σ weight · loss at once, so that its graph is freed before the next one is built.

    Only leaves of the objective's graph receive a gradient: its weights, and a sample that requires grad.
    """
    if loss.requires_grad:
        # full_like fills a number in on the device; a copy from the host would wait for the device
        loss.backward(weight.to(loss).expand_as(loss) if isinstance(weight, Tensor) else torch.full_like(loss, weight))


class Temperature(nn.Module):
    """A temperature t, constant or on a schedule.

    Args:
        temperature: one of
            t                       constant,
            (a, b)                  a^(1−s) b^s, from a to b as the progress s of the run goes from 0 to 1,
            (a, b, "linear")        (1−s) a + s b,
            (a, b, "entropy")       a^h b^(1−h), where h in [0, 1] is the mean over sites of H(q)/log K, the entropy of
                                    q divided by its maximum: a while q is uniform, b once q is deterministic.

    The entropy is computed separately for each row. No gradient flows through t.
    """

    value: Tensor

    def __init__(self, temperature: float | tuple[float, float] | tuple[float, float, str]) -> None:
        super().__init__()
        given = temperature if isinstance(temperature, tuple) else (temperature, temperature)
        self.start, self.end = float(given[0]), float(given[1])
        self.schedule = given[2] if len(given) == 3 else "geometric"
        self.register_buffer("value", torch.tensor(self.start, dtype=torch.float64))

    def forward(self, sites: Sites) -> Tensor:
        """t in the dtype of these logits `(*rows, K_l)`: shape `()`, or `(*rows, 1, 1)` if it follows the entropy."""
        of = stacked(sites)
        if self.schedule != "entropy":
            return self.value.to(of.stacks[0].dtype)
        entropies = [_entropy(stack.detach()) for stack in of.stacks if stack.shape[-1] > 1]
        if not entropies:  # no site has a choice
            return torch.full_like(of.stacks[0][..., :1, :1], self.end)
        h = torch.cat(entropies, -1).mean(-1)[..., None, None]
        return self.end * (self.start / self.end) ** h

    def anneal(self, progress: float) -> None:
        if self.schedule == "geometric":
            self.value.fill_(self.start * (self.end / self.start) ** progress)
        elif self.schedule == "linear":
            self.value.fill_((1 - progress) * self.start + progress * self.end)


def _entropy(logits: Tensor) -> Tensor:
    """H(q)/log K in [0, 1] of each site, `(*rows, n)`, from a stack `(*rows, n, K)`."""
    p = torch.softmax(logits, -1)
    return torch.special.entr(p).sum(-1) / math.log(logits.shape[-1])


def _shifted(logits: Tensor) -> Tensor:
    """Logits shifted to maximum 0, so that a large constant cannot round the noise away. ValueError: NaN or inf."""
    most = logits.amax(-1, keepdim=True)
    # Reading values waits for the device, so this is checked on the CPU only.
    plain = type(most) is Tensor and not torch.compiler.is_compiling()
    # the sum is a fast first test; it may overflow although every entry is finite
    if plain and most.device.type == "cpu" and not math.isfinite(most.sum()) and not bool(most.isfinite().all()):
        raise ValueError("logits must be finite; -inf may forbid some categories of a site, not all; got NaN or inf")
    return logits - most


def _checked(sizes: Sequence[int]) -> tuple[int, ...]:
    """K_l of each site as plain integers. Raises ValueError if they are not integers ≥ 1."""
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise ValueError(f"sizes must be a sequence, the number of categories of each site, got {sizes!r}")
    try:
        found = tuple(operator.index(size) for size in sizes)
    except TypeError:
        found = ()
    if not found or min(found) < 1:
        raise ValueError(f"sizes must name at least one site of at least one category, got {sizes!r}")
    return found
