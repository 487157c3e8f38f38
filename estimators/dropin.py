"""Estimators without the protocol: an ordinary sample, or an ordinary loss, and then `loss.backward()`.

>>> z = estimators.sample("reinmax", logits)  # doctest: +SKIP
>>> f(z).sum().backward()  # doctest: +SKIP

>>> loss = estimators.surrogate("rloo", f, logits, samples=4)  # doctest: +SKIP
>>> loss.sum().backward()  # doctest: +SKIP

A `pathwise` estimator gives a gradient g = A v that is linear in v = ∂f/∂z, the slope at its one sample z. A
depends only on the logits and the noise. So z can be returned before f is known. When v arrives in the backward pass,
the estimator is applied to the linear function s ↦ ⟨s, v⟩ with the same noise. The slope of this function is v, so the
estimate is A v.

Any other estimator needs values of f, at samples that it chooses. `surrogate` is given f and calls it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

import estimators
from estimators.base import Estimator
from estimators.deferred import postponed
from estimators.objective import Objective, Sites, sites_of

_METHODS = ("hard", "control", "part", "around")


@overload
def sample(
    estimator: str | Estimator, logits: Tensor, *, generator: torch.Generator | None = None, **options: Any
) -> Tensor: ...
@overload
def sample(
    estimator: str | Estimator, logits: Sequence[Tensor], *, generator: torch.Generator | None = None, **options: Any
) -> tuple[Tensor, ...]: ...
def sample(
    estimator: str | Estimator,
    logits: Tensor | Sequence[Tensor],
    *,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, ...]:
    """A sample with the gradient of the estimator, for any loss that is computed from it.

    Let the loss be the sum of f over rows. Then the logits receive what `estimator.backward(f, logits)` gives them with
    the same noise. Weights receive the gradient of the loss. May be called inside autocast.

    The noise and the logits are kept until the backward pass, which makes the sample a second time. Noise is as large
    as the logits; that of `gumbel_rao` is 1 + `samples` times as large. The sample cannot be differentiated twice.

    Args:
        estimator: the name of an estimator that is `pathwise`, or such an estimator, made for these sizes. Pass an
            object if its temperature follows a schedule: `anneal` moves it, and a name makes a new estimator in every
            call.
        logits: `(*rows, K)`, or a sequence of such tensors with the same rows; K may differ. −inf forbids a category.
        generator: generator of the noise.
        **options: options of the estimator, if it is given by name.

    Returns:
        A tensor if the logits are one, otherwise a tuple: one-hot `(*rows, K)` in their dtype, or soft for `concrete`.
        With a single tensor all dimensions but the last are rows. So `(batch, sites, K)` works like `(batch, K)`.

    Raises:
        ValueError: the estimator is not pathwise, or `estimators.get` or `Estimator.estimate` refuses the arguments.
        RuntimeError: in the backward pass, if the estimator was changed after the sample was drawn.
    """
    sites = _sites(logits)
    made = pathwise(estimator, sites, options)
    with _without_autocast(sites):
        made._stacked(sites)  # refuses what has the wrong shape, before noise is drawn for it
        drawn: tuple[Tensor, ...] = _Sample.apply(made, made.draw(sites, generator), *sites)
    return drawn[0] if isinstance(logits, Tensor) else drawn


def surrogate(
    estimator: str | Estimator,
    objective: Callable[[Any], Tensor],
    logits: Tensor | Sequence[Tensor],
    *,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor:
    """A loss `(*rows)` whose backward pass is that of the estimator; works for every estimator.

    Its value is that of `estimator.backward(objective, logits)`, and `loss.sum().backward()` gives the same gradients.
    Nothing receives a gradient before that. The gradients of the logits and of weights inside f are multiplied by the
    gradient of the loss; those of the estimator's own parameters are not. f may also depend on the logits directly,
    like a penalty on them. That gradient is added.

    This call updates the estimator's buffers, such as a moving baseline, except in `eval()` mode. Under `no_grad` it
    does nothing else.

    The graph of every call of f is kept until the backward pass. (`Estimator.backward` frees each before the next.) So
    the memory of `exact` grows with the number of configurations. If an estimator needs ∂f/∂sample, this call
    backpropagates through f, and the backward pass of the loss does so again for the weights.

    Args:
        estimator: a name, or an estimator made for these sizes. One with a state, such as a moving baseline or a
            control variate, must be made once and passed as an object.
        objective: f, see `estimators.Objective`. It receives a tuple of `(*lead, *rows, K)` tensors, or a single tensor
            if `logits` is a single tensor. It returns `(*lead, *rows)`.
        logits: `(*rows, K)`, or a sequence of such tensors with the same rows; K may differ. They need not be leaves.
            −inf forbids a category.
        generator: generator of the noise.
        **options: options of the estimator, if it is given by name.

    Raises:
        ValueError: an estimator with a state is given by name, an objective with methods of its own is given with a
            single tensor, or `estimators.get` or `Estimator.estimate` refuses the arguments.
    """
    sites = _sites(logits)
    made = _made(estimator, sites, options)
    if isinstance(estimator, str) and made.learns:
        raise ValueError(
            f"{estimator!r} has a state that moves from step to step, and by name it would begin anew in each: "
            f"make it once by estimators.get({estimator!r}, sizes={made.sizes}) and pass it"
        )
    return postponed(made, _Alone(objective) if isinstance(logits, Tensor) else objective, sites, generator)


def pathwise(estimator: str | Estimator, logits: Sites, options: dict[str, Any]) -> Estimator:
    """The estimator for these logits. Raises ValueError if it is not `pathwise`, or as `estimators.get` does."""
    made = _made(estimator, logits, options)
    if not made.pathwise:
        name = estimator if isinstance(estimator, str) else type(estimator).__name__
        raise ValueError(
            f"{name} needs values of f, which a sample alone cannot give it: use estimators.surrogate(…, f, logits)"
        )
    return made


def _made(estimator: str | Estimator, logits: Sites, options: dict[str, Any]) -> Estimator:
    if not isinstance(estimator, Estimator):
        return estimators.get(estimator, [site.shape[-1] for site in logits], **options)
    if options:
        raise ValueError(f"options are for a name; this {type(estimator).__name__} is made: {', '.join(options)}")
    return estimator


def _sites(logits: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return sites_of((logits,) if isinstance(logits, Tensor) else logits)


def _without_autocast(sites: Sites) -> torch.autocast:
    return torch.autocast(sites[0].device.type if sites else "cpu", enabled=False)


class _Sample(Function):
    """From logits to a sample; on the way back, from slopes at the sample to estimates."""

    @staticmethod
    def forward(ctx: Any, estimator: Estimator, noise: Any, *logits: Tensor) -> tuple[Tensor, ...]:
        if any(ctx.needs_input_grad):
            ctx.estimator, ctx.noise, ctx.state = estimator, noise, _versions(estimator)
            ctx.save_for_backward(*logits)
        return _drawn(estimator, logits, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        logits = ctx.saved_tensors
        if _versions(ctx.estimator) != ctx.state:
            raise RuntimeError(
                "the estimator was changed after the sample was drawn: anneal it before a sample or after its backward"
            )
        with _without_autocast(logits):
            _, grads = ctx.estimator.estimate(_Linear(slopes), logits, ctx.noise)
        return None, None, *grads


def _versions(estimator: Estimator) -> list[tuple[int, int]]:
    return [(id(buffer), buffer._version) for buffer in estimator.buffers()]


def _drawn(estimator: Estimator, logits: Sites, noise: Any) -> tuple[Tensor, ...]:
    """The sample at which the estimator asks for f."""
    found: Sites = ()
    try:
        estimator.estimate(_Asked(), logits, noise)
    except _Sampled as at:
        found = at.sample
    if [z.shape for z in found] != [site.shape for site in logits]:
        raise RuntimeError(f"{type(estimator).__name__} claims to be pathwise and does not ask for ∂f/∂z at one sample")
    # copies, for these are views of the stacks of all sites
    return tuple(z.to(site.dtype, copy=True) for z, site in zip(found, logits, strict=True))


class _Sampled(Exception):
    """No error: it carries a sample out of an estimator that goes no further."""

    def __init__(self, sample: Sites) -> None:
        self.sample = [site.detach() for site in sample]


class _Asked:
    broadcasts = True

    def __call__(self, sample: Sites, /) -> Tensor:
        raise _Sampled(sample)

    def hard(self, index: Sites, /) -> Tensor:
        raise _Sampled(())  # no slope is asked for


class _Linear:
    """s ↦ ⟨s, v⟩, summed over sites."""

    broadcasts = True

    def __init__(self, slopes: Sites) -> None:
        self.slopes = slopes

    def __call__(self, sample: Sites, /) -> Tensor:
        whole = torch.cat(tuple(sample), -1)
        return (whole * torch.cat(tuple(self.slopes), -1).to(whole.dtype)).sum(-1)


class _Alone:
    """An objective of a single site that is given the tensor itself."""

    broadcasts = True

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        if own := [name for name in _METHODS if _is_own(inner, name)]:
            raise ValueError(f"an objective with {', '.join(own)} is given a tuple of sites: write (logits,)")
        self.inner = inner

    def __call__(self, sample: Sites, /) -> Tensor:
        return self.inner(sample[0])


def _is_own(objective: object, name: str) -> bool:
    usual = getattr(Objective, name)
    return getattr(type(objective), name, usual) is not usual
