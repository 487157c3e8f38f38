"""A share of the full network's cost to be met: what holds q to it, and which architecture then stands for q.

While q is learned, a quadratic penalty on the *expected* cost, which is known exactly (see `vmo.space.Penalty`),

    ½ s (E_q[r(A)] − t)²,      r the part of the full network's MACs that A has, t the target,

holds E_q[r] within ‖∂E f/∂r‖/s of t, and E_q f decides which channels the budget is spent on.

The argmax of q need not cost what q costs on average. What is deployed is the most probable setting of all sites among
those whose cost is within one point of t, found exactly but for rounding of costs to 1/20 point: a knapsack over the
blocks,

    v_l(c) = max_k  v_{l−1}(c − c_l(k)) + log q_l(k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vmo.space import Penalty, Sites, Space

TOLERANCE = 0.01
"""Of the cost of what is deployed, as a part of the full network's."""
_BIN = 5e-4


@dataclass(frozen=True)
class Target:
    """The penalty ½ s (E_q[r(A)] − t)², in place of γ E_q[r].

    Args:
        cost: r, normalised to 1 for the full network.
        ratio: t.
        stiffness: s, in nats. A network that would gain 0.5 nats from its whole cost ends 0.5/s above its target.
    """

    cost: Penalty
    ratio: float
    stiffness: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"target_macs must lie in (0, 1], a part of the full network's, got {self.ratio:g}")

    def expected(self, space: Space, probabilities: Sites) -> Tensor:
        """The penalty at probabilities `(K,)` per site, in nats."""
        return 0.5 * self.stiffness * (self.cost.expected(space, probabilities) - self.ratio) ** 2

    def reach(self, space: Space) -> dict[str, float]:
        """As that of `cost`, at full stiffness."""
        return {what: self.stiffness * reach**2 for what, reach in self.cost.reach(space).items()}

    def check(self, space: Space) -> None:
        """Raises ValueError where no architecture comes near the ratio from below: one line with the least there is."""
        least = float(self.cost.expected(space, tuple(_first(size) for size in space.sizes)))
        if self.ratio < least - TOLERANCE:
            raise ValueError(f"target_macs={self.ratio:g} cannot be met: the smallest {space.task} costs {least:.3f}")


def _first(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)[0]


@torch.no_grad()
def most_probable(space: Space, logits: Sites, cost: Penalty, ratio: float) -> tuple[int, ...]:
    """The category of each site of the most probable architecture whose cost is within `TOLERANCE` of `ratio`.

    Where there is none, as where few depths are all that varies, the one nearest to `ratio`. Sites beyond the depth,
    which an architecture does not use, take their own most probable category.

    Args:
        space: the sites.
        logits: of q, `(K,)` per site; perturbed by Gumbel noise they give a sample instead.
        cost: normalised to 1 for the full network.
        ratio: the target.
    """
    scores = tuple(torch.log_softmax(site.detach().double().cpu(), -1) for site in logits)
    depth, widths = space.split(scores)
    best: tuple[tuple[float, float], tuple[int, ...]] | None = None
    for d in range(len(space.hidden)) if depth is not None else [len(space.hidden) - 1]:
        fixed = float(sum(cost.fixed[: d + 1]))
        active = d + 1 if cost.active else len(space.hidden)
        if not widths:
            fixed += sum(s * k for s, k in zip(cost.slope[:active], space.hidden, strict=False))
        index, missed = _knapsack(space, widths[:active], cost.slope, ratio - fixed)
        index += [int(site.argmax()) for site in widths[active:]]
        score = sum(float(site[i]) for site, i in zip(widths, index, strict=True))
        if depth is not None:
            score, index = score + float(depth[d]), [d, *index]
        if score == -torch.inf:
            continue
        # nearest first where the target is missed, most probable first where it is met
        ranked = (-max(0.0, missed - TOLERANCE), score)
        if best is None or ranked > best[0]:
            best = (ranked, tuple(index))
    assert best is not None
    return best[1]


def _knapsack(space: Space, scores: Sequence[Tensor], slope: Sequence[float], budget: float) -> tuple[list[int], float]:
    """The best category per site whose costs sum to `budget`, and by how much they miss it."""
    most = sum(s * space.step * len(site) for s, site in zip(slope, scores, strict=False))
    bins = round(most / _BIN) + len(scores) + 1
    value = torch.full((bins,), -torch.inf, dtype=torch.float64)
    value[0] = 0.0
    taken = []
    for site, per_channel in zip(scores, slope, strict=False):
        spent = torch.arange(1, len(site) + 1, dtype=torch.float64) * (per_channel * space.step)
        shift = (spent / _BIN).round().long()
        source = torch.arange(bins) - shift[:, None]  # (K, bins): where each category comes from
        total = torch.where(source >= 0, value[source.clamp(min=0)] + site[:, None], -torch.inf)
        value, choice = total.max(0)
        taken.append((choice, shift))
    miss = (torch.arange(bins) * _BIN - budget).abs()
    miss = torch.where(value > -torch.inf, miss, torch.inf)
    near = miss <= max(TOLERANCE - len(scores) * _BIN / 2, float(miss.min()))
    position = int(torch.where(near, value, -torch.inf).argmax())
    missed, index = float(miss[position]), []
    for choice, shift in reversed(taken):
        index.append(int(choice[position]))
        position -= int(shift[index[-1]])
    return index[::-1], missed
