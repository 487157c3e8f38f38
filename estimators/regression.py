"""The control variate of `sweep` for the sites of one size K, and the regression that fits it.

    h(k) = α ∂f/∂x_k + T(k)

The table T and α are fitted by recursive least squares to differences of f at earlier steps, with a forgetting factor.
The prior is one pseudo-observation of 0 for each entry of T and `PRIOR` pseudo-observations of 1 for α. α stays in
`RANGE`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PRIOR = 10.0
"""Weight of the prior α = 1, in steps at which the site is drawn again."""
RANGE = (0.0, 2.0)
"""Range of α. If slopes stay near 0 for long, as in a saturated relaxation, any α fits them. Without this limit the
next slope that is not small could be multiplied by a huge α."""


class Regression(nn.Module):
    """h of n sites of K categories.

    Args:
        n: number of sites.
        size: K.
    """

    gram: Tensor
    moment: Tensor
    table: Tensor
    alpha: Tensor

    def __init__(self, n: int, size: int) -> None:
        super().__init__()
        # The features are the K categories, and the slope last. float64, because rounding errors in the sums over many
        # rows would otherwise outweigh one pseudo-observation.
        self.register_buffer("gram", torch.zeros(n, size + 1, size + 1, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(n, size + 1, dtype=torch.float64))
        self.register_buffer("table", torch.zeros(n, size))
        self.register_buffer("alpha", torch.ones(n))

    def forward(self, slope: Tensor) -> Tensor:
        """h of every category, `(*rows, n, K)`, from slopes of the same shape."""
        return self.alpha.unsqueeze(-1) * slope + self.table

    def add(self, features: Tensor, differences: Tensor, decay: float) -> None:
        """Add a step to the sums.

        Args:
            features: deviations of the categories and of the slope from their means, `(B, n, K + 1)`.
            differences: deviations of f from its mean, `(B, n)`.
            decay: factor on the sums of earlier steps.
        """
        features, differences = features.to(self.gram.dtype), differences.to(self.gram.dtype)
        # values that are not finite must not enter the sums
        right = torch.isfinite(features).all(-1).all(0) & torch.isfinite(differences).all(0)
        features, differences = torch.where(right.unsqueeze(-1), features, 0), torch.where(right, differences, 0)
        self.gram.mul_(decay).add_(torch.einsum("bni,bnj->nij", features, features))
        self.moment.mul_(decay).add_(torch.einsum("bni,bn->ni", features, differences))

    def fit(self, weight: Tensor) -> None:
        """Set the table and α for the next step, from the sums so far, which count for `weight` steps."""
        gram, moment = self.gram.double(), self.moment.double()
        table, slope = gram[:, :-1, :-1], gram[:, :-1, -1]
        # two solutions A⁻¹ b, where A contains the pseudo-observations: the table is the first minus α times the second
        factor = torch.linalg.cholesky_ex(table + torch.eye(table.shape[-1], dtype=table.dtype, device=table.device)).L
        alone, aside = torch.cholesky_solve(torch.stack([moment[:, :-1], slope], -1), factor).unbind(-1)
        square = gram[:, -1, -1]
        prior = PRIOR * square / weight  # `PRIOR` times the average contribution of one step
        above = moment[:, -1] - (slope * alone).sum(-1) + prior
        below = square - (slope * aside).sum(-1) + prior
        alpha = torch.where(below > 0, above / torch.where(below > 0, below, 1), 1).clamp(*RANGE)
        self.table.copy_(alone - alpha.unsqueeze(-1) * aside)
        self.alpha.copy_(alpha)
