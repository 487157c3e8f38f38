"""The control variate of a sweep for the sites of one size, and the regression that it comes from.

    h(k) = α ∂f/∂x_k + T(k)

The table T and α are what a recursive least squares of the differences of earlier steps comes to, with a forgetting
factor, one pseudo-observation of 0 for each entry of T, and `PRIOR` of 1 for α, which stays within `RANGE`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PRIOR = 10.0
"""Steps at which a site is drawn again that α = 1 counts for."""
RANGE = (0.0, 2.0)
"""Of α: where slopes are next to nothing for long, as of a saturated relaxation, any multiple of them would fit, and
the next that are not would be multiplied too."""


class Regression(nn.Module):
    """h of n sites of K categories.

    Args:
        n, size: n and K.
    """

    gram: Tensor
    moment: Tensor
    table: Tensor
    alpha: Tensor

    def __init__(self, n: int, size: int) -> None:
        super().__init__()
        # the features are the categories and, last, the slope
        # float64: of many rows, what rounding adds to the sums would outweigh one pseudo-observation
        self.register_buffer("gram", torch.zeros(n, size + 1, size + 1, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(n, size + 1, dtype=torch.float64))
        self.register_buffer("table", torch.zeros(n, size))
        self.register_buffer("alpha", torch.ones(n))

    def forward(self, slope: Tensor) -> Tensor:
        """h of every category, `(*rows, n, K)` from slopes of that shape."""
        return self.alpha.unsqueeze(-1) * slope + self.table

    def add(self, features: Tensor, differences: Tensor, decay: float) -> None:
        """Put a step into the sums.

        Args:
            features: deviations of the categories and of the slope from their means, `(B, n, K + 1)`.
            differences: those of f, `(B, n)`.
            decay: what the steps before count for.
        """
        features, differences = features.to(self.gram.dtype), differences.to(self.gram.dtype)
        # a step that went wrong is no observation, and must not stay in the sums
        right = torch.isfinite(features).all(-1).all(0) & torch.isfinite(differences).all(0)
        features, differences = torch.where(right.unsqueeze(-1), features, 0), torch.where(right, differences, 0)
        self.gram.mul_(decay).add_(torch.einsum("bni,bnj->nij", features, features))
        self.moment.mul_(decay).add_(torch.einsum("bni,bn->ni", features, differences))

    def fit(self, weight: Tensor) -> None:
        """The table and α from the sums of all steps so far, which count for `weight` steps: for the next."""
        gram, moment = self.gram.double(), self.moment.double()
        table, slope = gram[:, :-1, :-1], gram[:, :-1, -1]
        # both as A⁻¹ b, with one pseudo-observation of 0 for each category: the table is the first less α of the second
        factor = torch.linalg.cholesky_ex(table + torch.eye(table.shape[-1], dtype=table.dtype, device=table.device)).L
        alone, aside = torch.cholesky_solve(torch.stack([moment[:, :-1], slope], -1), factor).unbind(-1)
        square = gram[:, -1, -1]
        prior = PRIOR * square / weight  # that many times what a step brings
        above = moment[:, -1] - (slope * alone).sum(-1) + prior
        below = square - (slope * aside).sum(-1) + prior
        alpha = torch.where(below > 0, above / torch.where(below > 0, below, 1), 1).clamp(*RANGE)
        self.table.copy_(alone - alpha.unsqueeze(-1) * aside)
        self.alpha.copy_(alpha)
