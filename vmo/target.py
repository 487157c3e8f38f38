"""A target for the cost: the penalty that holds q to it, and the architecture that is chosen from q.

While q is learned there is a quadratic penalty on the *expected* cost, which is known exactly (see
`vmo.space.Penalty`):

    ½ s (E_q[r(A)] − t)²,      r(A): MACs of A as a fraction of the full network's; t: the target; s: the stiffness

It holds E_q[r] within ‖∂E f/∂r‖/s of t. E_q f then decides on which channels the budget is spent.

The argmax of q may cost more or less than q does on average. So the chosen architecture is the most probable one among
those whose cost is within 0.01 of t. It is found exactly, except that costs are rounded to multiples of 0.0005, by a
knapsack recursion over the blocks l. v_l(c) is the largest log-probability at total cost c, and c_l(k) the cost of
width k:

    v_l(c) = max_k  v_{l−1}(c − c_l(k)) + log q_l(k)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vmo.space import Penalty, Sites, Space

TOLERANCE = 0.01
"""How far the chosen architecture's cost may lie from the target, as a fraction of the full network's cost."""
_BIN = 5e-4


@dataclass(frozen=True)
class Target:
    """The penalty ½ s (E_q[r(A)] − t)², in place of γ E_q[r].

    Args:
        cost: r, normalised to 1 for the full network.
        ratio: the target t, in (0, 1].
        stiffness: s, in nats. If the loss would fall by 0.5 nats per unit of r, the cost ends 0.5/s above the target.

    Raises:
        ValueError: the ratio is not in (0, 1].
    """

    cost: Penalty
    ratio: float
    stiffness: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"target_macs must lie in (0, 1], a fraction of the full network's, got {self.ratio:g}")

    def expected(self, space: Space, probabilities: Sites) -> Tensor:
        """The penalty at probabilities `(K,)` per site, in nats."""
        return self.of(self.cost.expected(space, probabilities))

    def of(self, cost: Tensor) -> Tensor:
        """The penalty at an expected cost E_q[r(A)], in nats."""
        return 0.5 * self.stiffness * (cost - self.ratio) ** 2

    def reach(self, space: Space) -> dict[str, float]:
        """As `Penalty.reach`, multiplied by the stiffness."""
        return {what: self.stiffness * reach**2 for what, reach in self.cost.reach(space).items()}

    def check(self, space: Space) -> None:
        """Raises ValueError if every architecture costs more than the target; one line with the smallest cost."""
        least = float(self.cost.expected(space, tuple(_first(size) for size in space.sizes)))
        if self.ratio < least - TOLERANCE:
            raise ValueError(f"target_macs={self.ratio:g} cannot be met: the smallest {space.task} costs {least:.3f}")


def _first(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)[0]


@torch.no_grad()
def most_probable(space: Space, logits: Sites, cost: Penalty, ratio: float) -> tuple[int, ...]:
    """The category of each site of the most probable architecture whose cost is within `TOLERANCE` of `ratio`.

    If there is none (for example if only the depth varies), the one with the nearest cost. Sites of blocks beyond the
    depth, which the architecture does not use, get their most probable category.

    Args:
        space: the sites.
        logits: logits of q, `(K,)` per site. With Gumbel noise added, the result is a sample.
        cost: normalised to 1 for the full network.
        ratio: the target.
    """
    sizes = [site.shape[-1] for site in logits]
    host = torch.cat([site.detach().double() for site in logits]).cpu().split(sizes)  # waits for the device once
    scores = tuple(torch.log_softmax(site, -1) for site in host)
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
        # if the target is missed the nearest cost wins, otherwise the largest probability
        ranked = (-max(0.0, missed - TOLERANCE), score)
        if best is None or ranked > best[0]:
            best = (ranked, tuple(index))
    assert best is not None
    return best[1]


def _knapsack(space: Space, scores: Sequence[Tensor], slope: Sequence[float], budget: float) -> tuple[list[int], float]:
    """The most probable category per site whose costs sum to about `budget`, and by how much the sum misses it."""
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
