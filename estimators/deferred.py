"""An estimate whose gradients wait for the backward pass of a loss.

An estimator backpropagates through f as soon as it has a value of it. Here each value is detached from its graph and
given to the estimator as a leaf. What the estimator backpropagates ends in the leaf's `.grad`: it is the weight of that
value. In the backward pass one `Function` passes the weights on to the values, and the estimate to the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from estimators.base import Estimator
from estimators.objective import Objective, Sites, Wrapper, adapt, at_least_fp32


def postponed(
    estimator: Estimator, objective: Callable[[Sites], Tensor], logits: Sites, generator: torch.Generator | None
) -> Tensor:
    """The loss `(*rows)`, whose backward pass hands out what `estimator.backward` would have."""
    whole = estimator._stacked(logits)
    asked = _Deferred(adapt(objective, estimator.sizes, at_least_fp32(whole.stacks[0]).dtype), [])
    with _own_gradients(estimator) as fitted:
        loss, grads = estimator._of_stacks(asked, whole, estimator.draw(logits, generator))
    reached = [(value, leaf.grad) for value, leaf in asked.values if leaf.grad is not None]
    values, weights = [value for value, _ in reached], [weight for _, weight in reached]
    parameters, fits = [parameter for parameter, _ in fitted], [fit for _, fit in fitted]
    result: Tensor = _Postponed.apply(loss, grads.stacks, weights, fits, *whole.stacks, *values, *parameters)
    return result


class _Deferred(Wrapper):
    """An objective whose values are leaves.

    Args:
        inner: the objective.
        values: where each value that has a graph is put down, beside its leaf.
    """

    def __init__(self, inner: Objective, values: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__(inner)
        self.values = values

    def around_another(self, piece: Objective) -> Wrapper:
        return _Deferred(piece, self.values)

    def __call__(self, sample: Sites, /) -> Tensor:
        leaves = tuple(site.detach().requires_grad_(site.requires_grad) for site in sample)
        value = self.inner(leaves)
        leaf = self._cut(value)
        return leaf if leaf is value else _Sloped.apply(leaf, (value, leaves), *sample)

    def hard(self, index: Sites, /) -> Tensor:
        return self._cut(self.inner.hard(index))

    def around(self, index: Sites, others: Sites, /) -> tuple[Tensor, Tensor]:
        loss, values = self.inner.around(index, others)
        return self._cut(loss), values

    def _cut(self, value: Tensor) -> Tensor:
        if not value.requires_grad:
            return value
        leaf = value.detach().requires_grad_()
        self.values.append((value, leaf))
        return leaf


class _Sloped(Function):
    """A leaf's value, which has the slope of the value that it was cut off from, in the sample and in nothing else."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, graph: tuple[Tensor, Sites], *sample: Tensor) -> Tensor:
        ctx.graph = graph
        return leaf.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        value, leaves = ctx.graph
        wanted = [leaf for leaf, needed in zip(leaves, ctx.needs_input_grad[2:], strict=True) if needed]
        # the graph is kept for the weights
        found = torch.autograd.grad(value, wanted, weight, retain_graph=True, allow_unused=True) if wanted else ()
        slopes = iter(found)
        return weight, None, *(next(slopes) if needed else None for needed in ctx.needs_input_grad[2:])


class _Postponed(Function):
    """The loss, whose gradient reaches logits, values of f and the estimator's parameters, in this order."""

    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, grads: tuple[Tensor, ...], weights: list[Tensor], fits: list[Tensor], *inputs: Tensor
    ) -> Tensor:
        ctx.counts = len(grads), len(weights)
        ctx.save_for_backward(*grads, *weights, *fits)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        stacks, values = ctx.counts
        found = ctx.saved_tensors
        grads = [(scale[..., None, None] * grad).to(grad.dtype) for grad in found[:stacks]]
        weights = [(scale * weight).to(weight.dtype) for weight in found[stacks : stacks + values]]
        return None, None, None, None, *grads, *weights, *found[stacks + values :]


@contextmanager
def _own_gradients(estimator: Estimator) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The gradients that the estimator gives its own parameters meanwhile, taken out of their `.grad`."""
    found: list[tuple[Tensor, Tensor]] = []
    before = [(parameter, parameter.grad) for parameter in estimator.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield found
    finally:
        for parameter, grad in before:
            if parameter.grad is not None:
                found.append((parameter, parameter.grad))
            parameter.grad = grad
